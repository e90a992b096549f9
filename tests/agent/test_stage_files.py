"""The restore stage of a task of a session: what comes by multicast is placed, what does not is fetched, both told."""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentbench.scene import facts, task
from agentbench.server import SEAT
from agentbench.store_server import StoreServer
from cloner_agent.attempt import Attempt, Tools
from cloner_agent.console import Console
from cloner_agent.reporter import Reporter
from cloner_agent.seating import Multicast
from cloner_agent.stages.files import restore
from cloner_agent.stages.verify import verify_version
from cloner_core.image.digest import digest
from cloner_core.messages import Progress
from cloner_core.multicast.session import Leaving
from cloner_core.plan import Plan
from cloner_core.seats import NoSeat, ParcelList, SeatLater, make_parcel
from cloner_core.steps import Restore
from cloner_multicast.feed import FeedState


@dataclass
class Memory:
    """Parcels that have come, all at once; the session ends behind them."""

    came: dict[int, bytes]
    total: int
    left: Leaving | None = None
    why: str = ""
    is_ended: bool = False
    stops: int = 0

    def arrived(self, wait_s: float | None = None) -> list[int]:
        self.is_ended = True
        self.left = None if len(self.came) == self.total else Leaving.SLOW
        return list(self.came)

    def find(self, parcel: int) -> memoryview | None:
        return memoryview(self.came[parcel]) if parcel in self.came else None

    def release(self, parcel: int) -> None:
        assert parcel < self.total

    def state(self) -> FeedState:
        return FeedState(loss=0.012, seated_s=1.0, heard_s=time.monotonic())

    def stop(self) -> None:
        self.stops += 1


@dataclass
class Stage:
    server: StoreServer
    attempt: Attempt
    target: Path
    shown: list[Progress]
    golden: dict[str, bytes]
    parcels: dict[int, bytes]
    memories: list[Memory]

    def run(self, came: int | None = None) -> None:
        count = len(self.parcels) if came is None else came
        self.memories.append(Memory(dict(list(self.parcels.items())[:count]), len(self.parcels)))
        restore(self.attempt, Restore(self.server.ref.digest))
        assert self.attempt.spilled is not None
        self.attempt.spilled.table.close()
        assert {name: (self.target / name).read_bytes() for name in self.golden} == self.golden

    @property
    def notes(self) -> list[str]:
        return self.attempt.tools.reporter.notes


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    golden, target = tmp_path / "golden", tmp_path / "target"
    for path in (golden, target):
        path.mkdir()
    files = {f"file{number}": os.urandom(1 << 20) for number in range(9)}
    for name, content in files.items():
        (golden / name).write_bytes(content)
    server = StoreServer(tmp_path / "store", golden)
    version = verify_version(server, server.ref, server.key.public_key)
    parcels = {}
    for ordinal, pack in enumerate(version.packs.packs):
        stored, placement = server.fetch(ordinal, pack)
        parcels[ordinal] = make_parcel(placement, stored)
    server.listed = ParcelList(
        tuple(digest(parcel).hex() for parcel in parcels.values()), tuple(map(len, parcels.values()))
    )
    shown: list[Progress] = []
    memories: list[Memory] = []
    tools = Tools(
        server=server,
        run=lambda *_, **__: pytest.fail("a restore runs no program"),
        reporter=Reporter(Console(io.StringIO()), show=shown.append),
        probe=facts,
        packs=lambda _: server,
        server_key=server.key.public_key,
        target=str(target),
        workers=2,
        multicast=Multicast(lambda *_: memories[-1], lambda _: "eth0", lambda: 1 << 40, lambda _: None),
    )
    one = task(version=server.ref, session="5")
    plan = Plan(node="node01", image="debian", version_digest=server.ref.digest, layout="", disks=(), steps=())
    attempt = Attempt(tools, one, facts(), version, plan)
    return Stage(server, attempt, target, shown, files, parcels, memories)


def test_all_of_it_may_come_by_multicast(stage: Stage) -> None:
    stage.server.seats = [SeatLater("waiting for 3 more nodes"), SEAT]
    stage.run()
    assert any(progress.text == "waiting for 3 more nodes" for progress in stage.shown)
    assert stage.shown[-1].text.endswith(", over multicast, loss 1.2%")
    count = len(stage.parcels)
    assert stage.notes == [f"{count} of {count} packs came by multicast"]
    assert [(left.why, left.parcels) for left in stage.server.seats_left] == [("", count)]
    assert stage.attempt.record.packs == count
    assert stage.memories[0].stops


def test_what_does_not_come_is_fetched_and_the_receipt_says_why(stage: Stage) -> None:
    stage.server.seats = [SEAT]
    stage.run(came=1)
    count = len(stage.parcels)
    assert count > 1
    why = "it was too slow for the others"
    assert stage.notes == [f"1 of {count} packs came by multicast; the others over HTTPS: {why}"]
    assert stage.shown[-1].text.endswith(f", over HTTPS ({why})")
    assert [(left.why, left.parcels) for left in stage.server.seats_left] == [(why, 1)]


def test_without_a_seat_everything_comes_over_https(stage: Stage) -> None:
    stage.server.seats = [NoSeat("the session ended")]
    stage.run()
    assert stage.notes == [
        f"0 of {len(stage.parcels)} packs came by multicast; the others over HTTPS: the session ended"
    ]
    assert stage.server.seats_left == []


def test_a_task_of_no_session_asks_for_no_seat(stage: Stage) -> None:
    stage.attempt.task = task(version=stage.server.ref)
    stage.run()
    assert stage.notes == []
    assert not {"seat", "parcels", "seat left"} & set(stage.server.said)
