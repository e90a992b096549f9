"""The breakin consoles of nodes, and what the consoles of clones said."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cloner_core.confirmation import ConsoleLine
from cloner_core.messages import PasswordHash, Strict

ConsoleScope = Literal["site", "group", "node"]


class PasswordRequest(Strict, frozen=True):
    """Set the password of consoles for agents to come, or take away what was set."""

    scope: ConsoleScope
    names: tuple[str, ...] = ()  # of the groups or nodes; () for the site
    password: PasswordHash | None = None  # None: what was set is taken away
    dry_run: bool = False


class PasswordView(Strict, frozen=True):
    """Where a password of consoles is set."""

    scope: ConsoleScope
    name: str  # "" for the site
    set_s: float


class ConsoleView(Strict, frozen=True):
    """How the console of a node is reached now."""

    node: str
    task: str
    attempt: str
    address: str
    port: int
    user: str
    host_key: str  # one line of OpenSSH's, without comment
    fingerprint: str  # "SHA256:…" as ssh-keygen -l prints
    password: str  # where it comes from: "node", "group NAME", "site", "default"
    is_open: bool  # the agent said that it takes connections
    beat_s: float  # when the agent was last heard of


class ConsoleReport(Strict, frozen=True):
    """Lines of clones, found in what their consoles said."""

    lines: Annotated[tuple[ConsoleLine, ...], Meta(max_length=10_000)]


class ConsoleOutcome(Strict, frozen=True):
    """What became of one line."""

    attempt: str
    node: str  # "" where no receipt of the attempt is known
    task_id: str
    refusal: str  # "" accepted, now or before
