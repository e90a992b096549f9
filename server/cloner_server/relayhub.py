"""The relays of this server: what each told last, what each is to do, and senders there that are as good as our own.

All of it is memory. Sessions stand in the database, and after a restart each gets another epoch, as on our own wire.
"""

from __future__ import annotations

import ipaddress
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection

from cloner_core.admin.relays import RelayView
from cloner_core.errors import ClonerError, InvalidError, NotFoundError, RefusedError
from cloner_core.image.digest import digest
from cloner_core.image.packmap import PackMap, PackRef, decode_map
from cloner_core.multicast.session import Leaving
from cloner_core.seats import ParcelList
from cloner_server.callboard import Callboard
from cloner_server.multicast.links import Link
from cloner_server.multicast.orders import (
    Admit,
    Begin,
    Command,
    Dismiss,
    EpochOrder,
    SenderNews,
    SenderPhase,
    Settle,
    Stop,
)
from cloner_server.relay.words import (
    PROTOCOL,
    EpochNews,
    EpochTold,
    Fetching,
    Numbered,
    RelayLink,
    RelayOrders,
    RelayTurn,
    Wanted,
)
from cloner_server.state import sessions
from cloner_server.state.database import Database
from cloner_server.store.protocol import Store
from cloner_server.tasks.multicasting import Wire

LOST_S = 20.0
"""After which a relay that says nothing has no senders any more."""
GIVEN_UP_S = 40.0
"""After which its sessions have failed, when a node waits for them."""
_PRESENT_S = 10.0  # a relay says something twice in this time
_MAPS_KEPT = 8
_PAST_KEPT = 256
_GRANTED_S = 1.0  # that what a relay may fetch is believed


class RelaySender:
    """The sender of an epoch on a relay. What it is told is obeyed there in order, and once."""

    def __init__(self, hub: RelayHub, relay: _Relay, order: EpochOrder) -> None:
        self.order = order
        self.boot = ""  # of the relay that was told of it; "" none was
        self.commands: list[Numbered] = []  # that are not known to be obeyed
        self._hub = hub
        self._relay = relay
        self._count = 0
        self._is_stopped = False
        self._news = SenderNews()

    @property
    def address(self) -> tuple[str, int] | None:
        """Where receivers report to; None until the relay's process has its socket."""
        news = self._news
        return (news.address, news.port) if news.address else None

    def news(self) -> SenderNews:
        """Return what the relay told last; the sender is dead when the relay is."""
        with self._hub.lock:
            self.judge()
            return self._news

    def admit(self, number: int) -> None:
        """Have a receiver served."""
        self._say(Admit(number))

    def begin(self) -> None:
        """Have the data sent."""
        self._say(Begin())

    def dismiss(self, number: int, reason: Leaving) -> None:
        """Have a receiver served no more, and told so."""
        self._say(Dismiss(number, reason))

    def settle(self, number: int) -> None:
        """Have it known that a receiver needs nothing more."""
        self._say(Settle(number))

    def stop(self) -> None:
        """Have it say that the session is over, and end."""
        with self._hub.lock:
            if self._is_stopped:
                return
            self._is_stopped = True
        self._say(Stop())

    # With the lock of the hub

    def hear(self, told: EpochNews) -> None:
        """Take what the relay says of it."""
        if self._news.is_ended:
            return
        self._news = told.news
        self.commands = [one for one in self.commands if one.number > told.done]
        if told.news.is_ended and self._is_stopped:
            self._news = msgspec.structs.replace(told.news, phase=SenderPhase.OVER)

    def judge(self) -> None:
        """Have it ended when its relay has not been heard of for too long."""
        if self._hub.unheard_s(self._relay) >= LOST_S:
            self.end(f"relay {self._relay.name} has not been heard of for {LOST_S:.0f} s")

    def end(self, words: str) -> None:
        """Have it ended."""
        if not self._news.is_ended:
            phase = SenderPhase.OVER if self._is_stopped else SenderPhase.DEAD
            self._news = msgspec.structs.replace(self._news, phase=phase, last_words=words)

    @property
    def is_ended(self) -> bool:
        """Whether there is no process any more, as far as is known."""
        return self._news.is_ended

    def _say(self, command: Command) -> None:
        with self._hub.lock:
            self._count += 1
            self.commands.append(Numbered(self._count, command))
        self._hub.calls.call((self._relay.name,))


@dataclass(slots=True)
class _Relay:
    """One relay, as it was heard last."""

    name: str
    heard_s: float  # of the steady clock; at first when the server was started
    boot: str = ""  # "": it has not been heard of
    past: list[str] = field(default_factory=list)  # boots before, the last of them
    number: int = 0  # of the last turn that was believed
    told: RelayTurn | None = None
    address: str = ""  # that it calls from
    link: Link | None = None
    senders: dict[int, RelaySender] = field(default_factory=dict)
    granted: tuple[float, tuple[Wanted, ...]] = (-1e9, ())  # when it was looked up, and what it may fetch

    def fetching(self, pack_map: bytes) -> Fetching | None:
        """Return how far it is with a map; None when it has not said so."""
        name = pack_map.hex()
        return next((one for one in (self.told.fetching if self.told else ()) if one.pack_map == name), None)


