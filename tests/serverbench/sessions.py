"""A desk of multicast sessions whose senders only say what a test has them say."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import Any

import httpx
import msgspec

from cloner_core.admin.sessions import SeatState, SessionIntent, SessionState, SessionView
from cloner_core.errors import ConflictError, RefusedError
from cloner_core.messages import Cause, Failure, Stage
from cloner_core.multicast.sender import Sent
from cloner_core.multicast.session import VERSIONS, Leaving
from cloner_core.seats import Seat, SeatLater, SeatLeft, SeatReply, SeatRequest, decode_seat
from cloner_server.multicast.links import Link
from cloner_server.multicast.orders import ReceiverNews, SenderNews, SenderOrder, SenderPhase
from cloner_server.outlets import OwnOutlet
from cloner_server.parcelshelf import ParcelShelf
from cloner_server.relayhub import RelayHub
from cloner_server.sessiondesk import SessionDesk
from cloner_server.state import events
from cloner_server.tasks.multicasting import Wire
from serverbench.scene import Agent, Scene, facts

LINK = Link("eth0", IPv4Interface("10.77.0.1/24"), 1e9, 7e8)
FAILURE = Failure(Stage.PLAN, Cause.TOOL, "no disk", "", is_destroyed=False)
_DEADLINE_S = 20.0


@dataclass
class PretendSender:
    """A sender that has its socket at once, and hears whom it is told to hear."""

    order: SenderOrder
    said: list[tuple[Any, ...]] = field(default_factory=list)
    heard: dict[int, ReceiverNews] = field(default_factory=dict)
    phase: SenderPhase = SenderPhase.GATHERING
    last_words: str = ""
    begun: int = 0

    @property
    def address(self) -> tuple[str, int] | None:
        return "10.77.0.1", 40000

    def news(self) -> SenderNews:
        return SenderNews(
            phase=self.phase,
            address="10.77.0.1",
            port=40000,
            begun=self.begun,
            sent=Sent(wire_bytes=1000 * self.begun),
            receivers=tuple(self.heard.values()),
            last_words=self.last_words,
        )

    def admit(self, number: int) -> None:
        self.said.append(("admit", number))
        self.heard.setdefault(number, ReceiverNews(number, None, sought_s=1000.0))

    def leave_unpolled(self, number: int) -> None:
        """Have a receiver wait for its turn to be polled."""
        self.heard[number] = ReceiverNews(number, None)

    def begin(self) -> None:
        self.said.append(("begin",))
        self.phase = SenderPhase.SENDING

    def dismiss(self, number: int, reason: Leaving) -> None:
        self.said.append(("dismiss", number, reason))

    def settle(self, number: int) -> None:
        self.said.append(("settle", number))

    def stop(self) -> None:
        self.said.append(("stop",))
        self.phase = SenderPhase.OVER

    def hear(self, *numbers: int, **news: Any) -> None:
        for number in numbers or tuple(self.heard):
            self.heard[number] = ReceiverNews(number, 0.1, **news)

    def die(self, words: str = "killed") -> None:
        self.phase, self.last_words = SenderPhase.DEAD, words


@dataclass
class Sessions:
    """The desk of a scene, and the senders it has started."""

    scene: Scene
    link: Link | None = LINK  # None: the interface is gone
    senders: list[PretendSender] = field(default_factory=list)
    is_full: bool = False
    groups: str = "239.255.67.0/24"
    desk: SessionDesk = field(init=False)
    hub: RelayHub = field(init=False)

    def __post_init__(self) -> None:
        rules = dataclasses.replace(self.scene.core.rules, has_agent=True)
        self.scene.core = dataclasses.replace(self.scene.core, rules=rules)
        self.restart()

    def restart(self) -> None:
        """Have the server begin anew: what was in memory is gone."""
        core = self.scene.core
        self.hub = RelayHub(
            core.database, core.catalog.store, "239.255.67.0/24", 47000, self.scene.clock, self.scene.clock
        )
        root = str(core.catalog.store.files_root)
        own = OwnOutlet(self.wire, self.start, self.check_room, root)
        self.desk = SessionDesk(
            database=core.database,
            shelf=ParcelShelf(core.catalog.store),
            outlet=lambda relay: self.hub.outlet(relay) if relay else own,
            clock=self.scene.clock,
            steady=self.scene.clock,
        )
        self.scene.core = dataclasses.replace(core, sessions=self.desk, relays=self.hub)

    def wire(self) -> Wire:
        if self.link is None:
            raise RefusedError("there is no network interface 'eth0'")
        return Wire(self.link, self.groups, 47000)

    def check_room(self) -> None:
        if self.is_full:
            raise ConflictError("64 senders run already")

    def start(self, order: SenderOrder) -> PretendSender:
        self.check_room()
        self.senders.append(PretendSender(order))
        return self.senders[-1]

    @property
    def sender(self) -> PretendSender:
        """The one started last."""
        return self.senders[-1]

    def request(self, *nodes: str, **changes: Any) -> httpx.Response:
        """Order a session of the golden image."""
        return self.scene.admin("POST", "/multicast/sessions", {"nodes": nodes, "image": "golden"} | changes)

    def arm(self, *nodes: str, **changes: Any) -> SessionIntent:
        """Order a session that must be granted."""
        answer = self.request(*nodes, **changes)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=SessionIntent)

    def show(self, session: str = "1") -> SessionView:
        """Return a session as an admin sees it."""
        answer = self.scene.admin("GET", f"/multicast/sessions/{session}")
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=SessionView)

    def state(self, session: str = "1") -> SessionState:
        return self.show(session).state

    def seats(self, session: str = "1") -> dict[str, SeatState]:
        return {seat.node: seat.state for seat in self.show(session).seats}

    def why(self, node: str, session: str = "1") -> str:
        return next(seat.why for seat in self.show(session).seats if seat.node == node)

    def turn(self, seconds: float = 0.5) -> None:
        """Let time pass, and the desk look."""
        self.scene.clock.now_s += seconds
        self.desk.turn()

    def until_started(self, count: int) -> None:
        """Let the desk look until so many senders were started: parcels are named in threads."""
        until_s = time.monotonic() + _DEADLINE_S
        while len(self.senders) < count:
            assert time.monotonic() < until_s, "no sender was started"
            self.turn(0.01)
            time.sleep(0.01)


def agent_of(scene: Scene, number: int) -> Agent:
    """Return the agent of node n0`number`, at work."""
    agent = Agent(scene, facts(f"52:54:00:00:00:0{number}"))
    agent.hello(scene.mint(f"n0{number}"))
    return agent


def ask(agent: Agent, stream: int = 0, *, heard: bool = False) -> SeatReply:
    """Ask for a seat."""
    answer = agent.post("seat", SeatRequest(VERSIONS, stream, heard))
    assert answer.status_code == 200, answer.text
    return decode_seat(answer.content)


def leave(agent: Agent, why: str = "", parcels: int = 1) -> None:
    """Say that everything is there, or why not."""
    agent.told("seat/left", dict[str, Any], SeatLeft(why, parcels))


def seated(agent: Agent, stream: int = 0) -> Seat:
    """Ask for a seat that there must be."""
    seat = ask(agent, stream)
    assert isinstance(seat, Seat), seat
    return seat


def begun(held: Sessions, *numbers: int, **changes: Any) -> list[Agent]:
    """Have a session send to these nodes; return their agents."""
    held.arm(*(f"n0{number}" for number in numbers), **changes)
    agents = [agent_of(held.scene, number) for number in numbers]
    assert isinstance(ask(agents[0]), SeatLater)
    held.until_started(len(held.senders) + 1)
    for agent in agents:
        seated(agent)
    held.sender.hear()
    held.turn()
    assert ("begin",) in held.sender.said
    return agents


def told(scene: Scene, what: str) -> list[dict[str, Any]]:
    """Return the details of all events of a kind, the oldest first."""
    with scene.core.database.read() as connection:
        return [one.detail for one in events.list_events(connection, limit=10_000) if one.what == what]
