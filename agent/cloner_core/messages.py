"""What agent and server say to each other: one definition, used by both sides, validated at the edge.

The paths and statuses are in docs/api.md. Control requests carry, besides the bearer credential, a proof made with
the key of the attempt (`proof_statement`), so that a credential read off the wire or a screen is of no use alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from blake3 import blake3
from msgspec import UNSET, Meta, UnsetType

from cloner_core.extrafiles import ExtraFile
from cloner_core.facts import Facts
from cloner_core.layout import Layout
from cloner_core.lldp import MAX_NEIGHBORS, Neighbor
from cloner_core.network import NodeNetwork
from cloner_core.scripts import ScriptRun, ScriptSet

PROTOCOL = 4
"""Version of this protocol; hello carries it and a mismatch is refused with the remedy."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all messages: immutable, and an unknown field is an error that names it."""


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text that must never reach a log: its repr is ***."""

    value: str

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


class Stage(StrEnum):
    """The named parts of a task, in their order."""

    HELLO = "hello"
    VERIFY = "verify"  # signatures, packs present
    PLAN = "plan"  # disks selected, fit proven, digest confirmed by the server
    PRE_SCRIPT = "pre-script"  # the site's own, in the initramfs; entered only where there is one
    GUARD = "guard"  # nothing else carries our UUIDs; old holders stopped
    ASSEMBLE = "assemble"  # of a capture at rest: arrays, volumes, the mounted tree, all of it read-only
    SURVEY = "survey"  # of a capture at rest: what it would take, and what the lint finds
    CAPTURE = "capture"  # of a capture at rest
    PUBLISH = "publish"  # of a capture at rest
    PARTITION = "partition"  # the first destructive stage
    ERASE = "erase"  # of a task that erases, in place of what a deploy does to disks
    MKFS = "mkfs"
    MOUNT = "mount"
    RESTORE = "restore"
    READBACK = "readback"
    IDENTITY = "identity"
    BOOTFILES = "bootfiles"
    POST_SCRIPT = "post-script"  # the site's own, confined in the clone; entered only where there is one
    CHECK = "check"  # identity and bootability verified
    COMMIT = "commit"
    NVRAM = "nvram"
    RECEIPT = "receipt"
    REBOOT = "reboot"


SCRIPT_STAGES = frozenset({Stage.PRE_SCRIPT, Stage.POST_SCRIPT})
"""Entered only where the image has scripts."""

CAPTURE_STAGES = (
    Stage.HELLO,
    Stage.GUARD,
    Stage.ASSEMBLE,
    Stage.SURVEY,
    Stage.CAPTURE,
    Stage.PUBLISH,
    Stage.REBOOT,
)
"""The stages of a capture at rest."""

_OF_OTHERS = (Stage.ERASE, Stage.ASSEMBLE, Stage.SURVEY, Stage.CAPTURE, Stage.PUBLISH)
DEPLOY_STAGES = tuple(stage for stage in Stage if stage not in _OF_OTHERS)
"""The stages of a deploy."""

ERASE_STAGES = (Stage.HELLO, Stage.PLAN, Stage.GUARD, Stage.ERASE, Stage.READBACK, Stage.RECEIPT, Stage.REBOOT)
"""The stages of an erase."""

DESTRUCTIVE_FROM = Stage.PARTITION
"""A failure before this stage leaves the disks as they were, so netboot goes back to `local`."""


class Cause(StrEnum):
    """Closed vocabulary of failures; each has a hint where it is raised and a row in docs/failures.md."""

    PROTOCOL = "protocol"  # versions of agent and server differ
    SIGNATURE = "signature"  # a signature does not verify
    CORRUPT = "corrupt"  # bytes differ from their digest
    MISSING_PACK = "missing-pack"
    NO_DISK = "no-disk"  # a selector matches nothing
    AMBIGUOUS_DISK = "ambiguous-disk"  # a selector matches more than one
    DISK_TOO_SMALL = "disk-too-small"
    FIRMWARE = "firmware"  # layout and firmware do not fit
    LAYOUT = "layout"  # layout and disks do not fit, or layout and image
    MEMORY = "memory"
    TPM = "tpm"  # the layout wants a TPM 2.0: the machine has none, or it did not take the key
    FOREIGN_UUID = "foreign-uuid"  # another disk carries an identifier of this layout
    PLAN_MISMATCH = "plan-mismatch"  # server and agent planned differently
    DEVICE_BUSY = "device-busy"
    DISK_IO = "disk-io"
    NO_SPACE = "no-space"
    READBACK = "readback"  # what was read differs from what was written
    IDENTITY = "identity"
    NOT_BOOTABLE = "not-bootable"
    NVRAM = "nvram"
    NETWORK = "network"  # server unreachable for too long
    REFUSED = "refused"  # the server said no: task ended, attempt replaced, commit not granted
    UNCLEAN = "unclean"  # a filesystem to be captured was not unmounted: only a write would put it right
    LOCKED = "locked"  # what is to be captured is encrypted, and no key of it is kept
    NO_METHOD = "no-method"  # a disk cannot be erased in the way that is asked for
    NOT_ERASED = "not-erased"  # a disk says so, or still holds what it held
    TOOL = "tool"  # a program of the agent failed
    SCRIPT = "script"  # a script of the image failed, or refused the deploy
    LOST = "lost"  # no heartbeat
    BOOT = "boot"  # the boot script was fetched, and no agent said hello
    BOOT_LOOP = "boot-loop"
    UNCONFIRMED = "unconfirmed"  # the clone never called
    ABORTED = "aborted"
    INTERNAL = "internal"


class Hello(Strict, frozen=True):
    """First message of an agent; the claim token from the boot script makes it an attempt."""

    protocol: int
    agent_version: str
    claim: str
    public_key: str  # hex, Ed25519, 32 bytes; the private half never leaves the node's memory
    facts: Facts


class VersionRef(Strict, frozen=True):
    """The version a task restores, with all that is needed to check it."""

    image: str
    number: int
    digest: str  # hex; the tree root's
    signature: str  # hex; over cloner_core.image.version.version_statement
    pack_map: str  # hex digest of the pack map
    pack_map_signature: str  # hex


class ConfirmWay(StrEnum):
    """How a clone is known to have booted."""

    PHONE_HOME = "phone-home"  # it calls
    SSH = "ssh"  # its SSH server proves to be the one of this very deploy
    CONSOLE = "console"  # it says so on its console, and an admin hands the text over
    NONE = "none"  # nobody asks: done at the receipt


class ConfirmTo(Strict, frozen=True):
    """Where the clone reports that it booted, and with what."""

    host: str
    port: int
    secret: Secret
    way: Literal["phone-home", "console"] = "phone-home"
    attempt: str = ""  # which attempt the secret is of: told on the console


class BootPolicy(Strict, frozen=True):
    """How the node is meant to boot after the deploy."""

    boot_order: Literal["network-first", "local-first"] = "network-first"
    kernel_arguments: tuple[str, ...] = ()  # appended to the clone's kernel command line


class Task(Strict, frozen=True):
    """What an attempt shall do. Holds no secret beyond the confirm secret of this very attempt."""

    task_id: str
    attempt_id: str
    node: str
    version: VersionRef
    layout: Layout
    seed: str  # hex, 32 bytes, new for each attempt: every identifier of the plan derives from it
    network: NodeNetwork
    confirm: ConfirmTo | None  # None: confirmation is not asked for
    boot: BootPolicy = BootPolicy()
    protected_serials: tuple[str, ...] = ()  # disks that no plan may touch
    files: tuple[ExtraFile, ...] = ()  # templates of the site, filled in for the node by the identity stage
    scripts: ScriptSet = ScriptSet()  # of the image, as they were when the task was armed
    session: str = ""  # of multicast, that the restore asks for a seat in; "" everything comes over HTTPS


class Discovered(Strict, frozen=True):
    """The facts of a machine that was to be discovered are kept; there is nothing more to do on it."""

    name: str  # the node, or the MAC of a machine that is none


class DiscoverFailure(Strict, frozen=True):
    """Why the agent could not take an inventory; the claim says of which machine."""

    claim: str
    public_key: str
    message: str
    hint: str


class PasswordHash(Strict, frozen=True):
    """A password as it is kept and sent: salted scrypt, see `cloner_core.passwords`."""

    salt: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


class ConsoleAccess(Strict, frozen=True):
    """What the agent's SSH console needs: the host key it is known by and the password it asks for."""

    host_key: Secret  # PEM, "OPENSSH PRIVATE KEY"; of the console alone, never a key of the clone
    password: PasswordHash