@dataclass
class RelayHub:
    """All relays. Safe to use from several threads; nothing waits for a relay."""

    database: Database
    store: Store
    groups: str
    first_port: int
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    calls: Callboard = field(default_factory=Callboard)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _head: str = field(default_factory=lambda: secrets.token_hex(8))
    _count: int = 0
    _relays: dict[str, _Relay] = field(default_factory=dict)
    _maps: dict[bytes, PackMap] = field(default_factory=dict)  # that are being fetched
    _since_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._since_s = self.steady()

    def outlet(self, name: str) -> RelayOutlet:
        """Return the wire of a relay, whether it is there or not."""
        with self.lock:
            return RelayOutlet(self, self._relay(name))

    def take(self, name: str, turn: RelayTurn, address: str) -> RelayOrders:
        """Take what a relay says; return what it is to do.

        Raises InvalidError for one of another version, RefusedError when another has taken its name since.
        """
        if turn.protocol != PROTOCOL:
            raise InvalidError(
                f"the relay speaks protocol {turn.protocol}, this server {PROTOCOL}",
                hint="install the server's version on the relay",
            )
        link = _link(turn.link)
        with self.lock:
            relay = self._relay(name)
            self._meet(relay, turn.boot)
            relay.heard_s = self.steady()
            if turn.number > relay.number:
                relay.number, relay.told, relay.address, relay.link = turn.number, turn, address, link
                for told in turn.epochs:
                    if (sender := relay.senders.get(told.stream)) is not None:
                        sender.hear(told)
        return self.orders(name, turn.boot)

    def orders(self, name: str, boot: str) -> RelayOrders:
        """Return what a relay is to do now; raises RefusedError when another has taken its name since."""
        wanted = self._wanted(name)
        with self.lock:
            relay = self._relay(name)
            if relay.boot != boot:
                raise _superseded(name)
            for stream, sender in list(relay.senders.items()):
                sender.judge()
                if sender.is_ended:
                    del relay.senders[stream]
                else:
                    sender.boot = boot
            relay.granted = (self.steady(), wanted)
            epochs = tuple(EpochTold(one.order, tuple(one.commands)) for one in relay.senders.values())
            self._count += 1
            state = digest(msgspec.json.encode((epochs, wanted))).hex()[:32]
            return RelayOrders(f"{self._head}-{state}"[:64], self._head, self._count, epochs, wanted)

    def require_granted(self, name: str, pack_map: bytes) -> None:
        """Raise NotFoundError for a map that no live session of the relay is of."""
        with self.lock:
            relay = self._relay(name)
            looked_s, wanted = relay.granted
        if self.steady() - looked_s >= _GRANTED_S:
            wanted = self._wanted(name)
            with self.lock:
                relay.granted = (self.steady(), wanted)
        if all(one.pack_map != pack_map.hex() for one in wanted):
            raise NotFoundError(f"no session of relay {name} is of pack map {pack_map.hex()}")

    def pack_of(self, pack_map: bytes, ordinal: int) -> PackRef:
        """Return pack `ordinal` (from 0) of a map; raises NotFoundError."""
        with self.lock:
            known = self._maps.get(pack_map)
        if known is None:
            known = decode_map(self.store.pack_map(pack_map))
            with self.lock:
                while len(self._maps) >= _MAPS_KEPT:
                    self._maps.pop(next(iter(self._maps)))
                self._maps[pack_map] = known
        if not 0 <= ordinal < len(known.packs):
            raise NotFoundError(f"the map has {len(known.packs)} packs, and {ordinal} is none of them")
        return known.packs[ordinal]

    def wake(self, name: str) -> None:
        """Have a relay told at once what was changed for it in the database."""
        if name:
            self.calls.call((name,))

    def views(self, connection: Connection, known: dict[str, float]) -> list[RelayView]:
        """Return every relay that was heard of, or has a token (`known`: until when), by name."""
        running: dict[str, list[str]] = {}
        for row in sessions.live(connection):
            running.setdefault(row.relay, []).append(str(row.id))
        with self.lock:
            names = sorted({*known, *(name for name, one in self._relays.items() if one.boot)})
            return [self._view(self._relay(name), running.get(name, []), known.get(name)) for name in names]

    def unheard_s(self, relay: _Relay) -> float:
        """Return since when a relay has said nothing."""
        return self.steady() - relay.heard_s

    def _relay(self, name: str) -> _Relay:
        return self._relays.setdefault(name, _Relay(name, self._since_s))

    def _meet(self, relay: _Relay, boot: str) -> None:
        """Take a relay for what it is: the one that spoke last, another start of it, or one that was superseded."""
        if boot in relay.past:
            raise _superseded(relay.name)
        if boot == relay.boot:
            return
        if relay.boot:
            relay.past = [*relay.past, relay.boot][-_PAST_KEPT:]
        for sender in relay.senders.values():
            if sender.boot:
                sender.end(f"relay {relay.name} was started again")
        relay.boot, relay.number, relay.told = boot, 0, None

    def _wanted(self, name: str) -> tuple[Wanted, ...]:
        """Return the pack maps of the live sessions of a relay, without any twice."""
        with self.database.read() as connection:
            rows = [row for row in sessions.live(connection) if row.relay == name]
        found: dict[str, Wanted] = {}
        for row in rows:
            pack_map = row.pack_map or self._present_map(row.digest)
            if pack_map:
                found.setdefault(pack_map, Wanted(pack_map, f"{row.image}:{row.number}"))
        return tuple(found.values())

    def _present_map(self, version: str) -> str:
        """Return the map that a version has at present: no node has asked for a seat yet."""
        try:
            return self.store.signed_map(bytes.fromhex(version)).map
        except ClonerError:
            return ""

    def _view(self, relay: _Relay, running: list[str], token_expires_s: float | None) -> RelayView:
        told = relay.told
        view = RelayView(relay.name, is_present=self.is_present(relay), token_expires_s=token_expires_s)
        if not relay.boot:
            return view
        link = relay.link
        return msgspec.structs.replace(
            view,
            heard_s=self.clock() - self.unheard_s(relay),
            address=relay.address,
            version=told.version if told else "",
            interface=link.interface if link else "",
            network=str(link.address) if link else "",
            speed_bps=link.speed_bps if link else 0.0,
            budget_bps=link.budget_bps if link else 0.0,
            cache_used_bytes=told.cache_used_bytes if told else 0,
            cache_limit_bytes=told.cache_limit_bytes if told else 0,
            sessions=tuple(running),
            note=told.fault if told else "",
        )

    def is_present(self, relay: _Relay) -> bool:
        """Whether a relay can be given sessions now."""
        return bool(relay.boot) and self.unheard_s(relay) < _PRESENT_S


