"""A capture takes the tree and nothing that happens to be around it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import torture
from agentbench.golden import CLOUD_INIT_KEPT, add_cloud_init
from cloner_agent.capture import source
from cloner_agent.capture.content import ATTEMPTS, Content, SwapFileError, read_content
from cloner_agent.capture.holes import HoleFinder
from cloner_agent.capture.records import CaptureError
from cloner_core.errors import InvalidError
from cloner_core.image import spans
from cloner_core.image.digest import digest
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.limits import DIGEST_BYTES
from cloner_server.store.local import LocalStore
from clones import Ready, capture_into, make_ready, places
from store_images import Key


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", Key())


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    root = tmp_path / "golden"
    for path, text in {
        "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "etc/ssh/ssh_host_rsa_key": "secret",
        "etc/ssh/sshd_config": "Port 22",
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "etc/fstab": "UUID=aaaa / ext4 defaults 0 1\nUUID=EEEE /boot/efi vfat defaults 0 1\n",
        "var/lib/systemd/random-seed": "seed",
        "tmp/volatile": "x",
        "srv/data/big": "y",
        "srv/keep": "z",
        "boot/efi/EFI/BOOT/BOOTX64.EFI": "MZ",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "var/lib/dbus").mkdir()
    (root / "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
    return root


def tree_of(store: LocalStore, version: str, work_dir: Path) -> dict[bytes, Inode]:
    ready: Ready = make_ready(store, bytes.fromhex(version), work_dir)
    inodes = {inode.path: inode for inode in ready.spilled.table.range(1, ready.spilled.table.count + 1)}
    ready.spilled.table.close()
    return inodes


def test_identity_and_volatile_content_stay_behind(store: LocalStore, golden: Path, tmp_path: Path) -> None:
    captured = capture_into(store, golden, excludes=("/srv/data", "/nothing/here"))
    tree = tree_of(store, captured.record.version, tmp_path)
    assert tree[b"etc/machine-id"].size == 0
    assert tree[b"var/lib/dbus/machine-id"].target == b"/etc/machine-id"
    assert b"etc/ssh/ssh_host_rsa_key" not in tree
    assert b"var/lib/systemd/random-seed" not in tree
    assert b"etc/ssh/sshd_config" in tree
    assert tree[b"tmp"].kind is Kind.DIRECTORY
    assert b"tmp/volatile" not in tree
    assert b"srv/data" not in tree
    assert b"srv/keep" in tree
    assert captured.unmatched_excludes == ("/nothing/here",)
    assert places(captured) == {
        "machine-id": ["/etc/machine-id"],
        "ssh-host-key": ["/etc/ssh/ssh_host_rsa_key"],
        "random-seed": ["/var/lib/systemd/random-seed"],
    }
    secrets = [b"secret", b"0123456789abcdef0123456789abcdef"]
    for path in store.files.root.rglob("*"):
        assert not path.is_file() or not any(secret in path.read_bytes() for secret in secrets)


def test_nothing_of_the_user_data_of_cloud_init_is_captured(store: LocalStore, golden: Path, tmp_path: Path) -> None:
    add_cloud_init(golden)
    captured = capture_into(store, golden)
    tree = tree_of(store, captured.record.version, tmp_path)
    inside = {path.decode() for path, inode in tree.items() if inode.kind is not Kind.DIRECTORY}
    assert {path for path in inside if path.startswith("var/lib/cloud/")} == set(CLOUD_INIT_KEPT)
    assert [path for path in tree if path.startswith(b"var/lib/cloud/instances/")] == []
    assert {"/var/lib/cloud/instance", "/var/lib/cloud/instances"} < set(places(captured)["cloud-init"])


def test_the_esp_is_paths_and_bytes(store: LocalStore, golden: Path, tmp_path: Path) -> None:
    os.chmod(golden / "boot/efi/EFI/BOOT/BOOTX64.EFI", 0o4711)
    captured = capture_into(store, golden)
    inode = tree_of(store, captured.record.version, tmp_path)[b"boot/efi/EFI/BOOT/BOOTX64.EFI"]
    assert inode == Inode(inode.number, Kind.FILE, inode.path, size=2, chunks=digest(b"MZ"))
    root = store.tree_root(bytes.fromhex(captured.record.version))
    assert [(fs.mount, fs.role, fs.uuid) for fs in root.filesystems] == [
        (b"", "root", "aaaa"),
        (b"boot/efi", "esp", "EEEE"),
    ]
    assert (root.facts.os_id, root.facts.os_version) == ("debian", "12")
    (golden / "boot/efi/ssh").touch()  # a Raspberry Pi's, on a filesystem of this kind
    emptied = tree_of(store, capture_into(store, golden).record.version, tmp_path)[b"boot/efi/ssh"]
    assert emptied == Inode(emptied.number, Kind.FILE, emptied.path)
    (golden / "boot/efi/link").symlink_to("EFI")
    with pytest.raises(CaptureError, match="ESP"):
        capture_into(store, golden)


def test_the_same_files_give_the_same_version(store: LocalStore, golden: Path, tmp_path: Path) -> None:
    first = capture_into(store, golden)
    copy = tmp_path / "elsewhere/copy"
    copy.mkdir(parents=True)
    # Another order in each directory, other inode numbers, other access times, another path.
    for path in sorted(golden.rglob("*"), reverse=True):
        if path.is_file() and not path.is_symlink():
            (copy / path.relative_to(golden)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy / path.relative_to(golden))
    shutil.copytree(golden, copy, symlinks=True, dirs_exist_ok=True)
    for path in golden.rglob("*"):
        os.utime(copy / path.relative_to(golden), ns=(12345, path.lstat().st_mtime_ns), follow_symlinks=False)
    os.utime(copy, ns=(12345, golden.stat().st_mtime_ns))
    second = capture_into(store, copy, message="another message", author="somebody else")
    assert second.record.version == first.record.version
    assert (second.record.number, second.new_packs) == (2, 0)
    (golden / "srv/keep").chmod(0o600)
    assert capture_into(store, golden).record.version != first.record.version


def test_capturing_leaves_no_trace_on_the_source(store: LocalStore, golden: Path) -> None:
    paths = [path for path in (golden, *golden.rglob("*")) if not path.is_symlink()]
    for path in paths:
        os.utime(path, ns=(1, 2))
    capture_into(store, golden)
    assert {path: path.stat().st_atime_ns for path in paths} == dict.fromkeys(paths, 1)
    assert {path: path.stat().st_mtime_ns for path in paths} == dict.fromkeys(paths, 2)


def test_only_new_content_is_stored_again(store: LocalStore, golden: Path) -> None:
    (golden / "large").write_bytes(os.urandom(6 << 20))
    first = capture_into(store, golden)
    (golden / "srv/new").write_bytes(b"only this is new")
    (golden / "srv/keep").unlink()
    second = capture_into(store, golden)
    assert first.new_stored_bytes > 6 << 20
    assert second.new_packs == 1
    assert second.new_stored_bytes < 100
    assert store.check(read_data=True).faults == ()


def test_sockets_and_swap_space_are_told_and_left_out(store: LocalStore, golden: Path, tmp_path: Path) -> None:
    swap = bytearray(1 << 20)
    swap[4086:4096] = b"SWAPSPACE2"
    (golden / "swapfile").write_bytes(swap)
    os.mknod(golden / "socket", stat.S_IFSOCK | 0o600)
    captured = capture_into(store, golden)
    assert (places(captured)["swap-file"], captured.notes.sockets) == (["/swapfile"], [b"socket"])
    assert {b"swapfile", b"socket"}.isdisjoint(tree_of(store, captured.record.version, tmp_path))


def test_a_wrong_option_is_told_before_anything_is_read(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        capture_into(store, tmp_path / "none", excludes=("relative",))
    with pytest.raises(CaptureError, match="none"):
        capture_into(store, tmp_path / "none")
    assert store.images() == []


class Moving:
    """A file that changes whenever a chunk of it is read, a number of times."""

    def __init__(self, path: Path, times: int = 0) -> None:
        self.path = path
        self.times = times
        self.buffer = memoryview(bytearray(1 << 20))

    def room(self, length: int) -> memoryview:
        return self.buffer[:length]

    def keep(self, length: int) -> bytes:
        if self.times:
            self.times -= 1
            with self.path.open("ab") as file:
                file.write(b"more")
            # Two changes within one tick of the clock would look like none.
            os.utime(self.path, ns=(0, self.times))
        return digest(self.buffer[:length])


class CutOff(Moving):
    """One that moves at each reading, and in the last one is cut off behind its first chunk."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path, times=2 * ATTEMPTS + 1)
        self.size = size

    def keep(self, length: int) -> bytes:
        if self.times == 1:
            os.truncate(self.path, self.size)
        return super().keep(length)


