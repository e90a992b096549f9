"""What a relay and its head say to each other: one exchange, again and again, that tells everything each time.

Nothing is said twice with two effects: the stream of an epoch names it for good, and commands are numbered.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cloner_core.messages import Strict
from cloner_server.multicast.orders import Command, Count, EpochOrder, SenderNews

PROTOCOL = 1
"""Of this exchange; a relay is to be of the same version as its head."""
HELD_S = 5.0
"""How long the head holds a turn that asks for it, while there is nothing new."""
TURN_BYTES = 16 << 20
"""A turn at most: each of thousands of receivers has a line."""

_Short = Annotated[str, Meta(max_length=64, pattern=r"^[\x20-\x7e]*$")]
_Bytes = Annotated[int, Meta(ge=0, le=1 << 62)]
_Number = Annotated[int, Meta(ge=0, le=1 << 62)]  # of turns and commands
_Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class RelayLink(Strict, frozen=True):
    """Where a relay's sessions leave it."""

    interface: _Short
    address: _Short  # ADDRESS/PREFIX
    speed_bps: Annotated[float, Meta(gt=0, le=1e13)]
    budget_bps: Annotated[float, Meta(gt=0, le=1e13)]
    notes: tuple[str, ...] = ()
    address6: _Short = ""  # the same for groups of IPv6; "" it has none


class Fetching(Strict, frozen=True):
    """How much of a wanted pack map a relay has."""

    pack_map: _Hex
    have: Count
    of: Count  # 0: not known yet
    is_ready: bool
    fault: str = ""  # why it cannot be had; "" when it can


class EpochNews(Strict, frozen=True):
    """How an epoch is that a relay sends."""

    stream: Count
    news: SenderNews
    done: _Number  # number of the last command that was obeyed


class RelayTurn(Strict, frozen=True):
    """Everything a relay has to say."""

    protocol: int
    version: _Short
    boot: _Short  # another for each start of the relay
    number: _Number  # rises with each turn of a boot: what was overtaken on its way is not believed
    seen: _Short  # `state` of the last answer
    is_held: bool  # it may be answered when there is something new, and after `HELD_S` at the latest
    link: RelayLink | None  # None: there is none; `fault` says why
    fault: str = ""
    cache_used_bytes: _Bytes = 0
    cache_limit_bytes: _Bytes = 0
    fetching: tuple[Fetching, ...] = ()
    epochs: tuple[EpochNews, ...] = ()


class Numbered(Strict, frozen=True):
    """A command to the sender of an epoch."""

    number: int  # from 1, in the order in which they are to be obeyed
    command: Command


class EpochTold(Strict, frozen=True):
    """An epoch that a relay is to send."""

    order: EpochOrder
    commands: tuple[Numbered, ...] = ()  # that are not known to be obeyed


class Wanted(Strict, frozen=True):
    """A pack map that a relay is to have all of."""

    pack_map: _Hex
    image: str  # NAME:NUMBER, for people


class RelayOrders(Strict, frozen=True):
    """All that a relay is to do; what is not in it, it does no more."""

    state: str  # the same as long as nothing has changed
    head: str  # another for each start of the server
    number: int  # rises with each answer of one head
    epochs: tuple[EpochTold, ...] = ()
    wanted: tuple[Wanted, ...] = ()
