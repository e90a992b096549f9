"""What netboot asks of the server's state: the seams between the wire and the database.

The server implements one object with all of these methods; each part of netboot sees only what it needs.
"""

from __future__ import annotations

from typing import Protocol

from cloner_pxe.decision import AnyAnswer
from cloner_pxe.dhcp_leases import Reservation
from cloner_pxe.request import BootRequest
from cloner_pxe.scripts import AgentBoot


class Lookup(Protocol):
    async def lookup(self, mac: str, request: BootRequest) -> AnyAnswer:
        """Return what `decide` says for the node with this MAC; `mac` is "" where the route cannot know."""
        ...


class BootDirectory(Lookup, Protocol):
    """What DHCP needs."""

    async def reservation(self, mac: str) -> Reservation | None:
        """Return the fixed address of the node with this MAC; None when it has none."""
        ...


class BootSite(Lookup, Protocol):
    """What HTTP needs."""

    async def agent_boot(self, mac: str, request: BootRequest) -> AgentBoot:
        """Mint a claim for the live task of this node and return the parts of its boot."""
        ...