class HelloReply(Strict, frozen=True, tag_field="kind", tag="deploy"):
    """Accepted: the credential of the attempt and the task."""

    credential: Secret
    task: Task
    server_time_s: float  # seconds since the epoch; the agent sets its clock from it
    beat_every_s: float
    console: ConsoleAccess | None = None  # None: no console over SSH


class Progress(Strict, frozen=True):
    """How far the running stage is; units by stage: bytes for restore and readback, steps elsewhere."""

    stage: Stage
    done: int = 0
    total: int = 0  # 0 unknown
    unit: Literal["bytes", "steps"] = "steps"
    rate_per_s: float = 0.0
    text: str = ""  # "format root (ext4)"


class LogLine(Strict, frozen=True):
    """One line of the agent's log."""

    time_s: float
    level: str
    text: str


class ConsoleReport(Strict, frozen=True):
    """What the SSH console has seen since the agent started."""

    is_open: bool = False  # it takes connections now
    views: int = 0  # passwords that were right
    guesses: int = 0  # passwords that were wrong, connections turned away for it included
    last_from: Annotated[str, Meta(max_length=64)] = ""  # address of the last guess


class Beat(Strict, frozen=True):
    """Heartbeat: progress and the log lines since the last one."""

    progress: Progress
    log: tuple[LogLine, ...] = ()
    # Who answers on the cables, that of the interface the machine boots from first; () when nothing new was heard.
    neighbors: Annotated[tuple[Neighbor, ...], Meta(max_length=MAX_NEIGHBORS)] = ()
    console: ConsoleReport = ConsoleReport()


