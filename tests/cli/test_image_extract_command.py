"""`cloner image-extract`: what is refused, and that nothing is written then; extracting itself wants root (below)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_agent.capture.job import CaptureOptions, capture
from cloner_core.errors import ExitStatus
from cloner_server.state import images
from cloner_server.store.local import LocalSink, LocalStore

EVERYTHING = ("--image", "golden", "--no-owners")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def test_a_dry_run_says_how_much_and_writes_nothing(desk: Desk, target: Path) -> None:
    told = desk.json("image-extract", *EVERYTHING, "--to", str(target), "--dry-run")
    root = desk.scene.core.catalog.store.version("golden")
    assert (told["inodes"], told["data_bytes"], told["number"]) == (root.inodes, root.data_bytes, 1)
    some = desk.json("image-extract", *EVERYTHING, "--path", "/boot", "--to", str(target), "--dry-run")
    assert (some["inodes"], some["packs"], some["data_bytes"]) == (3, 1, len(b"a kernel"))
    assert not target.exists()


def test_only_root_gives_files_away(desk: Desk, target: Path) -> None:
    desk.is_root = False
    result = desk.refused("image-extract", "--image", "golden", "--to", str(target))
    assert result.exit_code == ExitStatus.REFUSED
    assert "--no-owners" in result.stderr
    assert not target.exists()


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda path: path.mkdir() or path.joinpath("file").touch(), ExitStatus.REFUSED),
        (lambda path: path.touch(), ExitStatus.USAGE),
        (lambda path: path.symlink_to("/nosuch/place"), ExitStatus.USAGE),
    ],
    ids=["holds-something", "file", "link-to-nowhere"],
)
def test_a_target_that_is_not_free_is_left_as_it_is(
    desk: Desk, target: Path, make: Callable[[Path], object], status: ExitStatus
) -> None:
    make(target)
    before = target.lstat()
    wanted = (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert desk.refused("image-extract", *EVERYTHING, "--to", str(target)).exit_code == status
    after = target.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == wanted


def test_a_target_in_no_directory_is_refused(desk: Desk, target: Path) -> None:
    assert desk.refused("image-extract", *EVERYTHING, "--to", str(target / "deep")).exit_code == ExitStatus.USAGE


def test_every_path_that_the_version_does_not_have_is_named_and_nothing_stays(desk: Desk, target: Path) -> None:
    result = desk.refused(
        "image-extract", *EVERYTHING, "--to", str(target), "--path", "/boot", "--path", "/nosuch", "--path", "0001/x"
    )
    assert result.exit_code == ExitStatus.NOT_FOUND
    assert "/nosuch" in result.stderr
    assert "/0001/x" in result.stderr
    assert not target.exists()


@pytest.mark.parametrize("path", ["../etc", "/etc/./fstab", "a//b"])
def test_a_path_that_is_none_of_a_tree_is_refused(desk: Desk, target: Path, path: str) -> None:
    result = desk.refused("image-extract", *EVERYTHING, "--to", str(target), "--path", path)
    assert result.exit_code == ExitStatus.USAGE


def test_a_version_of_another_key_is_not_taken(desk: Desk, target: Path) -> None:
    command = ("image-extract", *EVERYTHING, "--to", str(target), "--key")
    assert desk.refused(*command, "0" * 64).exit_code == ExitStatus.INTEGRITY
    assert desk.refused(*command, "0" * 63).exit_code == ExitStatus.USAGE
    assert desk.run(*command, desk.scene.core.site.public_key.hex(), "--dry-run").exit_code == ExitStatus.OK
    assert not target.exists()


@pytest.mark.parametrize("part", ["root", "segment", "map"])
def test_a_damaged_part_ends_the_work_before_anything_is_there(desk: Desk, target: Path, part: str) -> None:
    store, image = desk.scene.core.catalog.store, desk.scene.image
    assert isinstance(store, LocalStore)
    path = {
        "root": store.roots.path_of(image.version),
        "segment": store.segment_path(image.segments[0].ref.digest),
        "map": store.maps.path_of(bytes.fromhex(store.signed_map(image.version).map)),
    }[part]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert desk.refused("image-extract", *EVERYTHING, "--to", str(target)).exit_code == ExitStatus.INTEGRITY
    assert not target.exists()


def publish_tree(desk: Desk, root: Path, name: str = "tree") -> None:
    """Capture a directory into the desk's store, as its server would have."""
    store = desk.scene.core.catalog.store
    assert isinstance(store, LocalStore)
    record = capture(root, LocalSink(store), CaptureOptions(name)).record
    with desk.scene.core.database.write() as connection:
        images.add_version(connection, desk.scene.core.act("test"), record.image, record.number, record.version)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    root = tmp_path / "golden"
    (root / "etc/ssh").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc/motd").write_bytes(b"hello")
    (root / "etc/ssh/config").write_bytes(os.urandom(3 << 20))
    (root / "etc/out").symlink_to("/etc/passwd")
    (root / "etc/up").symlink_to("../../../..")
    (root / "usr/bin/su").write_bytes(b"set-id")
    os.chown(root / "usr/bin/su", 7, 8)
    (root / "usr/bin/su").chmod(0o4711)
    os.link(root / "etc/motd", root / "usr/bin/motd")
    os.setxattr(root / "etc/motd", "user.note", b"kept")
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    (root / "dark").write_bytes(b"mode 0")
    (root / "dark").chmod(0)
    return root


