"""What a deploy, an erase or a capture at rest would do to nodes, and the orders to do it."""

from __future__ import annotations

from cloner_core.admin.nodes import NetbootWord
from cloner_core.atrest import CaptureOrder
from cloner_core.erasing.words import EraseOrder, Way
from cloner_core.image.reference import VersionName
from cloner_core.messages import Strict

MAX_NODES = 32
"""A command that destroys more nodes than this wants the number typed."""


class DiskAtRisk(Strict, frozen=True):
    """A disk that a deploy would destroy, but for what it keeps, by the last inventory."""

    path: str
    serial: str
    model: str
    size_bytes: int
    holds: tuple[str, ...]  # what is recognised on it: "vda2: ext4 'data'"
    keeps: tuple[str, ...] = ()  # what of it stays: the layout keeps these partitions


class Intent(Strict, frozen=True):
    """What a deploy would do, or has begun to do, to one node."""

    node: str
    image: str
    version: int
    layout: str
    layout_number: int
    disks: tuple[DiskAtRisk, ...]
    is_known: bool  # False: the machine never told its disks; they are chosen when it boots
    note: str = ""
    is_new_identity: bool = False  # the vault's identity is replaced
    scripts: int = 0  # number of the image's set of scripts that run with it; 0 there are none
    task_id: str = ""  # "" in a dry run


class DeployRequest(Strict, frozen=True):
    """Arm one task on each of these nodes: all of them, or none."""

    nodes: tuple[str, ...]
    image: str = ""  # "": each node's own
    version: VersionName | None = None  # None: the newest (or the node's own when image is "")
    layout: str = ""  # "": each node's own
    limit: int = MAX_NODES  # refused when more nodes are named
    new_identity: bool = False  # new machine-id and host keys, from now on
    dry_run: bool = False
    shown: tuple[Intent, ...] | None = None  # refused when anything else would be armed; None: no one was asked


class NetbootRequest(Strict, frozen=True):
    """Set the field netboot of these nodes: all of them, or none.

    `cloner` arms a task, as deploy does; `capture`, of one node, another one, as a capture at rest of its own image.
    """

    nodes: tuple[str, ...]
    value: NetbootWord
    limit: int = MAX_NODES
    dry_run: bool = False
    shown: tuple[Intent, ...] | None = None  # as in DeployRequest, for `cloner`


class PlanView(Strict, frozen=True):
    """What a node would run and destroy."""

    node: str
    rendered: str
    digest: str
    facts_s: float | None  # age of the inventory planned from; None when the caller gave the facts
    notes: tuple[str, ...] = ()  # what is no part of the plan, and good to know


class EraseRequest(Strict, frozen=True):
    """Arm a task that erases disks on each of these nodes: all of them, or none."""

    nodes: tuple[str, ...]
    order: EraseOrder  # `agreed` is the server's to fill in
    limit: int = MAX_NODES  # refused when more nodes are named
    dry_run: bool = False
    shown: tuple[EraseIntent, ...] | None = None  # refused when anything else would be armed; None: no one was asked


class DiskToErase(DiskAtRisk, frozen=True):
    """A disk that would be erased, by the last inventory, and how."""

    ways: tuple[Way, ...] = ()


class EraseIntent(Strict, frozen=True):
    """What an erase would do, or has begun to do, to one node."""

    node: str
    disks: tuple[DiskToErase, ...]
    left: tuple[str, ...]  # disks that stay as they are, each with the reason
    is_known: bool  # False: the machine never told its disks; they are chosen when it boots
    agreed: tuple[str, ...] | None = None  # the disks as the task names them; None: not known
    notes: tuple[str, ...] = ()
    task_id: str = ""  # "" in a dry run


class CaptureRequest(Strict, frozen=True):
    """Arm a task that captures a node at rest."""

    node: str
    order: CaptureOrder | None = None  # None: of the node's own image and layout, with the options kept with it
    is_update: bool = False  # the image must be there
    dry_run: bool = False
    shown: CaptureIntent | None = None  # refused when anything else would be armed; None: no one was asked


class CaptureIntent(Strict, frozen=True):
    """What a capture at rest would do, or has begun to do."""

    node: str
    base: str  # "web:3", the newest version; "" for the first one
    order: CaptureOrder
    disks: tuple[DiskAtRisk, ...]  # that will be read; none of them is written
    is_known: bool  # False: the machine never told its disks
    notes: tuple[str, ...] = ()
    task_id: str = ""  # "" in a dry run