def read_sparse(moving: Moving, tail_at: int) -> Content:
    """Read 4 KiB of data, a hole up to `tail_at` and 4 KiB of data, which must fit together as a record holds them."""
    with moving.path.open("w+b") as file:
        os.pwrite(file.fileno(), b"x" * 4096, 0)
        os.pwrite(file.fileno(), b"y" * 4096, tail_at)
        content = read_content(file.fileno(), os.fstat(file.fileno()), moving, HoleFinder())
    fitting = spans.Spans(content.size, content.holes)
    assert (len(fitting) * DIGEST_BYTES, fitting.data_bytes) == (len(content.chunks), content.data_bytes)
    return content


def test_a_sparse_file_that_keeps_changing_keeps_its_holes(tmp_path: Path) -> None:
    content = read_sparse(Moving(tmp_path / "disk.img", times=1000), 256 << 20)
    assert not content.is_exact
    assert content.size > 256 << 20
    assert content.data_bytes < 1 << 20


@pytest.mark.parametrize("size", [0, 5000, (8 << 20) + 100])
def test_what_is_read_of_a_sparse_file_that_is_cut_off_ends_where_reading_ends(tmp_path: Path, size: int) -> None:
    content = read_sparse(CutOff(tmp_path / "disk.img", size), 8 << 20)
    assert not content.is_exact
    assert content.size == max(size + len(b"more"), 8 << 20)


