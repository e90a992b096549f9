"""What nodes get: of an image with a layout, and by what the server knows of nodes."""

from __future__ import annotations

from typing import Literal

from cloner_core.admin.images import LayoutView
from cloner_core.image.reference import VersionName
from cloner_core.messages import Strict


class ConfigFilesystem(Strict, frozen=True):
    """One filesystem of the machine that was captured."""

    mount: str
    role: str  # root, esp, data
    type: str  # "" when the source did not say
    inodes: int
    data_bytes: int  # holes not counted
    allocated_bytes: int  # what a filesystem of a node must have room for


class ImageConfig(Strict, frozen=True):
    """What a node with this image and this layout gets."""

    image: str
    number: int
    newest: int  # number of the newest version of the image
    digest: str
    published_s: float
    author: str
    message: str
    source: str  # host name of the machine captured
    system: str  # ID and VERSION_ID of its os-release: "debian 12"
    architecture: str
    left_out: tuple[str, ...]  # rules of the capture
    filesystems: tuple[ConfigFilesystem, ...]
    inodes: int
    data_bytes: int
    packs: int
    stored_bytes: int  # of its packs: what a node fetches
    scripts: tuple[str, ...]  # that run with a deploy: "pre-script check-raid"
    scripts_number: int  # of their set; 0 there are none
    layout: LayoutView


class IdentifyRequest(Strict, frozen=True):
    """Nodes by their MAC addresses or names; each stands for itself."""

    method: Literal["mac", "node"]
    values: tuple[str, ...]


class Installed(Strict, frozen=True):
    """What a deploy put on a node, as its newest receipt says."""

    image: str
    number: int
    digest: str
    layout: str  # name:number
    accepted_s: float
    confirmed_s: float | None  # None: the clone has not confirmed, or nobody asked it to
    is_wanted: bool  # a deploy of now would put the same version there


class NodeImage(Strict, frozen=True):
    """The image data of one node."""

    node: str
    asked: tuple[str, ...]  # by which of the values it was found
    image: str  # what it is to get; "" nothing is set
    version: VersionName | None  # of the node's own setting; None: the newest
    number: int | None  # the version a deploy of now would put there; None: there is none
    layout: str
    netboot: str
    installed: Installed | None  # None: no deploy has ended there, or its disks were erased since


class Identified(Strict, frozen=True):
    """The nodes that were found, and the values that are nobody's."""

    nodes: tuple[NodeImage, ...]
    unknown: tuple[str, ...]
