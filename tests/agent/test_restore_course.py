"""The course of a restore: what waits for what, and what every failure on the way leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cloner_agent.restore import job
from cloner_agent.restore.errors import RestoreError
from cloner_agent.restore.job import Order, restore
from cloner_core.image.packmap import PackRef
from cloner_server.store.local import LocalStore
from clones import Ready, capture_into, make_ready, scatter
from store_images import Key

pytestmark = pytest.mark.root  # restoring gives files away

WITHIN_S = 30.0


@pytest.fixture
def ready(tmp_path: Path) -> Ready:
    root = tmp_path / "golden"
    for number in range(20):
        directory = root / f"dir{number}"
        directory.mkdir(parents=True)
        (directory / "data").write_bytes(os.urandom(1000))
        (directory / "empty").touch()
        (directory / "link").symlink_to("data")
    store = LocalStore(tmp_path / "store", Key())
    version = bytes.fromhex(capture_into(store, root).record.version)
    assert scatter(store, version, seed=1, chunks_in_pack=2) == 10
    return make_ready(store, version, tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    assert not set(psutil.Process().children(recursive=True)) - before


def test_nothing_is_awaited_of_a_process_that_the_order_began(ready: Ready, target: Path) -> None:
    """A session's receiver is one: it has copies of every descriptor that was open then."""
    context = multiprocessing.get_context("fork")
    receiver = context.Process(target=time.sleep, args=(10 * WITHIN_S,))

    def order() -> Order:
        receiver.start()
        return (ordinal for ordinal in (None, *range(10), None))

    begun = time.monotonic()
    try:
        summary = restore(target, ready.spilled, ready.pack_map, ready.source, order=order, workers=2)
    finally:
        receiver.kill()
        receiver.join()
    assert (summary.packs, time.monotonic() - begun < WITHIN_S) == (10, True)


def test_the_directories_are_there_before_the_order_is_asked_for(ready: Ready, target: Path) -> None:
    seen: list[int] = []

    def order() -> Order:
        seen.append(len(os.listdir(target)))
        return range(10)

    restore(target, ready.spilled, ready.pack_map, ready.source, order=order)
    assert seen == [20]


@pytest.mark.parametrize("name", ["job.make_skeleton", "finishing.make_special", "finishing.write_file"])
def test_a_failure_beside_the_workers_is_told_and_ends_them(
    ready: Ready, target: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RestoreError("no space")

    monkeypatch.setattr(f"cloner_agent.restore.{name}", fail)
    with pytest.raises(RestoreError, match="no space"):
        restore(target, ready.spilled, ready.pack_map, ready.source, workers=2)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_fails_at_either_sync_is_told(
    ready: Ready, target: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    calls: list[int] = []

    def sync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(job, "sync_filesystem", sync)
    with pytest.raises(RestoreError, match="write to the disk"):
        restore(target, ready.spilled, ready.pack_map, ready.source)
    assert len(calls) == failing


class Told:
    """A source that says in which process it was asked, and then gives nothing for long."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        (self._place / str(os.getpid())).touch()
        time.sleep(10 * WITHIN_S)
        return b"", b""


@pytest.mark.parametrize("is_open", [False, True], ids=["while directories are made", "while packs come"])
def test_workers_end_with_a_parent_that_is_killed(
    ready: Ready, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_open: bool
) -> None:
    place = tmp_path / "asked"
    place.mkdir()
    if not is_open:
        monkeypatch.setattr(job, "make_skeleton", lambda *_: time.sleep(10 * WITHIN_S))
    source = Told(place) if is_open else ready.source
    child = multiprocessing.get_context("fork").Process(
        target=restore, args=(target, ready.spilled, ready.pack_map, source), kwargs={"workers": 2}
    )
    child.start()
    deadline = time.monotonic() + WITHIN_S
    workers: list[psutil.Process] = []
    while len(workers) < 2 or (is_open and len(os.listdir(place)) < 2):
        assert time.monotonic() < deadline
        workers = psutil.Process(child.pid).children()
        time.sleep(0.05)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    _, alive = psutil.wait_procs(workers, WITHIN_S)
    for process in alive:
        process.kill()
    assert alive == []
