"""Relays as an admin sees them (docs/multicast-sessions.md)."""

from __future__ import annotations

from cloner_core.messages import Strict


class RelayView(Strict, frozen=True):
    """A relay that was heard of since the server was started, or has a token."""

    name: str
    is_present: bool  # it can be given sessions now
    token_expires_s: float | None = None  # of the token that lasts longest; None: it has none any more
    heard_s: float | None = None  # None: not since the server was started
    address: str = ""  # that it calls from
    version: str = ""
    interface: str = ""  # where its sessions leave it
    network: str = ""  # ADDRESS/PREFIX there
    speed_bps: float = 0.0
    budget_bps: float = 0.0  # of its sessions together
    cache_used_bytes: int = 0
    cache_limit_bytes: int = 0
    sessions: tuple[str, ...] = ()  # that are queued or run
    note: str = ""  # why it cannot send


class HeadView(Strict, frozen=True):
    """Where a relay finds this server, and what it knows it by."""

    address: str
    tls_port: int
    ca_digest: str  # hex, SHA-256 of the CA in PEM
