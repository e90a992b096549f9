"""What every request handler has at hand: database, keys, rules, store, clock. One value, made at the start."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cloner_server.admission import Admission
from cloner_server.audit import NetworkAudit
from cloner_server.callboard import Callboard
from cloner_server.catalog import Catalog
from cloner_server.grants import Grants
from cloner_server.imagedrivers import DriverShelf
from cloner_server.relayhub import RelayHub
from cloner_server.sessiondesk import SessionDesk
from cloner_server.shelf import Shelf
from cloner_server.site import Site
from cloner_server.state.database import Act, Database
from cloner_server.storework import StoreWork
from cloner_server.tasks.rules import Rules
from cloner_server.verified import Verifier


@dataclass(frozen=True, slots=True)
class Core:
    """The server's parts that outlive a request."""

    state_directory: Path
    database: Database
    site: Site
    rules: Rules
    catalog: Catalog
    verifier: Verifier
    drivers: DriverShelf
    installer: Path | None = None  # the initramfs that nodes are offered unless another is chosen; None: none is
    shelf: Shelf | None = None  # the others; None: this server offers no agent
    address: str = ""
    tls_port: int = 0  # of the API of nodes
    services: tuple[str, ...] = ()
    audit: NetworkAudit = field(default_factory=NetworkAudit)
    admission: Admission = field(default_factory=Admission)
    grants: Grants = field(default_factory=Grants)
    work: StoreWork = field(default_factory=StoreWork)
    calls: Callboard = field(default_factory=Callboard)
    sessions: SessionDesk | None = None  # None: this process sends no multicast
    relays: RelayHub | None = None  # None likewise
    publishing: dict[str, threading.Lock] = field(default_factory=dict)  # by image: captures at rest, one at a time
    unkept: list[Callable[[], None]] = field(default_factory=list)  # what the start could not write; tried again
    clock: Callable[[], float] = time.time
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def act(self, author: str) -> Act:
        """Return who acts, at this moment."""
        return Act(author, self.clock())
