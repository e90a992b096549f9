"""A version restored from a session on real links: whatever becomes of the session, the tree is whole at the end."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest

from agentbench.server import FakeServer
from cloner_agent.restore.arrivals import Arrivals, Parcels
from cloner_agent.restore.job import RestoreProgress
from cloner_agent.restore.readback import read_back
from cloner_agent.restore.source import DirectorySource
from cloner_agent.seating import Multicast, leave, take_seat
from cloner_core.errors import UnreachableError
from cloner_core.image.digest import digest
from cloner_core.image.packmap import PackRef
from cloner_core.messages import Secret
from cloner_core.multicast.sender import Pace
from cloner_core.multicast.session import BLOCK_BYTES, VERSIONS
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLater, SeatLeft, SeatRequest, make_parcel
from cloner_server.store.local import LocalStore
from clones import Ready, capture_into, make_ready, scatter
from netns.multicast_yard import Show, Yard, group, send, start, yard
from store_images import Key
from torture import rsync_differences

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]

_CONTEXT = multiprocessing.get_context("fork")
FILES, FILE_BYTES = 30, 1 << 20
PACE = Pace(60e6, 5e6)  # 4 s for all of it: it can be disturbed in the middle


class BoardServer(FakeServer):
    """Gives seats in the epoch on the board, and says that there is none any more when the board says so."""

    def __init__(self, show: Show, number: int) -> None:
        super().__init__()
        self._show = show
        self._number = number
        sizes = tuple(len(content) for content in show.contents)
        self.listed = ParcelList(tuple(digest(content).hex() for content in show.contents), sizes)

    def seat(self, request: SeatRequest, *, patience_s: float | None = None) -> Seat | SeatLater | NoSeat:
        if not self._show.board.exists():
            return SeatLater("no sender yet", 0.1)
        if "away" in json.loads(self._show.board.read_text()):
            raise UnreachableError("no route to host")
        if "stopped" in json.loads(self._show.board.read_text()):
            return NoSeat("an admin stopped the session")
        taken = self._show.join(self._number)
        if isinstance(taken, str):
            return NoSeat(taken)
        where = group()
        return Seat(
            version=VERSIONS[0],
            stream=taken.stream,
            number=taken.number,
            group_key=Secret(taken.group_key.hex()),
            own_key=Secret(taken.own_key.hex()),
            group=where.address,
            port=where.port,
            sender=taken.sender[0],
            sender_port=taken.sender[1],
            hops=1,
            block_bytes=BLOCK_BYTES,
            window_parcels=16,
        )


class Counted:
    """The way over HTTPS, as far as packs know: how often it was gone, in all processes."""

    def __init__(self, source: DirectorySource) -> None:
        self._source = source
        self.fetched = _CONTEXT.Value("i", 0)

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        with self.fetched.get_lock():
            self.fetched.value += 1
        return self._source.fetch(ordinal, pack)


@dataclass(frozen=True)
class Outcome:
    came: int
    fetched: int
    why: str
    left: list[SeatLeft]
    said: list[str]
    seconds: float


def node(ready: Ready, target: Path, show: Show, written: Any, told: Queue[Any], free_bytes: int) -> None:
    """Be node 0: restore, read back, tell."""
    server, source = BoardServer(show, 0), Counted(ready.source)
    said: list[str] = []
    packs = ready.pack_map

    def sit() -> Parcels | str:
        return take_seat(server, packs.version.hex(), packs, Multicast(free_bytes=lambda: free_bytes), said.append)

    def progress(now: RestoreProgress) -> None:
        written.value = now.packs

    arrivals = Arrivals(sit, source, len(packs.packs), leave=lambda left: leave(server, left), tick=said.append)
    begun_s = time.monotonic()
    arrivals.restore(target, ready.spilled, packs, workers=2, progress=progress)
    took_s = time.monotonic() - begun_s
    read_back(target, ready.spilled, workers=2)
    told.put(Outcome(arrivals.came, source.fetched.value, arrivals.why, server.seats_left, said, took_s))


@dataclass
class Stage:
    """A yard of one sender and one node, an image, and what is sent of it."""

    made: Yard
    ready: Ready
    golden: Path
    target: Path
    show: Show
    processes: list[BaseProcess]
    written: Any
    told: Any

    @property
    def packs(self) -> int:
        return len(self.show.contents)

    def send(self, stream: int = 1) -> BaseProcess:
        sent: Any = _CONTEXT.Queue()
        words = (self.show, self.made.address(0), [0], PACE, sent, stream, 1 if stream == 1 else 0)
        return self._start(send, 0, *words)

    def node(self, free_bytes: int = 1 << 40) -> None:
        self._start(node, 1, self.ready, self.target, self.show, self.written, self.told, free_bytes)

    def wait_written(self, packs: int) -> None:
        ends_s = time.monotonic() + 60
        while self.written.value < packs:
            assert time.monotonic() < ends_s, f"only {self.written.value} of {packs} packs were written"
            time.sleep(0.01)

    def outcome(self) -> Outcome:
        outcome = self.told.get(timeout=120)
        assert isinstance(outcome, Outcome)
        assert rsync_differences(self.golden, self.target) == ""
        return outcome

    def _start(self, what: Any, where: int, *words: Any) -> BaseProcess:
        process = start(what, self.made.of(where), *words)
        self.processes.append(process)
        return process


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    golden, target = tmp_path / "golden", tmp_path / "target"
    for path in (golden, target):
        path.mkdir()
    chance = random.Random(7)
    for number in range(FILES):
        (golden / f"{number:03}").write_bytes(chance.randbytes(FILE_BYTES - number))
    (golden / "empty").touch()
    store = LocalStore(tmp_path / "store", Key())
    version = bytes.fromhex(capture_into(store, golden).record.version)
    scatter(store, version, seed=1, chunks_in_pack=1)
    ready = make_ready(store, version, tmp_path)
    contents = []
    for ordinal, pack in enumerate(ready.pack_map.packs):
        stored, placement = ready.source.fetch(ordinal, pack)
        contents.append(make_parcel(placement, stored))
    assert len(contents) >= FILES
    with yard(1) as made:
        show = Show(contents, tmp_path / "board")
        processes: list[BaseProcess] = []
        try:
            yield Stage(made, ready, golden, target, show, processes, _CONTEXT.Value("i", 0), _CONTEXT.Queue())
        finally:
            for process in processes:
                process.kill()
                process.join()
            ready.spilled.table.close()
            shutil.rmtree(target)


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_all_of_a_version_comes_by_multicast(stage: Stage, loss: float) -> None:
    if loss:
        stage.made.lose(1, loss)
    stage.node()
    stage.send()
    outcome = stage.outcome()
    assert (outcome.came, outcome.fetched, outcome.why) == (stage.packs, 0, "")
    ((left),) = outcome.left
    assert (left.why, left.parcels, left.heard, left.forged) == ("", stage.packs, True, 0)
    assert (left.loss > 0.01) == bool(loss)
    assert outcome.said[-1].startswith("over multicast, loss ")


def test_a_node_of_little_memory_takes_fewer_parcels_at_once(stage: Stage) -> None:
    stage.made.lose(1, 0.02)
    largest = max(len(content) for content in stage.show.contents)
    stage.node(free_bytes=4 * 4 * 2 * largest)
    stage.send()
    outcome = stage.outcome()
    assert (outcome.came, outcome.fetched, outcome.why) == (stage.packs, 0, "")


def test_what_a_session_that_was_stopped_did_not_send_comes_over_https(stage: Stage) -> None:
    stage.made.lose(1, 0.02)
    stage.node()
    sender = stage.send()
    stage.wait_written(5)
    assert sender.is_alive(), "it was to be killed in the middle"
    sender.kill()
    stage.show.pin({"stopped": True})
    outcome = stage.outcome()
    assert 5 <= outcome.came < stage.packs
    assert outcome.fetched == stage.packs - outcome.came
    assert outcome.why == "an admin stopped the session"
    assert [(left.why, left.parcels) for left in outcome.left] == [(outcome.why, outcome.came)]


def test_a_sender_that_died_is_waited_for(stage: Stage) -> None:
    stage.node()
    sender = stage.send()
    stage.wait_written(5)
    sender.kill()
    time.sleep(4)  # longer than it takes to ask: the epoch that died is still what there is
    stage.send(stream=2)
    outcome = stage.outcome()
    assert (outcome.came, outcome.fetched, outcome.why) == (stage.packs, 0, "")


@pytest.mark.parametrize("trouble", ["away", "no sender"])
def test_a_server_that_is_away_for_long_finds_its_nodes_waiting(
    stage: Stage, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloner_agent.restore.arrivals.SILENT_S", 6.0)
    stage.node()
    sender = stage.send()
    stage.wait_written(5)
    sender.kill()
    if trouble == "away":
        stage.show.pin({"away": True})
    else:
        stage.show.board.unlink()
    time.sleep(14)
    stage.send(stream=2)
    outcome = stage.outcome()
    assert (outcome.came, outcome.fetched, outcome.why) == (stage.packs, 0, "")
    assert "over multicast: waiting for the server, and its next sender" in outcome.said


def test_a_node_that_multicast_does_not_reach_is_not_kept_waiting(stage: Stage) -> None:
    stage.made.lose(1, 1.0)
    stage.node()
    stage.send()
    outcome = stage.outcome()
    assert (outcome.came, outcome.fetched) == (0, stage.packs)
    assert "multicast does not reach this node" in outcome.why
    assert [(left.parcels, left.heard) for left in outcome.left] == [(0, False)]
    assert outcome.seconds < 15


def test_one_that_loses_most_does_not_stay(stage: Stage) -> None:
    stage.made.lose(1, 0.6)
    stage.node()
    stage.send()
    outcome = stage.outcome()
    assert outcome.came < stage.packs == outcome.came + outcome.fetched
    assert outcome.why.endswith("of what is sent does not arrive")
    assert outcome.seconds < 30


def test_one_that_is_cut_off_in_the_middle_fetches_the_rest(stage: Stage) -> None:
    stage.node()
    stage.send()
    stage.wait_written(5)
    stage.made.lose(1, 1.0)
    outcome = stage.outcome()
    assert 5 <= outcome.came < stage.packs
    assert outcome.fetched == stage.packs - outcome.came
    assert outcome.why
