"""Nodes, their groups, hardware and models, and machines nobody knows yet."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from cloner_core.extrafiles import ExtraFile
from cloner_core.image.reference import VersionName
from cloner_core.lldp import Neighbor
from cloner_core.messages import Strict
from cloner_core.network import NodeNetwork

NetbootWord = Literal["local", "cloner", "cloner-multicast", "capture", "discover", "rescue"]
LocalMethodWord = Literal["exit", "grub-chain", "sanboot", "efi-order"]
BootOrderWord = Literal["network-first", "local-first"]
ConfirmWord = Literal["", "phone-home", "ssh", "console", "none"]  # ConfirmWay; "": the site's


class NodeSpec(Strict, frozen=True):
    """A node to be added."""

    name: str
    macs: tuple[str, ...]
    network: NodeNetwork | None = None  # None: host name = name, DHCP on the first MAC
    image: str = ""
    version: VersionName | None = None  # None: the newest
    layout: str = ""
    groups: tuple[str, ...] = ()
    local_method: LocalMethodWord | Literal[""] = ""  # "": as the hardware model or the site has it
    boot_order: BootOrderWord | Literal[""] = ""
    confirm: ConfirmWord = ""
    kernel_arguments: tuple[str, ...] = ()
    is_protected: bool = False
    protected_serials: tuple[str, ...] = ()
    files: tuple[ExtraFile, ...] = ()
    switch: str = ""  # as an admin calls it; "": what LLDP or the DHCP relay tells
    installer: str = ""  # it boots the agent with; "": as its image or the site has it
    uuid: str = ""  # of the machine's DMI table; "" any
    serial: str = ""  # of the machine's DMI table; "" any


class NodePatch(Strict, frozen=True, omit_defaults=True):
    """A change of some fields; a field left out stays as it is."""

    macs: tuple[str, ...] | UnsetType = UNSET
    network: NodeNetwork | UnsetType = UNSET
    image: str | UnsetType = UNSET
    version: VersionName | UnsetType | None = UNSET
    layout: str | UnsetType = UNSET
    groups: tuple[str, ...] | UnsetType = UNSET
    local_method: LocalMethodWord | Literal[""] | UnsetType = UNSET
    boot_order: BootOrderWord | Literal[""] | UnsetType = UNSET
    confirm: ConfirmWord | UnsetType = UNSET
    kernel_arguments: tuple[str, ...] | UnsetType = UNSET
    is_protected: bool | UnsetType = UNSET
    protected_serials: tuple[str, ...] | UnsetType = UNSET
    files: tuple[ExtraFile, ...] | UnsetType = UNSET
    switch: str | UnsetType = UNSET
    installer: str | UnsetType = UNSET
    uuid: str | UnsetType = UNSET
    serial: str | UnsetType = UNSET
    fingerprint: Literal[""] | UnsetType = UNSET  # "" forgets the accepted hardware: the next hello is believed
    revision: int | UnsetType = UNSET  # the change happens only if the node still has this revision


class NodeView(Strict, frozen=True):
    """A node as it is."""

    name: str
    revision: int
    macs: tuple[str, ...]
    network: NodeNetwork
    image: str
    version: VersionName | None
    layout: str
    groups: tuple[str, ...]
    protected_groups: tuple[str, ...]  # those of `groups` that are protected
    netboot: NetbootWord
    local_method: LocalMethodWord
    boot_order: BootOrderWord
    confirm: ConfirmWord
    kernel_arguments: tuple[str, ...]
    is_protected: bool
    protected_serials: tuple[str, ...]
    files: tuple[ExtraFile, ...]
    fingerprint: str  # accepted hardware; "" none yet
    seen_s: float | None  # when the machine last told its facts; None never
    switch: str = ""  # as an admin calls it; "" he told none
    installer: str = ""  # "": as its image or the site has it
    neighbors: tuple[Neighbor, ...] = ()  # as LLDP told at the last deploy, that of the boot interface first
    console_password: str = "default"  # where it comes from: "node", "group NAME", "site", "default"; "off" no consoles
    uuid: str = ""  # what the machine's DMI table must say; "" anything
    serial: str = ""
    local_method_from: str = "site"  # where it comes from: "node", "model NAME", "site"
    boot_order_from: str = "site"
    relay: str = ""  # IPv4 address of the DHCP relay the machine last asked through; "" it asked directly, or elsewhere


class ImportedNode(Strict, frozen=True):
    """What a file says of one node: added when there is none of the name, else changed."""

    where: str  # names it in faults: "line 7"
    name: str
    patch: NodePatch  # of a node that was read before: with its revision


class ImportRequest(Strict, frozen=True):
    """Add and change nodes: all of them, or none."""

    nodes: tuple[ImportedNode, ...]
    update: bool = False  # False: a node that exists and differs is a conflict
    dry_run: bool = False


class ImportResult(Strict, frozen=True):
    """What became of one node."""

    name: str
    action: Literal["added", "changed", "unchanged"]
    fields: tuple[str, ...]  # that differ from before; of a new node none
    node: NodeView


class GroupPatch(Strict, frozen=True, omit_defaults=True):
    """A change of what is set for a whole group."""

    is_protected: bool | UnsetType = UNSET


class GroupView(Strict, frozen=True):
    """A group as it is: the nodes that name it, and what is set for all of them."""

    name: str
    revision: int  # 0: nothing was ever set
    nodes: tuple[str, ...]
    is_protected: bool


class Hardware(Strict, frozen=True):
    """A machine as it described itself in its hello."""

    fingerprint: str
    uuid: str
    serial: str
    vendor: str
    product: str
    macs: tuple[str, ...]
    seen_s: float


class HardwareView(Strict, frozen=True):
    """Which machine a node is, and which one wants to be it."""

    accepted: str  # fingerprint; "" none yet
    offered: Hardware | None  # what was turned away last, and waits for `cloner node accept`; None nothing


class AcceptRequest(Strict, frozen=True):
    """Let this machine be the node; refused when another one was offered meanwhile."""

    fingerprint: str
    dry_run: bool = False


class ModelPatch(Strict, frozen=True, omit_defaults=True):
    """A change of a hardware model; a field left out stays, or is "" when the model is new."""

    vendor: str | UnsetType = UNSET  # shell patterns over what the DMI table says; "" any
    product: str | UnsetType = UNSET
    local_method: LocalMethodWord | Literal[""] | UnsetType = UNSET  # "": nothing is said of it
    boot_order: BootOrderWord | Literal[""] | UnsetType = UNSET
    revision: int | UnsetType = UNSET  # the change happens only if the model still has this revision; 0 is none yet


class ModelView(Strict, frozen=True):
    """A hardware model as it is: what machines it means, and how they boot."""

    name: str
    revision: int
    vendor: str
    product: str
    local_method: LocalMethodWord | Literal[""]
    boot_order: BootOrderWord | Literal[""]
    nodes: tuple[str, ...] = ()  # that take something from it


class MachineRequest(Strict, frozen=True):
    """Allow the inventory of machines that are no nodes, or take that back: all of them, or none."""

    macs: tuple[str, ...]
    value: Literal["discover", "local"]
    dry_run: bool = False


class MachineView(Strict, frozen=True):
    """A machine that is no node, and whose inventory an admin has allowed."""

    mac: str
    netboot: Literal["discover", "local"]
    allowed_s: float
    seen_s: float | None  # when it told its facts; None not yet
    vendor: str = ""
    product: str = ""
    serial: str = ""
    memory_bytes: int = 0
    disks: int = 0
