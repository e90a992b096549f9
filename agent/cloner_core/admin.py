"""What the command line and the server say to each other: the objects as an admin sees and changes them.

The paths are in docs/api.md. Words of closed sets are the very words of the database and of `cloner_pxe.decision`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from cloner_core.confirmation import ConsoleLine
from cloner_core.erasing.words import EraseOrder, EraseReceipt, Way
from cloner_core.extrafiles import ExtraFile
from cloner_core.layout import Layout
from cloner_core.lldp import Neighbor
from cloner_core.messages import Failure, PasswordHash, Progress, Receipt, Strict
from cloner_core.network import NodeNetwork

NetbootWord = Literal["local", "cloner", "cloner-multicast", "capture", "discover", "rescue"]
LocalMethodWord = Literal["exit", "grub-chain", "sanboot", "efi-order"]
BootOrderWord = Literal["network-first", "local-first"]
ConfirmWord = Literal["", "phone-home", "ssh", "console", "none"]  # ConfirmWay; "": the site's

MAX_NODES = 32
"""A command that destroys more nodes than this wants the number typed."""


class TaskState(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    WAITING = "waiting"  # for its multicast session
    BOOTING = "booting"  # a boot script with a claim was served
    RUNNING = "running"
    LOST = "lost"  # no heartbeat; comes back by itself
    UNCONFIRMED = "unconfirmed"  # receipt accepted, the clone has not called yet
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    FROZEN = "frozen"  # two machines claimed it; a person decides


class NodeSpec(Strict, frozen=True):
    """A node to be added."""

    name: str
    macs: tuple[str, ...]
    network: NodeNetwork | None = None  # None: host name = name, DHCP on the first MAC
    image: str = ""
    version: int | None = None  # None: the newest
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
    uuid: str = ""  # of the machine's DMI table; "" any
    serial: str = ""  # of the machine's DMI table; "" any


class NodePatch(Strict, frozen=True, omit_defaults=True):
    """A change of some fields; a field left out stays as it is."""

    macs: tuple[str, ...] | UnsetType = UNSET
    network: NodeNetwork | UnsetType = UNSET
    image: str | UnsetType = UNSET
    version: int | UnsetType | None = UNSET
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
    version: int | None
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


class RecoveryKey(Strict, frozen=True):
    """What opens a node's encrypted disks by hand."""

    number: int  # from 1; the greatest is given to new clones
    key: str  # as it is typed, spaces included
    made_s: float


class RecoveryKeys(Strict, frozen=True):
    """All that were ever made for a node, the newest first."""

    node: str
    keys: tuple[RecoveryKey, ...]


class AcceptRequest(Strict, frozen=True):
    """Let this machine be the node; refused when another one was offered meanwhile."""

    fingerprint: str
    dry_run: bool = False


class DeployRequest(Strict, frozen=True):
    """Arm one task on each of these nodes: all of them, or none."""

    nodes: tuple[str, ...]
    image: str = ""  # "": each node's own
    version: int | None = None  # None: the newest (or the node's own when image is "")
    layout: str = ""  # "": each node's own
    limit: int = MAX_NODES  # refused when more nodes are named
    new_identity: bool = False  # new machine-id and host keys, from now on
    dry_run: bool = False
    shown: tuple[Intent, ...] | None = None  # refused when anything else would be armed; None: no one was asked


class NetbootRequest(Strict, frozen=True):
    """Set the field netboot of these nodes: all of them, or none. `cloner` arms a task, as deploy does."""

    nodes: tuple[str, ...]
    value: NetbootWord
    limit: int = MAX_NODES
    dry_run: bool = False
    shown: tuple[Intent, ...] | None = None  # as in DeployRequest, for `cloner`


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


class TaskView(Strict, frozen=True):
    """A task as it is."""

    id: str
    revision: int
    node: str
    kind: str  # "deploy", "erase"; one that erases has neither image nor layout
    state: TaskState
    stage: str
    image: str
    version: int
    digest: str
    layout: str
    layout_number: int
    author: str
    created_s: float
    changed_s: float
    attempts: int
    progress: Progress | None  # None: nothing running was reported yet
    failure: Failure | None  # None unless failed
    confirm: ConfirmWord = ""  # how the newest attempt's clone is to confirm; "" before the first attempt
    confirmed_by: ConfirmWord = ""  # how it did; "none" where nobody asked; "" not yet
    scripts: int = 0  # number of the set of scripts it was armed with; 0 there were none


