"""Installers: kernels of golden nodes, with their drivers, that nodes are offered to boot the agent with."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from cloner_core.messages import Strict

SITE = "site"
"""The installer of nodes for which nothing else is said; while there is none, that of `cloner serve --installer`."""

_DIGEST = Meta(pattern="^[0-9a-f]{64}$")
_RELEASE = Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$")


class InstallerSpec(Strict, frozen=True):
    """What a node puts: a kernel and a layer with its modules and firmware; both parts were put before."""

    release: Annotated[str, _RELEASE]  # of the kernel, as uname -r says
    kernel: Annotated[str, _DIGEST]
    drivers: Annotated[str, _DIGEST]
    source: Annotated[str, Meta(max_length=253)] = ""  # host name of the node
    overwrite: bool = False  # False: an installer of this name is a conflict
    revision: int | UnsetType = UNSET  # it is replaced only if it still has this revision; 0: only if it is new


class InstallerBuild(Strict, frozen=True):
    """An installer as it was put once."""

    release: str
    kernel: str  # BLAKE3, 64 hex digits
    kernel_bytes: int
    drivers: str
    drivers_bytes: int
    unpacked_bytes: int  # what modules and firmware take in a node's memory
    modules: int
    source: str
    author: str
    made_s: float


class InstallerView(Strict, frozen=True):
    """An installer as it is."""

    name: str
    revision: int
    present: InstallerBuild
    previous: InstallerBuild | None  # that it replaced, and that can be put back; None there was none
    needed_bytes: int  # of memory, as a node tells it, with the base and site layers of this server; 0 not known
    nodes: tuple[str, ...] = ()  # that name it
    images: tuple[str, ...] = ()


class InstallerChange(Strict, frozen=True, omit_defaults=True):
    """Put the previous build back in place of the present one, which becomes the previous."""

    revision: int | UnsetType = UNSET


class ImageInstaller(Strict, frozen=True):
    """Which installer the nodes of an image boot, where a node says nothing itself."""

    installer: str  # "": as the site has it
    revision: int | UnsetType = UNSET  # the change happens only if it still is this one; 0: nothing was ever said


class ImageInstallerView(Strict, frozen=True):
    """The same, as it is."""

    image: str
    installer: str
    revision: int


class FleetDevice(Strict, frozen=True):
    """A controller of disks or network card that inventories told of."""

    modalias: str
    id: str  # "8086:2922"
    is_storage: bool
    machines: int  # that have it
