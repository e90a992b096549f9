"""What the server and the process that sends an epoch say to each other: one JSON document a line, over pipes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from cloner_core.messages import Secret, Strict
from cloner_core.multicast.sealing import Rejects
from cloner_core.multicast.sender import Sent
from cloner_core.multicast.session import BLOCK_BYTES, Leaving
from cloner_core.seats import ParcelList

# What others tell ends in the database: no number is beyond what its column holds.
Count = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
Seconds = Annotated[float, Meta(ge=-1e9, le=1e9)]
Rate = Annotated[float, Meta(ge=0, le=1e13)]
Part = Annotated[float, Meta(ge=0, le=1)]


class InStore(Strict, frozen=True, tag="store"):
    """The bytes of parcels lie in the store of a server."""

    directory: str


class InCache(Strict, frozen=True, tag="cache"):
    """The bytes of parcels lie in the cache of a relay."""

    directory: str


class EpochOrder(Strict, frozen=True, kw_only=True):
    """What is sent in one epoch of a session, and how: the same wherever it is sent from."""

    session: str  # its name, for people
    stream: int  # u32, another for every epoch
    pack_map: str  # hex, digest of the map whose packs are sent
    group: str
    port: int
    rate_bps: float  # on the wire, at most
    floor_bps: float  # and at least, whoever has to be waited for
    master: Secret  # hex, MASTER_BYTES: of this epoch alone
    hops: int = 1
    block_bytes: int = BLOCK_BYTES
    window_parcels: int = 16
    first_parcel: int = 0  # those before it are sent only when somebody wants them: `SenderNews.begun` of another epoch
    query_every_s: float = 0.0  # it asks who listens to what, for switches that forget it otherwise; 0: it does not


class SenderOrder(EpochOrder, frozen=True, kw_only=True):
    """Everything a sender needs for one epoch of a session."""

    parcels: ParcelList  # of the pack map
    origin: InStore | InCache  # where their bytes are; the process only reads there
    interface: str
    source: str  # address of the interface, to which receivers report


def sender_order(
    epoch: EpochOrder, *, parcels: ParcelList, origin: InStore | InCache, interface: str, source: str
) -> SenderOrder:
    """Return the order of an epoch for the machine that sends it."""
    told = {name: getattr(epoch, name) for name in EpochOrder.__struct_fields__}
    return SenderOrder(**told, parcels=parcels, origin=origin, interface=interface, source=source)


class Admit(Strict, frozen=True, tag="admit"):
    """A receiver got its keys."""

    number: int


class Begin(Strict, frozen=True, tag="begin"):
    """The time of gathering is over: send."""


class Dismiss(Strict, frozen=True, tag="dismiss"):
    """A receiver is to be served no more, and is to be told so."""

    number: int
    reason: Leaving


class Settle(Strict, frozen=True, tag="settle"):
    """A receiver has everything, as was heard over HTTPS: it need not be asked any more."""

    number: int


class Limit(Strict, frozen=True, tag="limit"):
    """Send at another rate from now on."""

    rate_bps: float
    floor_bps: float


class Stop(Strict, frozen=True, tag="stop"):
    """Say that the session is over, and end."""


Command = Admit | Begin | Dismiss | Settle | Limit | Stop


class SenderPhase(StrEnum):
    """Where the sender of an epoch is."""

    STARTING = "starting"  # it has no socket yet
    GATHERING = "gathering"  # it asks its receivers whether they hear, and sends no data
    SENDING = "sending"
    FINISHING = "finishing"  # everything was sent; some receivers are not done
    SETTLED = "settled"  # nobody is served any more; who comes now is
    OVER = "over"  # it was stopped, and the process has ended
    DEAD = "dead"  # the process has ended, and nobody had stopped it


class ReceiverNews(msgspec.Struct, frozen=True, array_like=True):
    """One receiver, as its reports tell."""

    number: Count
    heard_s: Seconds | None  # since it was heard last; None: it was never
    done: Count = 0  # parcels written
    is_done: bool = False
    loss: Part = 0.0
    left: Leaving | None = None  # None: it is served, or done
    sought_s: Seconds | None = None  # since it was polled first; None: its turn has not come yet
    stuck_s: Seconds = 0.0  # for which it wrote nothing, of the time when there was nothing to be sent


class SenderNews(Strict, frozen=True):
    """How a sender is; the last that was heard of it."""

    phase: SenderPhase = SenderPhase.STARTING
    address: str = ""  # where receivers report to; "" while it is starting
    port: Annotated[int, Meta(ge=0, le=0xFFFF)] = 0
    pid: Count = 0  # of the process
    begun: Count = 0  # parcels of the plan, from 0: another epoch may begin with the next
    rate_bps: Rate = 0.0  # at which it sends now
    sent: Sent = msgspec.field(default_factory=Sent)
    rejects: Rejects = msgspec.field(default_factory=Rejects)  # what came to its socket and was nobody's report
    receivers: tuple[ReceiverNews, ...] = ()
    notes: tuple[str, ...] = ()  # what it could not do, and does without
    last_words: str = ""  # of a process that has ended
    exit_status: Annotated[int, Meta(ge=-255, le=255)] | None = (
        None  # of that process, negative for a signal; None: it runs, or was never started
    )

    @property
    def is_dead(self) -> bool:
        """Whether the process ended by itself: the session needs another epoch."""
        return self.phase is SenderPhase.DEAD

    @property
    def is_ended(self) -> bool:
        """Whether there is no process any more."""
        return self.phase in (SenderPhase.DEAD, SenderPhase.OVER)
