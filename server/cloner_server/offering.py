"""Which installer a node is offered, and what that means for it: its memory, its modules, its kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from dataclasses import dataclass

from sqlalchemy import Connection

from cloner_core.admin.installers import InstallerBuild
from cloner_core.errors import ClonerError
from cloner_server.core import Core
from cloner_server.imagedrivers import ImageDrivers, installer_modules
from cloner_server.state import installers
from cloner_server.tasks.rules import Rules


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node boots the agent with."""

    build: InstallerBuild | None  # None: the installer of the settings
    release: str  # of its kernel; "" not known
    needed_bytes: int  # of memory, as a node tells it


def offer_for(core: Core, connection: Connection, node: str, image: str) -> Offer:
    """Return what `node` ("" a machine that is none) is offered to get `image` ("" none)."""
    build = installers.build_for(connection, node, image) if core.shelf is not None else None
    if core.shelf is None or build is None:
        return Offer(None, core.shelf.base_release if core.shelf else "", core.rules.agent_memory_bytes)
    return Offer(build, build.release, core.shelf.needed_bytes(build))


def rules_for(core: Core, offer: Offer) -> Rules:
    """Return the rules with the memory that this offer needs."""
    return dataclasses.replace(core.rules, agent_memory_bytes=offer.needed_bytes)


def modules_of(core: Core, offer: Offer) -> Set[str]:
    """Return the modules of the offered kernel, in its files or built in; none where they cannot be told."""
    try:
        if core.shelf is not None and offer.build is not None:
            return installer_modules(core.shelf.installer(offer.build).initramfs)
    except ClonerError:  # parts are missing: the boot script says so
        return frozenset()
    return installer_modules(core.installer) if core.installer else frozenset()


def kernel_notes(offer: Offer, drivers: ImageDrivers | None) -> tuple[str, ...]:
    """Return what is to be said where a node installs with another kernel than it will run."""
    if drivers is None or not offer.release or offer.release == drivers.release:
        return ()
    return (
        f"the installer has kernel {offer.release}, the image {drivers.release}: what the one drives the other may not"
        " (cloner make-installer on the golden node)",
    )