@dataclass(frozen=True, slots=True)
class RelayOutlet:
    """The wire of a relay; satisfies `Outlet`."""

    hub: RelayHub
    relay: _Relay

    def wire(self) -> Wire:
        """See `Outlet`."""
        with self.hub.lock:
            self._require_present()
            link, told = self.relay.link, self.relay.told
            if link is None:
                why = told.fault if told and told.fault else "it has told of no network interface yet"
                raise RefusedError(f"relay {self.relay.name} cannot send: {why}", hint="cloner relay-list")
            return Wire(link, self.hub.groups, self.hub.first_port, self.relay.name)

    def waits_for(self, pack_map: bytes) -> str:
        """See `Outlet`."""
        with self.hub.lock:
            name = f"relay {self.relay.name}"
            if not self.hub.is_present(self.relay):
                return self._absent()
            told = self.relay.fetching(pack_map)
            if told is not None and told.is_ready:
                return ""
            if told is not None and told.fault:
                raise ClonerError(f"{name}: {told.fault}")
            if told is None or not told.of:
                return f"{name} looks for what it has of the packs"
            return f"{name} has {told.have} of {told.of} packs"

    def lost(self) -> str:
        """See `Outlet`."""
        with self.hub.lock:
            unheard_s = self.hub.unheard_s(self.relay)
            return self._absent() if unheard_s >= GIVEN_UP_S else ""

    def require_room(self) -> None:
        """See `Outlet`; a relay that has too many senders tells it of the next."""
        with self.hub.lock:
            self._require_present()

    def start(self, order: EpochOrder, parcels: ParcelList) -> RelaySender:
        """See `Outlet`; the relay has the list itself."""
        with self.hub.lock:
            self._require_present()
            sender = self.relay.senders[order.stream] = RelaySender(self.hub, self.relay, order)
        self.hub.wake(self.relay.name)
        return sender

    def _require_present(self) -> None:
        if not self.hub.is_present(self.relay):
            raise RefusedError(
                self._absent(), hint="cloner relay-list shows those that are there; cloner relay, in the rack, is one"
            )

    def _absent(self) -> str:
        if not self.relay.boot:
            return f"relay {self.relay.name} has not been heard of since the server was started"
        return f"relay {self.relay.name} has not been heard of for {self.hub.unheard_s(self.relay):.0f} s"


def _superseded(name: str) -> RefusedError:
    return RefusedError(
        f"another machine, or another start of this one, is relay {name} now",
        hint="each relay has a name of its own: cloner token create --relay NAME",
    )


def _link(told: RelayLink | None) -> Link | None:
    if told is None:
        return None
    try:
        address = ipaddress.IPv4Interface(told.address)
        address6 = ipaddress.IPv6Interface(told.address6) if told.address6 else None
    except ValueError as fault:
        raise InvalidError(f"link.address: {fault}") from fault
    return Link(told.interface, address, told.speed_bps, told.budget_bps, told.notes, address6)
