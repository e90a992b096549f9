"""A relay against a real hub over a way that loses turns and answers: each epoch once, each command once, in order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloner_core.errors import RefusedError, UnreachableError
from cloner_core.multicast.session import Leaving
from cloner_core.seats import ParcelList, Seat
from cloner_server.multicast.links import Link
from cloner_server.multicast.orders import Admit, Dismiss, InCache, ReceiverNews, SenderNews, SenderOrder, SenderPhase
from cloner_server.multicast.parcels import parcel_list
from cloner_server.relay.cache import Known, PackCache, held
from cloner_server.relay.daemon import HEADLESS_S, Relay
from cloner_server.relay.fetching import Fetcher
from cloner_server.relay.senders import RelaySenders
from cloner_server.relay.words import EpochTold, Numbered, RelayOrders, RelayTurn
from cloner_server.relayhub import RelayHub
from serverbench.scene import Agent, Scene
from serverbench.sessions import Sessions, agent_of, ask

LINK = Link("eth1", IPv4Interface("10.88.0.1/24"), 1e9, 7e8, address6=IPv6Interface("fd88::1/64"))
WAIT_S = 60.0
DOCUMENT = Path(__file__).parents[2] / "docs" / "multicast-sessions.md"


@dataclass
class PretendProcess:
    """A process that has its socket at once."""

    order: SenderOrder
    said: list[Any] = field(default_factory=list)
    phase: SenderPhase = SenderPhase.GATHERING
    is_abandoned: bool = False

    def news(self) -> SenderNews:
        numbers = [one[1] for one in self.said if one[0] == "admit"]
        receivers = tuple(ReceiverNews(number, 0.1) for number in numbers)
        return SenderNews(phase=self.phase, address="10.88.0.1", port=41000, receivers=receivers)

    def admit(self, number: int) -> None:
        self.said.append(("admit", number))

    def begin(self) -> None:
        self.said.append(("begin",))

    def dismiss(self, number: int, reason: Leaving) -> None:
        self.said.append(("dismiss", number, reason))

    def settle(self, number: int) -> None:
        self.said.append(("settle", number))

    def limit(self, rate_bps: float, floor_bps: float) -> None:
        self.said.append(("limit", rate_bps, floor_bps))

    def stop(self) -> None:
        self.said.append(("stop",))
        self.phase = SenderPhase.OVER

    def abandon(self) -> None:
        self.is_abandoned = True


@dataclass
class LossyHead:
    """A hub at the end of a way that loses turns before they come, or answers on their way back, or keeps them back."""

    held: Sessions
    chance: random.Random
    loss: float = 0.0
    late: list[RelayOrders] = field(default_factory=list)

    @property
    def hub(self) -> RelayHub:
        return self.held.hub  # another after a restart

    def turn(self, turn: RelayTurn) -> RelayOrders:
        if self.chance.random() < self.loss:
            raise UnreachableError("lost on its way")
        orders = self.hub.take("rack3", turn, "10.1.1.1")
        self.late.append(orders)
        if self.chance.random() < self.loss:
            raise UnreachableError("the answer was lost")
        if self.chance.random() < self.loss:
            return self.chance.choice(self.late)  # that was overtaken
        return orders

    def pack_map(self, name: bytes) -> bytes:
        return self.hub.store.pack_map(name)

    def parcels(self, name: bytes) -> ParcelList:
        return parcel_list(self.hub.store, name)

    def parcel(self, name: bytes, ordinal: int) -> bytes:
        from cloner_core.seats import make_parcel

        pack = self.hub.pack_of(name, ordinal)
        return make_parcel(self.placement(name, ordinal), self.hub.store.pack_path(pack.digest).read_bytes())

    def placement(self, name: bytes, ordinal: int) -> bytes:
        return self.hub.store.placement(name, ordinal)


@dataclass
class _Altering:
    """The head of a relay that says something else."""

    head: LossyHead
    changes: dict[str, Any]

    def turn(self, turn: RelayTurn) -> RelayOrders:
        return self.head.turn(msgspec.structs.replace(turn, **self.changes))


@dataclass
class Rack:
    """The relay, and the processes that it has started."""

    held: Sessions
    head: LossyHead
    cache: PackCache
    processes: list[PretendProcess] = field(default_factory=list)
    refuses: str = ""

    def __post_init__(self) -> None:
        self.fetcher = Fetcher(self.head, self.cache)
        self.senders = RelaySenders(self.start, self.fetcher.ready, str(self.cache.files.root))
        clock = self.held.scene.clock
        self.relay = Relay(self.head, self.cache, self.fetcher, self.senders, lambda: LINK, steady=clock)
        self.fetcher.start()

    def start(self, order: SenderOrder) -> PretendProcess:
        if self.refuses:
            raise RefusedError(self.refuses)
        self.processes.append(PretendProcess(order))
        return self.processes[-1]

    def turn(self) -> None:
        self.held.scene.clock.now_s += 0.1
        try:
            self.relay.turn(is_held=False)
        except UnreachableError:
            return

    def until(self, is_so: Callable[[], Any]) -> None:
        ends_s = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < ends_s, "it does not come about"
            self.turn()
            self.held.desk.turn()
            time.sleep(0.002)


@contextmanager
def racked(scene: Scene, directory: Path, seed: int = 0) -> Iterator[Rack]:
    for number in range(1, 7):
        scene.add_node(f"n0{number}", f"52:54:00:00:00:0{number}")
    sessions = Sessions(scene)
    with held(directory):
        made = Rack(sessions, LossyHead(sessions, random.Random(seed)), PackCache(directory, 1 << 30))
        try:
            made.turn()
            yield made
        finally:
            made.fetcher.close()


@pytest.fixture
def rack(scene: Scene, tmp_path: Path) -> Iterator[Rack]:
    with racked(scene, tmp_path / "cache") as made:
        yield made


@pytest.mark.parametrize("seed", range(4))
def test_over_a_way_that_loses_half_of_all_each_command_is_obeyed_once_and_in_order(
    scene: Scene, tmp_path: Path, seed: int
) -> None:
    with racked(scene, tmp_path / "cache", seed) as rack:
        names = [f"n0{number}" for number in range(1, 7)]
        rack.held.arm(*names, relay="rack3", start_now=True)
        agents = [agent_of(scene, number) for number in range(1, 7)]
        ask(agents[0])
        rack.head.loss = 0.4
        rack.until(lambda: rack.processes)
        for agent in agents:
            rack.until(partial(_is_seated, agent))
        [process] = rack.processes
        rack.until(lambda: ("begin",) in process.said)
        scene.admin("POST", "/multicast/sessions/1/stop")
        rack.until(lambda: process.said[-1] == ("stop",))
        for _ in range(20):
            rack.turn()
        assert len(rack.processes) == 1, "one epoch was started once"
        assert process.said.count(("begin",)) == process.said.count(("stop",)) == 1
        admitted = [one[1] for one in process.said if one[0] == "admit"]
        assert sorted(set(admitted)) == [1, 2, 3, 4, 5, 6]
        assert process.order.origin == InCache(str(rack.cache.files.root))
        assert (process.order.interface, process.order.source) == ("eth1", "10.88.0.1")
        rack.head.loss = 0.0
        rack.until(lambda: rack.senders.news() == ())


def test_what_a_restarted_head_does_not_know_is_given_up_without_a_word(rack: Rack) -> None:
    rack.held.arm("n01", relay="rack3")
    agent = agent_of(rack.held.scene, 1)
    ask(agent)
    rack.until(lambda: rack.processes)
    late = rack.head.late[-1]
    rack.held.restart()
    rack.turn()
    assert rack.processes[0].is_abandoned
    assert ("stop",) not in rack.processes[0].said, "receivers keep what they have"
    rack.until(lambda: len(rack.processes) == 2)
    assert rack.processes[1].order.stream == rack.processes[0].order.stream + 1
    assert not rack.relay._is_newer(late), "an answer of the head that is gone"
    assert not rack.processes[1].is_abandoned


@pytest.mark.parametrize(("groups", "source"), [("239.255.67.0/24", "10.88.0.1"), ("ff15::c10e:0/112", "fd88::1")])
def test_a_relay_sends_from_an_address_of_the_groups_family(rack: Rack, groups: str, source: str) -> None:
    rack.held.hub.groups = groups
    rack.held.arm("n01", relay="rack3")
    ask(agent_of(rack.held.scene, 1))
    rack.until(lambda: rack.processes)
    assert rack.processes[0].order.source == source


def test_a_relay_without_its_head_sends_on_for_a_while(rack: Rack) -> None:
    rack.held.arm("n01", relay="rack3")
    ask(agent_of(rack.held.scene, 1))
    rack.until(lambda: rack.processes)
    rack.head.loss = 1.0
    rack.turn()
    assert not rack.processes[0].is_abandoned
    assert HEADLESS_S > 60


@pytest.mark.parametrize("changes", [{"boot": "another"}, {"protocol": 99}], ids=lambda changes: next(iter(changes)))
def test_a_relay_that_the_head_wants_not_ends_and_its_unit_lets_it_be(rack: Rack, changes: dict[str, Any]) -> None:
    turn, relay = rack.relay._said(is_held=False), rack.relay
    if "boot" in changes:  # another machine of this name comes last
        rack.head.turn(msgspec.structs.replace(turn, **changes))
    else:
        relay.head = _Altering(rack.head, changes)
    relay._try(is_held=False)
    assert relay.stopping.is_set()
    assert relay.refusal is not None
    [line] = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("RestartPreventExitStatus=")]
    assert str(int(relay.refusal.exit_status)) in line.partition("=")[2].split()


def test_a_process_that_cannot_be_started_is_told_as_dead(rack: Rack) -> None:
    rack.held.arm("n01", relay="rack3")
    rack.refuses = "64 senders run already"
    ask(agent_of(rack.held.scene, 1))
    told = rack.held.scene

    def words() -> str:
        return str(told.admin("GET", "/events", subject="session/1").json())

    rack.until(lambda: "64 senders run already" in words())
    rack.refuses = ""
    rack.until(lambda: rack.processes)


def _is_seated(agent: Agent) -> bool:
    return isinstance(ask(agent), Seat)


def _told(process_streams: tuple[int, ...], commands: tuple[Numbered, ...], order: Any) -> list[EpochTold]:
    import msgspec

    return [EpochTold(msgspec.structs.replace(order, stream=stream), commands) for stream in process_streams]


def test_a_stream_that_was_given_up_is_never_begun_again(rack: Rack) -> None:
    rack.held.arm("n01", relay="rack3")
    ask(agent_of(rack.held.scene, 1))
    rack.until(lambda: rack.processes)
    order = rack.head.late[-1].epochs[0].order
    ready: Callable[[bytes], Known | None] = rack.fetcher.ready
    senders = RelaySenders(rack.start, ready, "/x")
    started = len(rack.processes)
    commands = (Numbered(2, Dismiss(1, Leaving.SLOW)), Numbered(1, Admit(1)))
    senders.follow(_told((7, 8), commands, order), LINK)
    senders.follow(_told((7, 8), commands, order), LINK)
    assert len(rack.processes) == started + 2
    assert rack.processes[-1].said == [("admit", 1), ("dismiss", 1, Leaving.SLOW)]
    senders.follow(_told((8,), (), order), LINK)
    senders.follow(_told((7, 8), commands, order), LINK)
    assert len(rack.processes) == started + 2
    assert [one.news.is_dead for one in senders.news() if one.stream == 7] == [True]
