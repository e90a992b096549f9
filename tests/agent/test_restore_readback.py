"""The read-back finds whatever is not as the image says."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import torture
from cloner_agent import host
from cloner_agent.failures import cause_of
from cloner_agent.restore.errors import RestoreError
from cloner_agent.restore.job import restore
from cloner_agent.restore.readback import read_back
from cloner_agent.restore.workers import Work, run
from cloner_core.errors import IntegrityError
from cloner_core.image.packmap import PackRef
from cloner_core.messages import Cause, Stage
from cloner_server.store.local import LocalStore
from clones import Ready, capture_into, make_ready
from store_images import Key

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    place = tmp_path_factory.mktemp("golden")
    root = place / "root"
    (root / "d/e").mkdir(parents=True)
    (root / "d/file").write_bytes(os.urandom(3000))
    (root / "d/big").write_bytes(os.urandom(3 << 20))
    os.link(root / "d/big", root / "d/e/link")
    (root / "d/symlink").symlink_to("file")
    with (root / "sparse").open("wb") as file:
        file.write(b"start")
        file.truncate(1 << 20)
    os.setxattr(root / "d/file", "user.a", b"1")
    os.mkfifo(root / "fifo")
    store = LocalStore(place / "store", Key())
    value = make_ready(store, bytes.fromhex(capture_into(store, root).record.version), place)
    yield value
    value.spilled.table.close()


@pytest.fixture
def target(ready: Ready, tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    restore(path, ready.spilled, ready.pack_map, ready.source, workers=1)
    assert read_back(path, ready.spilled, workers=1) > 3 << 20
    return path


def _keeping_time(change: Callable[[Path], object], name: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        status = os.lstat(root / name)
        change(root / name)
        os.utime(root / name, ns=(0, status.st_mtime_ns), follow_symlinks=False)

    return apply


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2 << 20)
        byte = file.read(1)
        file.seek(2 << 20)
        file.write(bytes([byte[0] ^ 1]))


def _poke_hole(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(500_000)
        file.write(b"!")


def _replace_link(path: Path) -> None:
    parent = path.parent.stat().st_mtime_ns
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path.parent, ns=(0, parent))


def _retarget(path: Path) -> None:
    parent = path.parent.stat().st_mtime_ns
    path.unlink()
    path.symlink_to("other")
    os.utime(path.parent, ns=(0, parent))


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _remove_file(root: Path) -> None:
    before = root.stat().st_mtime_ns
    (root / "fifo").unlink()
    os.utime(root, ns=(0, before))


def _add_file(root: Path) -> None:
    before = (root / "d").stat().st_mtime_ns
    (root / "d/nobody asked").write_bytes(b"")
    os.utime(root / "d", ns=(0, before))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit of content": (_keeping_time(_flip, "d/big"), "digest"),
    "data in a hole": (_keeping_time(_poke_hole, "sparse"), "hole"),
    "a byte more": (_keeping_time(_append, "d/file"), "3001 bytes seen"),
    "mode": (lambda root: os.chmod(root / "d/file", 0o600), "mode 600"),
    "owner": (lambda root: os.chown(root / "d/file", 1, 0), "owner 1:0"),
    "time": (lambda root: os.utime(root / "d/file", ns=(0, 1)), "mtime 1 ns"),
    "time of a directory": (lambda root: os.utime(root / "d/e", ns=(0, 1)), "mtime 1 ns"),
    "attribute": (lambda root: os.setxattr(root / "d/file", "user.a", b"2"), "user.a"),
    "attribute more": (lambda root: os.setxattr(root / "d/big", "user.b", b"2"), "user.b"),
    "flag": (lambda root: torture.run("chattr", "+d", str(root / "d/file")), "flags"),
    "link broken up": (_keeping_time(_replace_link, "d/e/link"), "not the same file"),
    "another target": (_keeping_time(_retarget, "d/symlink"), "says something else"),
    "a file more": (_add_file, "entries"),
    "a file less": (_remove_file, "entries"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_difference_is_found(ready: Ready, target: Path, name: str) -> None:
    change, told = CHANGES[name]
    change(target)
    with pytest.raises(IntegrityError, match=told):
        read_back(target, ready.spilled, workers=1)


def test_what_may_differ_is_passed_over_and_nothing_else(ready: Ready, target: Path) -> None:
    os.chmod(target / "d/file", 0o600)
    _add_file(target)
    read_back(target, ready.spilled, workers=1, skip=[b"d/file"], extra=[b"d/nobody asked"])
    os.chmod(target / "d/big", 0o600)
    with pytest.raises(IntegrityError, match="d/big"):
        read_back(target, ready.spilled, workers=1, skip=[b"d/file"], extra=[b"d/nobody asked"])


def test_a_full_target_fails_with_the_path_and_a_hint(ready: Ready, tmp_path: Path) -> None:
    with torture.ext4(tmp_path / "small", 3 << 20) as target:
        with pytest.raises(RestoreError, match="ENOSPC") as told:
            restore(target, ready.spilled, ready.pack_map, ready.source, workers=1)
        assert "too small" in told.value.hint


def test_an_attribute_the_target_cannot_keep_fails_the_restore(ready: Ready, tmp_path: Path) -> None:
    target = tmp_path / "ram"
    target.mkdir()
    torture.run("mount", "-t", "ramfs", "ramfs", str(target))
    try:
        with pytest.raises(RestoreError, match="attribute user"):
            restore(target, ready.spilled, ready.pack_map, ready.source, workers=1)
    finally:
        torture.run("umount", str(target))


class _Killing:
    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_worker_is_a_failure_and_leaves_no_process(ready: Ready, tmp_path: Path) -> None:
    before = _children()
    with pytest.raises(RestoreError, match="SIGKILL"):
        restore(tmp_path, ready.spilled, ready.pack_map, _Killing(), workers=2)
    assert _children() == before


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


class _Square(Work[int, int, int]):
    def prepare(self, task: int) -> int:
        return task

    def perform(self, task: int, prepared: int) -> int:
        if task == 77:
            raise IntegrityError("seventy-seven", hint="unlucky")
        return prepared * prepared


def test_workers_answer_every_task_once() -> None:
    assert sorted(run(_Square(), range(50), 3)) == [(n, n * n) for n in range(50)]
    assert list(run(_Square(), [], 2)) == []


def test_the_error_of_a_worker_comes_back_whole() -> None:
    before = _children()
    with pytest.raises(IntegrityError, match="seventy-seven") as told:
        list(run(_Square(), range(100), 2))
    assert told.value.hint == "unlucky"
    assert _children() == before


def test_a_disk_that_fails_in_the_middle_of_a_file_is_no_difference_of_that_file(
    ready: Ready, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives the bytes before the broken sector first, and the error when asked for the next."""
    whole, is_broken = os.pread, False

    def pread(fd: int, length: int, offset: int) -> bytes:
        if is_broken and offset >= 100_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(fd, min(length, 100_000), offset)

    monkeypatch.setattr(os, "pread", pread)
    assert read_back(target, ready.spilled, workers=1) > 3 << 20
    is_broken = True
    with pytest.raises(RestoreError, match="Input/output error") as caught:
        read_back(target, ready.spilled, workers=1)
    assert cause_of(caught.value, Stage.READBACK) is Cause.DISK_IO


def test_names_of_one_file_on_two_filesystems_become_two_files_and_both_are_compared(
    ready: Ready, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (target / "d/e").mkdir(parents=True)
    host.run(("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(target / "d/e")))
    try:
        restore(target, ready.spilled, ready.pack_map, ready.source, workers=1)
        one, other = target / "d/big", target / "d/e/link"
        assert one.read_bytes() == other.read_bytes()
        assert one.stat().st_mtime_ns == other.stat().st_mtime_ns
        assert read_back(target, ready.spilled, workers=1) > 6 << 20
        with other.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"x")
        os.utime(other, ns=(0, one.stat().st_mtime_ns))
        with pytest.raises(IntegrityError, match="/d/e/link differs"):
            read_back(target, ready.spilled, workers=1)
    finally:
        host.run(("umount", str(target / "d/e")))
