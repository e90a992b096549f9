"""A version goes from one site to another in one file, whole and by a key that was trusted, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_server.store.local import LocalStore
from serverbench.scene import make_template, open_scene


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the state of another site once."""
    state = tmp_path_factory.mktemp("elsewhere") / "state"
    make_template(state)
    return state


@pytest.fixture
def other(elsewhere: Path, tmp_path: Path) -> Iterator[Desk]:
    """Another site, whose image of that name has been removed."""
    shutil.copytree(elsewhere, tmp_path / "other")
    scene = open_scene(tmp_path / "other")
    desk = Desk(scene)
    scene.admin("DELETE", "/images/golden/versions/1").raise_for_status()
    scene.core.catalog.store.gc(-60)
    yield desk
    scene.core.database.close()


@pytest.fixture
def exported(desk: Desk, tmp_path: Path) -> Path:
    file = tmp_path / "golden.cloner"
    told = desk.json("image-export", "golden", str(file))
    assert (told["image"], told["number"], told["size_bytes"]) == ("golden", 1, file.stat().st_size)
    assert file.stat().st_mode & 0o777 == 0o600
    return file


def key_of(desk: Desk) -> str:
    return desk.scene.core.site.public_key.hex()


def sent(desk: Desk, kind: str) -> int:
    return sum(method == "PUT" and path.startswith(f"/v1/{kind}/") for method, path in desk.transport.seen)


def test_a_version_comes_to_another_site_with_its_digest_and_its_words(desk: Desk, other: Desk, exported: Path) -> None:
    told = other.json("image-import", str(exported), "--image", "ours", "--key", key_of(desk))
    assert (told["image"], told["number"], told["origin"]) == ("ours", 1, "golden:1")
    there, here = desk.scene.core.catalog.store.version("golden"), other.scene.core.catalog.store.version("ours")
    assert (here.version, here.message, here.author) == (there.version, there.message, there.author)
    assert (here.public_key, here.origin_key) == (key_of(other), key_of(desk))
    assert other.json("store", "check", "--read-data")["faults"] == []
    assert f"it was signed by {key_of(desk)}" in other.run("image-details", "--image", "ours").stdout
    assert other.json("image-verify", "--image", "ours")["faults"] == []


def test_what_another_site_signed_is_taken_only_by_whoever_trusts_its_key(
    desk: Desk, other: Desk, exported: Path
) -> None:
    before = other.stored()
    for more in ((), ("--key", "00" * 32)):
        refused = other.refused("image-import", str(exported), *more)
        assert refused.exit_code == ExitStatus.REFUSED
        assert key_of(desk) in refused.stderr
        assert "--key" in refused.stderr
    assert other.refused("image-import", str(exported), "--key", "xyz").exit_code == ExitStatus.USAGE
    assert other.stored() == before


def test_our_own_file_needs_no_key_and_sends_only_what_is_not_there(desk: Desk, exported: Path) -> None:
    told = desk.json("image-import", str(exported))
    assert (told["number"], told["sent_bytes"], sent(desk, "packs")) == (2, 0, 0)
    assert desk.scene.core.catalog.store.version("golden").origin_key == ""


def test_an_import_that_was_broken_off_goes_on(desk: Desk, other: Desk, exported: Path) -> None:
    whole = exported.read_bytes()
    packs = len(desk.scene.image.packs)
    with tarfile.open(exported) as tar:
        last = [entry for entry in tar if entry.name.startswith("packs/")][-1]
    spoilt = bytearray(whole)
    spoilt[last.offset_data] ^= 1
    exported.write_bytes(spoilt)
    broken = other.run("image-import", str(exported), "--key", key_of(desk))
    assert broken.exit_code == ExitStatus.INTEGRITY
    assert sent(other, "packs") == packs - 1
    assert other.scene.core.catalog.store.images() == []
    exported.write_bytes(whole)
    assert other.json("image-import", str(exported), "--key", key_of(desk))["number"] == 2
    assert sent(other, "packs") == packs, "each was sent once"


