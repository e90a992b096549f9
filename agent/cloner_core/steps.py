"""The steps of a plan: frozen values that say what is done, why, and what it destroys.

Values and their one-line wording only; `plan` chooses them, `cloner_agent` applies them. Everything outside the
target's disks is named by absolute path; everything inside the clone by its path there ("/boot/efi").
"""

from __future__ import annotations

import shlex
from typing import Literal

import msgspec

from cloner_core.messages import Stage
from cloner_core.scripts import OnFailure, ScriptType

TARGET = "/mnt/target"
"""Where the agent mounts the root of the clone."""
STAGING = ".cloner-staging"
"""Folder of the ESP that is bound over the ESP's mount point until commit; its children are renamed up then."""


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"):
    """Base of what a step can do; the subclasses are the closed set `AnyAction`."""


class Command(Action, frozen=True, tag="command"):
    """One program run with its standard input; argv[0] is a bare name looked up in PATH."""

    argv: tuple[str, ...]
    stdin: str = ""
    timeout_s: int = 60


class Guard(Action, frozen=True, tag="guard"):
    """Look at all other disks once more: none may carry one of these identifiers (`plan.foreign_identifiers`)."""

    identifiers: tuple[str, ...]  # UUIDs as blkid prints them
    disks: tuple[str, ...]  # device paths of the chosen disks, which may


class StopHolders(Action, frozen=True, tag="stop-holders"):
    """Release one disk: swap off, unmount, stop arrays, volume groups and mappings on it. Writes nothing."""

    disk: str


class BiosStub(Action, frozen=True, tag="bios-stub"):
    """Put code into a disk's first sector that has BIOS go on to the network, where an empty one would hang it."""

    disk: str


class LuksFormat(Action, frozen=True, tag="luks-format"):
    """Make a LUKS2 container with a key drawn on the node, and open it; the key is in no plan and no log."""

    device: str
    name: str  # of the mapping
    uuid: str
    sector_bytes: int  # of the encryption
    offset_bytes: int  # where data begins


class LuksKeys(Action, frozen=True, tag="luks-keys"):
    """Put the keys a clone has in place of the one its container was made with, which opens it no more.

    With "tpm2" the TPM of this machine and the node's recovery key, with "passphrase" the recovery key alone.
    """

    device: str
    name: str  # of the mapping
    uuid: str
    way: Literal["tpm2", "passphrase", "random"]
    pcrs: tuple[int, ...] = ()