@pytest.mark.parametrize("times", range(ATTEMPTS + 2))
def test_a_file_that_moves_is_read_again_and_then_said_to_be_inexact(tmp_path: Path, times: int) -> None:
    path = tmp_path / "moving"
    path.write_bytes(b"begin")
    moving = Moving(path, times)
    with path.open("rb") as file:
        content = read_content(file.fileno(), os.fstat(file.fileno()), moving, HoleFinder())
    assert content.is_exact == (times < ATTEMPTS)
    assert content.size == 5 + 4 * min(times, ATTEMPTS)
    if content.is_exact:
        assert content.chunks == digest(path.read_bytes())


def test_a_file_emptied_while_it_is_read_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a line\n" * 1000)
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        os.truncate(path, 0)  # as logrotate's copytruncate does
        content = read_content(file.fileno(), status, Moving(path), HoleFinder())
    assert (content.size, content.chunks, content.is_exact) == (0, b"", True)


def test_a_file_with_more_holes_than_a_record_has_room_for_is_named(
    store: LocalStore, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "MAX_FILE_HOLES", 2)
    with (golden / "srv/disk.img").open("wb") as file:
        for number in range(3):
            os.pwrite(file.fileno(), b"x" * 4096, number << 20)
        os.truncate(file.fileno(), 3 << 20)
    with pytest.raises(CaptureError, match=r"^/srv/disk\.img cannot be in an image: .* at most 2 pairs") as refusal:
        capture_into(store, golden)
    assert refusal.value.hint == "--exclude-paths /srv/disk.img leaves it out"
    assert capture_into(store, golden, excludes=("/srv/disk.img",)).record.number == 1


def test_more_filesystems_than_an_image_holds_are_named_before_anything_is_read(
    store: LocalStore, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_FILESYSTEMS", 1)
    with pytest.raises(CaptureError, match="2 filesystems make up the tree, an image holds at most 1: /, /boot/efi"):
        capture_into(store, golden)
    assert list(store.packs.names()) == []


def test_swap_space_is_known_by_its_signature(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    path.write_bytes(bytes(4086) + b"SWAPSPACE2" + bytes(1 << 20))
    with path.open("rb") as file, pytest.raises(SwapFileError):
        read_content(file.fileno(), os.fstat(file.fileno()), Moving(path), None)


@pytest.fixture
def mounted(golden: Path) -> Iterator[Path]:
    (golden / "mnt").mkdir(mode=0o750)
    (golden / "mnt/hidden").write_text("under the mount")
    torture.run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(golden / "mnt"))
    (golden / "mnt/foreign").write_text("x")
    yield golden
    torture.run("umount", str(golden / "mnt"))


@pytest.mark.root
def test_a_mount_point_is_captured_as_the_directory_beneath(store: LocalStore, mounted: Path, tmp_path: Path) -> None:
    captured = capture_into(store, mounted)
    tree = tree_of(store, captured.record.version, tmp_path)
    assert captured.notes.mount_points == [b"mnt"]
    assert tree[b"mnt"].mode == 0o750
    assert {b"mnt/hidden", b"mnt/foreign"}.isdisjoint(tree)


@pytest.mark.root
def test_a_local_filesystem_is_crossed_and_known(store: LocalStore, golden: Path, tmp_path: Path) -> None:
    with torture.ext4(tmp_path / "disk") as disk:
        (disk / "inside").write_text("x")
        (golden / "var/data").mkdir()
        torture.run("mount", "--bind", str(disk), str(golden / "var/data"))
        try:
            captured = capture_into(store, golden)
        finally:
            torture.run("umount", str(golden / "var/data"))
    tree = tree_of(store, captured.record.version, tmp_path)
    assert b"var/data/inside" in tree
    assert b"var/data/lost+found" not in tree
    root = store.tree_root(bytes.fromhex(captured.record.version))
    assert [(fs.mount, fs.type, fs.inodes) for fs in root.filesystems][2:] == [(b"var/data", "ext4", 2)]


@pytest.mark.root
def test_an_hmac_of_this_inode_is_dropped_and_said(store: LocalStore, golden: Path, tmp_path: Path) -> None:
    os.setxattr(golden / "srv/keep", "security.evm", b"\x02hmac")
    os.setxattr(golden / "srv/keep", "security.ima", b"\x04hash")
    captured = capture_into(store, golden)
    assert captured.notes.dropped_evm == 1
    tree = tree_of(store, captured.record.version, tmp_path)
    assert tree[b"srv/keep"].xattrs == ((b"security.ima", b"\x04hash"),)