def test_a_file_that_is_cut_off_or_altered_is_refused_and_nothing_is_shown(
    desk: Desk, other: Desk, exported: Path
) -> None:
    whole = exported.read_bytes()
    refused = 0
    for at in (0, 600, *range(len(whole) // 8, len(whole), len(whole) // 8)):
        for spoilt in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            exported.write_bytes(spoilt)
            result = other.run("image-import", str(exported), "--key", key_of(desk))
            if result.exit_code == 0:  # the placements, and what fills the blocks of a tar, are not read
                assert len(spoilt) == len(whole)
                assert other.scene.core.catalog.store.version("golden").version == desk.scene.image.version.hex()
                continue
            refused += 1
            assert result.exit_code in (ExitStatus.INTEGRITY, ExitStatus.USAGE, ExitStatus.REFUSED), result.stderr
            assert "Traceback" not in result.stderr
    assert refused >= 12
    assert other.scene.core.catalog.store.check(read_data=True).faults == ()


def test_a_file_with_what_no_export_has_is_refused(desk: Desk, other: Desk, exported: Path) -> None:
    with tarfile.open(exported, "a") as tar:
        tar.addfile(tarfile.TarInfo("../../etc/passwd"))  # found, and never written anywhere
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    refused = other.refused("image-import", str(exported), "--key", key_of(desk))
    assert refused.exit_code == ExitStatus.INTEGRITY


def test_a_dry_run_reads_it_all_and_changes_nothing(desk: Desk, other: Desk, exported: Path) -> None:
    before = other.stored()
    told = other.json("image-import", str(exported), "--key", key_of(desk), "--dry-run")
    assert (told["number"], told["dry_run"], told["sent_bytes"] > 1 << 20) == (None, True, True)
    assert other.stored() == before
    spoilt = exported.read_bytes()[:-2000]
    exported.write_bytes(spoilt)
    assert (
        other.run("image-import", str(exported), "--key", key_of(desk), "--dry-run").exit_code == ExitStatus.INTEGRITY
    )


def test_an_export_is_a_store_for_whoever_unpacks_it(desk: Desk, exported: Path, tmp_path: Path) -> None:
    with tarfile.open(exported) as tar:
        tar.extractall(tmp_path / "unpacked")
    store = LocalStore(tmp_path / "unpacked")
    assert store.check(read_data=True).faults == ()
    assert store.version("golden") == desk.scene.core.catalog.store.version("golden")


def test_an_export_replaces_nothing_unless_told_and_leaves_no_part(desk: Desk, exported: Path) -> None:
    before = exported.read_bytes()
    assert desk.refused("image-export", "golden:1", str(exported)).exit_code == ExitStatus.CONFLICT
    assert desk.refused("image-export", "nosuch", str(exported) + "2").exit_code == ExitStatus.NOT_FOUND
    assert desk.refused("image-export", "golden", "/nowhere/x").exit_code == ExitStatus.USAGE
    assert desk.json("image-export", "golden:1", str(exported), "--force")["number"] == 1
    assert exported.read_bytes() == before, "the same version gives the same file"
    store = desk.scene.core.catalog.store
    pack = store.pack_path(desk.scene.image.packs[0].digest)
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert desk.run("image-export", "golden", str(exported), "--force").exit_code == ExitStatus.INTEGRITY
    assert exported.read_bytes() == before
    assert [name for name in os.listdir(exported.parent) if name.endswith(".part")] == []


def test_a_dry_run_of_an_export_says_how_long_the_file_is(desk: Desk, exported: Path) -> None:
    told = desk.json("image-export", "golden", str(exported) + "2", "--dry-run")
    assert told["size_bytes"] == exported.stat().st_size
    assert not Path(str(exported) + "2").exists()


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where what comes by a pipe is kept."""
    (tmp_path / "spool").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spool"))
    return tmp_path / "spool"


def test_a_version_comes_by_standard_input(desk: Desk, other: Desk, exported: Path, spool: Path) -> None:
    result = other.run("image-import", "-", "--key", key_of(desk), typed=exported.read_bytes())
    assert result.exit_code == 0, result.output
    assert other.scene.core.catalog.store.check(read_data=True).faults == ()
    assert list(spool.iterdir()) == []


def test_a_version_comes_by_a_named_pipe(desk: Desk, other: Desk, exported: Path, tmp_path: Path, spool: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as beside:
        written = beside.submit((tmp_path / "pipe").write_bytes, exported.read_bytes())
        other.json("image-import", str(tmp_path / "pipe"), "--key", key_of(desk))
        assert written.result() == exported.stat().st_size
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("sent", [b"", b"x" * 100, None], ids=["nothing", "another thing", "a part"])
def test_of_a_pipe_that_ends_early_nothing_is_taken(
    desk: Desk, other: Desk, exported: Path, spool: Path, sent: bytes | None
) -> None:
    content = exported.read_bytes()[:-4096] if sent is None else sent
    result = other.refused("image-import", "-", "--key", key_of(desk), typed=content)
    assert result.exit_code == ExitStatus.INTEGRITY
    assert "- is " in result.stderr
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("/dev/null",), ExitStatus.USAGE, "neither a file nor a pipe"),
        ((".",), ExitStatus.USAGE, "neither a file nor a pipe"),
        (("/nonexistent",), ExitStatus.NOT_FOUND, "no file /nonexistent"),
        (("/dev/null/x",), ExitStatus.NOT_FOUND, "no file /dev/null/x"),
    ],
)
def test_what_is_no_file_is_told(desk: Desk, words: tuple[str, ...], status: ExitStatus, told: str) -> None:
    result = desk.refused("image-import", *words)
    assert (result.exit_code, told in result.stderr) == (status, True)


def test_a_directory_that_is_not_there_cannot_keep_what_comes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    result = desk.refused("image-import", "-", typed=b"x")
    assert (result.exit_code, "/nonexistent" in result.stderr) == (ExitStatus.USAGE, True)


@pytest.mark.root
def test_what_finds_no_room_is_refused_and_leaves_the_room_it_took(desk: Desk, spool: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", spool], check=True)
    try:
        result = desk.refused("image-import", "-", typed=bytes(3 << 20))
        left = os.statvfs(spool)
    finally:
        subprocess.run(["umount", spool], check=True)
    assert result.exit_code == ExitStatus.REFUSED
    assert str(spool) in result.stderr
    assert "TMPDIR" in result.stderr
    assert left.f_bavail == left.f_blocks