class ConsoleReport(Strict, frozen=True):
    """Lines of clones, found in what their consoles said."""

    lines: Annotated[tuple[ConsoleLine, ...], Meta(max_length=10_000)]


class ConsoleOutcome(Strict, frozen=True):
    """What became of one line."""

    attempt: str
    node: str  # "" where no receipt of the attempt is known
    task_id: str
    refusal: str  # "" accepted, now or before


class LogEntry(Strict, frozen=True):
    """One line of a task's log, as the agent sent it."""

    id: int
    attempt: str
    time_s: float
    level: str
    text: str


class EventView(Strict, frozen=True):
    """One line of the audit: who did what to which object, and when."""

    id: int
    time_s: float
    author: str
    object: str
    revision: int
    what: str
    detail: dict[str, Any]
    is_alarm: bool


class LayoutView(Strict, frozen=True):
    """One number of a layout."""

    name: str
    number: int
    created_s: float
    author: str
    layout: Layout


class ImageView(Strict, frozen=True):
    """One published version."""

    image: str
    number: int
    digest: str
    published_s: float
    author: str
    detail: dict[str, Any]  # the store's version record: message, source facts, sizes


class Publish(Strict, frozen=True):
    """Make a captured tree a version; everything it names was stored before."""

    image: str
    digest: str  # of the tree root
    pack_map: str
    record: dict[str, object]  # message, author, capture time, inexact paths: outside the digest


class PlanView(Strict, frozen=True):
    """What a node would run and destroy."""

    node: str
    rendered: str
    digest: str
    facts_s: float | None  # age of the inventory planned from; None when the caller gave the facts


class FitRequest(Strict, frozen=True):
    """Ask whether an image fits these nodes."""

    nodes: tuple[str, ...]
    image: str
    version: int | None = None  # None: the newest
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


class IdentityPreview(Strict, frozen=True):
    """One file of an identity as it would be written."""

    path: str
    mode: int
    content: str  # "***" for a secret; a link's is "-> TARGET"
    is_secret: bool = False


class IdentityView(Strict, frozen=True):
    """What the identity stage would write to a node, in its order; nothing secret is in it."""

    node: str
    image: str
    version: int
    network_systems: tuple[str, ...]  # told from the image's files, the leading one first
    removals: tuple[str, ...]  # patterns
    files: tuple[IdentityPreview, ...]
    notes: tuple[str, ...]


class KnownHosts(Strict, frozen=True):
    """What a client needs to believe the host keys of every node."""

    authority: str  # public key of the site's SSH CA, one line without comment
    names: tuple[str, ...]  # host names and static addresses of the nodes


class ReceiptView(Strict, frozen=True):
    """A receipt and the server's public key (hex) that its signature verifies with."""

    receipt: Receipt | EraseReceipt
    server_key: str


class StoreFault(Strict, frozen=True):
    """One thing a check of the store found wrong."""

    what: str  # version image/number, pack …, segment …
    why: str


class CheckReport(Strict, frozen=True):
    """What a check of the store saw."""

    faults: tuple[StoreFault, ...]
    versions: int
    packs: int
    stored_bytes: int  # of the packs of published versions
    unused_bytes: int  # of packs no published version needs; gc removes them


class Collected(Strict, frozen=True):
    """What a gc of the store removed, or would remove."""

    files: int
    stored_bytes: int


class Status(Strict, frozen=True):
    """The server at a glance."""

    version: str
    address: str
    nodes: int
    tasks: dict[str, int]  # by state
    images: int
    alarms: tuple[EventView, ...]  # of the last day
    free_bytes: int  # of the file system under the state directory
    services: tuple[str, ...]
    warnings: tuple[str, ...] = ()  # what is set up in a way that nobody should leave it