def shape(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what a person sees of a tree."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content = path.read_bytes() if kind == stat.S_IFREG else path.readlink() if kind == stat.S_IFLNK else b""
        owner = (status.st_uid, status.st_gid, status.st_mode, status.st_mtime_ns)
        found[str(path.relative_to(root))] = (*owner, status.st_rdev, content)
    return found


@pytest.mark.root
def test_root_gets_everything_as_it_was(desk: Desk, golden: Path, target: Path) -> None:
    publish_tree(desk, golden)
    result = desk.run("image-extract", "--image", "tree", "--to", str(target))
    assert result.exit_code == ExitStatus.OK, result.output
    assert shape(target) == shape(golden)
    assert os.path.samefile(target / "etc/motd", target / "usr/bin/motd")
    assert os.getxattr(target / "etc/motd", "user.note") == b"kept"


@pytest.mark.root
def test_a_path_is_extracted_with_the_folders_on_its_way(desk: Desk, golden: Path, target: Path) -> None:
    publish_tree(desk, golden)
    target.mkdir()
    told = desk.json("image-extract", "--image", "tree", "--to", str(target), "--path", "/usr", "--path", "etc/ssh")
    wanted = {
        path: seen for path, seen in shape(golden).items() if path.startswith(("usr", "etc/ssh")) or path == "etc"
    }
    assert shape(target) == wanted
    assert told["inodes"] == len(wanted) + 1
    assert (target / "usr/bin/motd").stat().st_nlink == 1, "the file it is a name of was not asked for"
    assert os.getxattr(target / "usr/bin/motd", "user.note") == b"kept"


@pytest.mark.root
def test_without_owners_all_is_ones_own_and_harmless(desk: Desk, golden: Path, target: Path) -> None:
    publish_tree(desk, golden)
    told = desk.json("image-extract", "--image", "tree", "--to", str(target), "--no-owners")
    assert told["devices_left_out"] == 1
    assert not (target / "null").exists()
    status = (target / "usr/bin/su").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o711)
    assert stat.S_IMODE((target / "dark").stat().st_mode) == 0o600
    assert os.listxattr(target / "etc/motd") == []
    assert (target / "etc/ssh/config").read_bytes() == (golden / "etc/ssh/config").read_bytes()
    assert os.path.samefile(target / "etc/motd", target / "usr/bin/motd")


@pytest.mark.root
def test_a_damaged_pack_ends_it_and_what_is_there_is_said(desk: Desk, target: Path) -> None:
    path = desk.scene.core.catalog.store.pack_path(desk.scene.image.packs[0].digest)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    result = desk.run("image-extract", "--image", "golden", "--to", str(target))
    assert result.exit_code == ExitStatus.INTEGRITY
    assert desk.scene.image.packs[0].digest.hex() in result.stderr
    assert f"{target} holds a part of the version" in result.stderr


@pytest.mark.root
def test_a_missing_pack_is_named(desk: Desk, target: Path) -> None:
    desk.scene.core.catalog.store.pack_path(desk.scene.image.packs[0].digest).unlink()
    result = desk.run("image-extract", "--image", "golden", "--to", str(target))
    assert result.exit_code == ExitStatus.NOT_FOUND
    assert desk.scene.image.packs[0].digest.hex() in result.stderr