class Opened(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A container that the initramfs opens."""

    name: str  # of the mapping
    uuid: str
    way: Literal["tpm2", "passphrase", "random"]


class OpenAtBoot(Action, frozen=True, tag="open-at-boot"):
    """Have each initramfs of the image open these containers (`unlocking`)."""

    containers: tuple[Opened, ...]


class Mount(Action, frozen=True, tag="mount"):
    """Mount a new filesystem beneath TARGET; the mount point is made if missing."""

    device: str
    filesystem: str  # "ext4", "vfat"
    where: str  # path in the clone
    options: str = ""  # of mount(8), for the time of the deploy only


class StageEsp(Action, frozen=True, tag="stage-esp"):
    """Make the folder STAGING on the mounted ESP and bind it over the ESP, so that nothing written yet can boot."""

    where: str


class Restore(Action, frozen=True, tag="restore"):
    """Fill the mounted tree with the version's files, each pack verified before it is written."""

    version_digest: str
    esp: str = ""  # mount point that keeps path and bytes only; "" when the layout has none


class ReadBack(Action, frozen=True, tag="read-back"):
    """Sync, drop caches, read every file again and compare with the tree."""

    version_digest: str


class Identity(Action, frozen=True, tag="identity"):
    """Write the node's own identity (`identity.identity_files`)."""

    hostname: str


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An identifier the image may still name, and the one made instead."""

    old: str
    new: str


class Rewrite(Action, frozen=True, tag="rewrite"):
    """Replace identifiers in the closed list of files (`references.REWRITTEN_FILES`), and make fstab agree."""

    references: tuple[Reference, ...] = ()


class MakeSwapFile(Action, frozen=True, tag="swap-file"):
    """Make a swap file in the clone."""

    path: str
    size_bytes: int
    filesystem: str  # that it lies on: "btrfs" wants it without copy-on-write
    uuid: str


class BootFiles(Action, frozen=True, tag="boot-files"):
    """Put loaders and their configuration on the (staged) ESP (`bootfiles.boot_files`)."""

    esp: str  # mount point; "" when BIOS starts the machine
    root_uuid: str  # of the filesystem at /
    boot_uuid: str  # of the filesystem that holds /boot
    boot_path: str  # of /boot in it: "" when it is mounted there, "/boot" on the root, "/@/boot" in a subvolume
    root: str  # what root= says: "UUID=…", "/dev/mapper/vg0-root"
    kernel_arguments: tuple[str, ...] = ()
    root_part_uuid: str = ""  # for a kernel without initramfs; "" when / is not a partition
    root_flags: str = ""  # what rootflags= says: "subvol=@"
    dracut_arguments: tuple[str, ...] = ()  # kernel arguments of an image whose initramfs dracut makes


class CheckInitramfs(Action, frozen=True, tag="initramfs"):
    """See that the clone's initramfs has what drives this machine and this layout; make it anew where it has not."""


class RunScript(Action, frozen=True, tag="script"):
    """Run one script of the image: a pre-script here in the initramfs, a post-script confined in the clone."""

    type: ScriptType
    name: str
    digest: str  # BLAKE3 (hex) of its content, which the task carries
    timeout_s: int
    on_failure: OnFailure


class Check(Action, frozen=True, tag="check"):
    """Verify identity and bootability of the finished tree."""


class Commit(Action, frozen=True, tag="commit"):
    """Ask the server; only the current attempt of a live task is granted."""


class ActivateEsp(Action, frozen=True, tag="activate-esp"):
    """Unbind the staging folder, rename its children into the ESP's root, sync, read back: now the disk can boot.

    Copies of the ESP are filled before it, so that no disk boots while another could not.
    """

    where: str
    copies: tuple[str, ...] = ()  # devices


class BiosPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where GRUB's core image goes on a disk that BIOS may start."""

    disk: str
    first_sector: int  # of 512 bytes
    sectors: int  # that there is room for


class BiosBoot(Action, frozen=True, tag="bios-boot"):
    """Write the core image that `BootFiles` had made to each disk, read it back, then the boot code: now they boot."""

    places: tuple[BiosPlace, ...]


class EspPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ESP as an HD() device path node names it."""

    partition: int  # from 1
    part_uuid: str
    start_sectors: int  # logical sectors
    size_sectors: int


class Nvram(Action, frozen=True, tag="nvram"):
    """Write boot entry, then order, for the loader that `BootFiles` placed; remove stale entries; read back."""

    esp: str
    partition: int  # from 1
    part_uuid: str
    start_sectors: int  # logical sectors, as an HD() device path node holds them
    size_sectors: int
    description: str
    boot_order: Literal["network-first", "local-first"]
    copies: tuple[EspPlace, ...] = ()  # of the ESP, each with an entry of its own, behind that of the first


class SendReceipt(Action, frozen=True, tag="receipt"):
    """Tell the server what was done until it is acknowledged."""


class Reboot(Action, frozen=True, tag="reboot"):
    """Set BootNext to our entry where the firmware has one, unmount, sync, reboot."""


AnyAction = (
    Command
    | Guard
    | StopHolders
    | BiosStub
    | LuksFormat
    | LuksKeys
    | OpenAtBoot
    | Mount
    | StageEsp
    | Restore
    | ReadBack
    | Identity
    | Rewrite
    | MakeSwapFile
    | BootFiles
    | CheckInitramfs
    | RunScript
    | Check
    | Commit
    | ActivateEsp
    | BiosBoot
    | Nvram
    | SendReceipt
    | Reboot
)


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One action of a plan with its reason; holds no handles."""

    stage: Stage
    why: str  # "format root (ext4)"; shown as progress
    action: AnyAction
    destroys: str = ""  # device whose old content is lost; "" when none


def target_path(where: str) -> str:
    """Return the path of the clone's `where` as the agent sees it before any image file exists."""
    return TARGET if where == "/" else f"{TARGET}{where}"


def wording(action: AnyAction) -> str:  # noqa: PLR0911, PLR0912 — one line for each of a closed set
    """Return what is run, ready to paste where it is a command; otherwise one line in words."""
    match action:
        case Command(argv=argv, stdin=stdin):
            line = shlex.join(argv)
            return f"{line} <<'END'\n{stdin.rstrip()}\nEND" if stdin else line
        case Guard(identifiers=identifiers, disks=disks):
            return f"# refuse if a disk other than {', '.join(disks)} carries one of: {' '.join(identifiers)}"
        case StopHolders(disk=disk):
            return f"# stop swap, mounts, arrays and volume groups on {disk}"
        case LuksFormat():
            argv = ("cryptsetup", "luksFormat", "--type", "luks2", "--uuid", action.uuid, action.device)
            opened = ("cryptsetup", "open", action.device, action.name)
            return f"# with a key drawn on the node:\n{shlex.join(argv)}\n{shlex.join(opened)}"
        case LuksKeys():
            by_tpm = "" if action.way != "tpm2" else f" a key sealed in the TPM{_registers(action.pcrs)} and"
            return f"# {action.device} gets{by_tpm} the node's recovery key; the key it was made with is destroyed"
        case OpenAtBoot(containers=containers):
            names = ", ".join(f"{one.name} (UUID {one.uuid}, {one.way})" for one in containers)
            return f"# the initramfs opens {names}"
        case MakeSwapFile():
            return f"# make {action.path} in the clone, {action.size_bytes} bytes of swap, UUID {action.uuid}"
        case Mount():
            options = ("-o", action.options) if action.options else ()
            argv = ("mount", "-t", action.filesystem, *options, action.device, target_path(action.where))
            return f"{shlex.join(('mkdir', '-p', target_path(action.where)))}\n{shlex.join(argv)}"
        case StageEsp(where=where):
            folder, over = f"{target_path(where)}/{STAGING}", target_path(where)
            return f"{shlex.join(('mkdir', folder))}\n{shlex.join(('mount', '--bind', folder, over))}"
        case Restore(version_digest=digest):
            return f"# restore version {digest} into {TARGET}"
        case ReadBack(version_digest=digest):
            return f"# sync, drop caches, read {TARGET} back and compare with version {digest}"
        case Identity(hostname=hostname):
            return f"# write the identity of {hostname} from the server's vault"
        case Rewrite(references=references):
            pairs = "".join(f"\n#   {r.old} -> {r.new}" for r in references)
            return "# rewrite references; /etc/fstab names the new filesystems" + pairs
        case BiosStub(disk=disk):
            return f"# have BIOS go on to the network from {disk}, until the commit"
        case BiosBoot(places=places):
            told = "".join(f"\n#   {one.disk}: core image from sector {one.first_sector} on" for one in places)
            return f"# write core images and read them back, then the boot code:{told}"
        case BootFiles():
            more = f", rootflags={action.root_flags}" if action.root_flags else ""
            more += f", /boot is {action.boot_path or '/'} of UUID={action.boot_uuid}"
            more += f", kernel arguments: {' '.join(action.kernel_arguments)}" if action.kernel_arguments else ""
            more += f", for dracut: {' '.join(action.dracut_arguments)}" if action.dracut_arguments else ""
            what = f"loaders on the staged {action.esp}" if action.esp else "GRUB for BIOS in the clone"
            return f"# place {what}, root={action.root}{more}"
        case CheckInitramfs():
            return "# look for this machine's drivers in the initramfs; make it anew, confined, where they are missing"
        case RunScript():
            where = "here in the initramfs" if action.type is ScriptType.PRE else "confined in the clone"
            then = "ends the deploy" if action.on_failure is OnFailure.FAIL else "is noted"
            what = f"# run the {action.type}-script '{action.name}' ({action.digest}) {where}"
            return f"{what}, for at most {action.timeout_s} s; a failure {then}"
        case Check():
            return "# check identity and bootability"
        case Commit():
            return "# ask the server for leave to commit"
        case ActivateEsp(where=where, copies=copies):
            first = f"# copy what is staged to {', '.join(copies)}\n" if copies else ""
            return f"{first}# rename the staged children into {target_path(where)}, sync, read back"
        case Nvram():
            place = f"HD({action.partition},GPT,{action.part_uuid},{action.start_sectors},{action.size_sectors})"
            more = "".join(f", and for HD({one.partition},GPT,{one.part_uuid})" for one in action.copies)
            return f"# write boot entry '{action.description}' for {place}{more}, {action.boot_order}"
        case SendReceipt():
            return "# send the receipt until the server acknowledges it"
        case Reboot():
            return "# set BootNext to the new entry, unmount, sync, reboot"


def _registers(pcrs: tuple[int, ...]) -> str:
    return f", for as long as its registers {', '.join(map(str, pcrs))} are as they are now," if pcrs else ""