class BeatReply(Strict, frozen=True):
    """What the server wants of the attempt now."""

    order: Literal["go", "abort", "hold", "retry"] = "go"
    reason: str = ""


class PlanReport(Strict, frozen=True):
    """The plan as the agent made it, before anything is destroyed."""

    digest: str  # cloner_core.plan.plan_digest
    rendered: str


class Granted(Strict, frozen=True):
    """Yes; a no is an error answer."""

    ok: Literal[True] = True


class HostKey(Strict, frozen=True):
    """One SSH host key pair in OpenSSH's formats."""

    algorithm: Literal["ed25519", "ecdsa", "rsa"]
    private: Secret  # PEM, "OPENSSH PRIVATE KEY"
    public: str  # one line, without comment
    certificate: str = ""  # one line by the site's CA, without comment; "" none


class Vaulted(Strict, frozen=True):
    """The secret half of an identity; released in the identity stage only, to the accepted hardware only."""

    machine_id: str  # 32 hex digits, machine-id(5)
    host_keys: tuple[HostKey, ...]
    random_seed: Secret  # hex; mixed into the clone's first random seed
    recovery_key: Secret | None = None  # typed to open its encrypted disks; None: the layout encrypts none


class StageTime(Strict, frozen=True):
    """Seconds one stage took."""

    stage: Stage
    seconds: float


class StageRate(Strict, frozen=True):
    """How fast one stage moved bytes, over all of its time."""

    stage: Stage
    moved: Literal["received", "written", "read"]  # packs over the network; files to the disk; files off it again
    bytes: int
    mb_per_s: float  # of 1,000,000 bytes


class DiskWritten(Strict, frozen=True):
    """A disk the plan wrote to."""

    selector_id: str
    path: str
    serial: str
    model: str
    size_bytes: int


class ReceiptBody(Strict, frozen=True):
    """What the agent says it did; the server checks it, adds itself and signs (`Receipt`)."""

    task_id: str
    attempt_id: str
    node: str
    version_digest: str
    layout: str
    plan_digest: str
    disks: tuple[DiskWritten, ...]
    packs: int
    files: int
    bytes_restored: int
    bytes_read_back: int
    identity: tuple[str, ...]  # paths written by the identity stage
    rewritten: tuple[str, ...]  # paths whose references were rewritten
    machine_id: str
    host_key_fingerprints: tuple[str, ...]  # "SHA256:…" as ssh-keygen -l prints
    root_part_uuid: str
    nvram_before: tuple[str, ...]
    nvram_after: tuple[str, ...]
    stages: tuple[StageTime, ...]
    notes: tuple[str, ...] = ()
    # Left out of the JSON by agents that did not know them yet, so that their signatures still hold.
    packs_digest: str | UnsetType = UNSET  # hex, cloner_core.image.packmap.packs_digest of what was verified
    rates: tuple[StageRate, ...] | UnsetType = UNSET
    scripts: tuple[ScriptRun, ...] | UnsetType = UNSET  # in the order they ran


class Receipt(Strict, frozen=True, tag_field="kind", tag="deploy"):
    """The signed record of what a task did; `signature` covers `receipt_statement(body, server)`."""

    body: ReceiptBody
    accepted_s: float
    confirmed_s: float | None  # None: not yet confirmed
    signature: str  # hex, Ed25519
    confirmed_by: str = ""  # a ConfirmWay; "none" where nobody asks; "" not yet


class Failure(Strict, frozen=True):
    """Why an attempt ended; told to the server, shown on the console while the agent holds."""

    stage: Stage
    cause: Cause
    message: str
    hint: str
    is_destroyed: bool  # a destructive step has begun: the old content is lost


class Confirm(Strict, frozen=True):
    """Sent by the clone itself over plain HTTP: it has no CA and no curl."""

    secret: str
    machine_id: str
    boot_id: str
    root_part_uuid: str


class Fault(Strict, frozen=True):
    """Body of every error answer."""

    error: str
    hint: str = ""
    faults: tuple[str, ...] = ()
    status: int = 1  # exit status for the command line, cloner_core.errors.ExitStatus


def proof_statement(method: str, path: str, body: bytes, credential: str) -> bytes:
    """Return what the attempt's key signs for one control request (header `Cloner-Proof`, hex signature)."""
    parts = (method.upper(), path, blake3(body).hexdigest(), blake3(credential.encode()).hexdigest())
    return ("cloner proof 1\0" + "\0".join(parts)).encode()


def receipt_statement(body: ReceiptBody, accepted_s: float) -> bytes:
    """Return what the server signs for a receipt; confirmation comes later and is not covered."""
    return b"cloner receipt 1\0" + msgspec.json.encode((body, accepted_s), order="deterministic")
