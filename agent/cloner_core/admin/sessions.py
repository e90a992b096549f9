"""Multicast sessions as an admin orders and sees them (docs/multicast-sessions.md)."""

from __future__ import annotations

from enum import StrEnum

from cloner_core.admin.deploying import MAX_NODES, Intent
from cloner_core.image.reference import VersionName
from cloner_core.messages import Strict

WAIT_S = 600.0
"""After the first node has its seat, a session begins with those who have one."""


class SessionState(StrEnum):
    """Where a session is."""

    QUEUED = "queued"  # no node asks for a seat yet, or the link has no room for it
    GATHERING = "gathering"  # its sender runs, and nodes take seats
    SENDING = "sending"
    ENDED = "ended"
    STOPPED = "stopped"  # by an admin
    FAILED = "failed"


class SeatState(StrEnum):
    """Where a node of a session is."""

    AWAITED = "awaited"  # armed, and not yet at its restore
    SEATED = "seated"  # has a seat, and was not heard yet
    HEARING = "hearing"  # answers what it is asked over multicast
    WRITTEN = "written"  # has everything
    HTTPS = "https"  # takes what it misses over HTTPS; `why` says the reason
    OUT = "out"  # its task ended before it had everything


class SessionRequest(Strict, frozen=True):
    """Deploy one version to these nodes by multicast: all of them, or none."""

    nodes: tuple[str, ...]
    image: str
    version: VersionName | None = None  # None: the newest
    layout: str = ""  # "": each node's own
    least: int = 0  # begin as soon as so many nodes hear; 0: all of them
    wait_s: float = WAIT_S  # begin so long after the first seat, however many hear
    rate_bps: float = 0.0  # on the wire; 0: the server's share of the link
    start_now: bool = False  # begin with the first node that hears
    priority: int = 0  # the higher first, where the link has no room for all sessions
    override_image: bool = False  # nodes of another image too
    hops: int = 1  # routers on the way, plus one
    relay: str = ""  # on whose wire it is sent; "" the server's own
    limit: int = MAX_NODES  # refused when more nodes are named
    dry_run: bool = False
    shown: tuple[Intent, ...] | None = None  # refused when anything else would be armed; None: no one was asked


class SeatView(Strict, frozen=True):
    """A node in a session."""

    node: str
    state: SeatState
    task: str
    why: str = ""
    parcels: int = 0  # written
    loss: float = 0.0  # 0 to 1


class SessionView(Strict, frozen=True):
    """A session."""

    id: str
    state: SessionState
    image: str
    number: int
    author: str
    created_s: float
    started_s: float | None  # when sending began
    ended_s: float | None
    why: str  # it ended so, or cannot be sent now; "" nothing is the matter
    least: int
    wait_s: float
    priority: int
    rate_bps: float  # what it may send
    interface: str
    group: str
    port: int
    hops: int
    seats: tuple[SeatView, ...]
    parcels: int = 0
    data_bytes: int = 0  # of all parcels
    epochs: int = 0  # senders started for it
    # Of the epoch that runs, or of the last one.
    sent_bytes: int = 0  # on the wire
    blocks: int = 0
    combinations: int = 0
    reports: int = 0
    sending_bps: float = 0.0
    relay: str = ""  # on whose wire; "" the server's own
    fetching: str = ""  # what its relay still has to fetch, or waits for; "" nothing
    start_now: bool = False  # begins with the first node that hears: asked for so, or by multicast-start


class SessionIntent(Strict, frozen=True):
    """What a request would do, or has begun to do."""

    intents: tuple[Intent, ...]
    rate_bps: float
    group: str
    port: int
    notes: tuple[str, ...] = ()
    id: str = ""  # "" in a dry run


def format_group(group: str, port: int) -> str:
    """Return a group and its port as people write them: RFC 3986 §3.2.2 has brackets around what has colons."""
    return f"[{group}]:{port}" if ":" in group else f"{group}:{port}"


class WaitingView(Strict, frozen=True):
    """A node that waits for a session, or is on its way to one."""

    node: str
    image: str  # its own; "" none
    since_s: float | None  # first check-in; None: it has not come yet
    seen_s: float | None
    address: str
    link_mbps: int  # 0 not known
    memory_bytes: int
    disks: tuple[str, ...]  # "/dev/vda 20 GiB"
    session: str = ""  # that it belongs to
    note: str = ""  # "has not netbooted yet", "silent for 3 min", …
