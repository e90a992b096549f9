"""Whether an image fits nodes, by their inventory alone."""

from __future__ import annotations

from cloner_core.image.reference import VersionName
from cloner_core.messages import Strict


class FitRequest(Strict, frozen=True):
    """Ask whether an image fits these nodes."""

    nodes: tuple[str, ...]
    image: str
    version: VersionName | None = None  # None: the newest
    layout: str = ""  # "": each node's own


class FitRefusal(Strict, frozen=True):
    """Why a deploy would be refused, in the words of the deploy."""

    cause: str  # a `messages.Cause`; "no-inventory" where nothing is known
    message: str
    hint: str


class FitDisk(Strict, frozen=True):
    """A disk that the layout chooses."""

    id: str  # of the layout
    path: str
    serial: str
    model: str
    bus: str
    size_bytes: int
    sector_bytes: int


class FitOther(Strict, frozen=True):
    """A disk that the layout does not choose."""

    disk: str
    why: str


class FitSize(Strict, frozen=True):
    """A device a deploy would make, with its final size and what fills it."""

    device: str
    what: str  # "root", "array root, raid1", "volume of vg0"
    size_bytes: int
    filesystem: str = ""  # "" where something else lies on it
    mounts: tuple[str, ...] = ()


class FitView(Strict, frozen=True):
    """What a deploy would make of one node, by its inventory."""

    node: str
    image: str
    version: int
    layout: str
    fits: bool
    refusals: tuple[FitRefusal, ...]  # () exactly when it fits
    told_s: float | None = None  # when the machine told what this is made from; None: there is no inventory
    age_s: float = 0.0  # of that, by the server's clock
    machine: str = ""  # vendor and product
    firmware: str = ""
    arch: str = ""
    memory_bytes: int = 0
    disks: tuple[FitDisk, ...] = ()
    others: tuple[FitOther, ...] = ()
    sizes: tuple[FitSize, ...] = ()
    notes: tuple[str, ...] = ()
