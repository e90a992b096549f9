"""The rule book: what a person does about each cause of a failure, and how the work begins again.

One line a cause, a better one where the stage tells more. Must not know a task: `remedy` is asked with two words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cloner_core.messages import Cause, Stage


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do, and the command that starts the work again afterwards.

    `retry` repeats the task with the version and the layout it was made with; where these must change, only a new
    `deploy` takes the new ones.
    """

    do: str
    again: Literal["retry", "deploy"] = "retry"


_RULES: dict[Cause, Remedy] = {
    Cause.PROTOCOL: Remedy("rebuild the initramfs with 'cloner initramfs build' and restart 'cloner serve'"),
    Cause.SIGNATURE: Remedy(
        "this server did not publish the image: check 'cloner image-details' and who wrote to the store; capture again",
        "deploy",
    ),
    Cause.CORRUPT: Remedy(
        "the server's store or the network alters bytes: 'cloner store check --read-data', test the server's disk and"
        " memory, restore the store or capture again"
    ),
    Cause.MISSING_PACK: Remedy("capture the image again, or restore the server's store from a backup", "deploy"),
    Cause.NO_DISK: Remedy("compare the selectors of the layout with the disks in 'cloner node facts'", "deploy"),
    Cause.AMBIGUOUS_DISK: Remedy("make the selector of the layout narrower: serial, model or size", "deploy"),
    Cause.DISK_TOO_SMALL: Remedy("choose a smaller layout or image, or a bigger disk", "deploy"),
    Cause.FIRMWARE: Remedy("set the firmware of the node to UEFI, or choose a layout for BIOS", "deploy"),
    Cause.LAYOUT: Remedy("choose a layout that goes with the disks of the node, and with the image", "deploy"),
    Cause.MEMORY: Remedy("the node needs more memory for this image"),
    Cause.TPM: Remedy(
        "switch the TPM 2.0 on in the firmware's setup (an owner password of a former system must be cleared there), or"
        " take a layout that is unlocked by passphrase",
        "deploy",
    ),
    Cause.FOREIGN_UUID: Remedy("take the other disk out, or wipe it: two disks with one identifier boot by chance"),
    Cause.PLAN_MISMATCH: Remedy(
        "agent and server differ in version or in what they see: rebuild the initramfs with 'cloner initramfs build'"
    ),
    Cause.DEVICE_BUSY: Remedy("something on the node holds the disk: look for mounts, swap, RAID, volume groups"),
    Cause.DISK_IO: Remedy("replace the disk; its SMART data and the kernel's log name the sector"),
    Cause.NO_SPACE: Remedy("the filesystem is too small for the image: make it bigger in the layout", "deploy"),
    Cause.READBACK: Remedy("the disk returned other bytes than were written: replace it, test the memory"),
    Cause.IDENTITY: Remedy(
        "look at the log of the task; the image may have unusual files in the place of identity files", "deploy"
    ),
    Cause.NOT_BOOTABLE: Remedy(
        "the image lacks what a boot needs (kernel, initramfs, signed shim, GRUB): repair the golden node, capture"
        " again",
        "deploy",
    ),
    Cause.NVRAM: Remedy(
        "the firmware did not keep what was written: delete stale boot entries in its setup, update it"
    ),
    Cause.NETWORK: Remedy("check cable, switch port and that 'cloner serve' runs"),
    Cause.REFUSED: Remedy("the server said no: 'cloner task show' has the reason"),
    Cause.UNCLEAN: Remedy(
        "start the node from its disk once and shut it down properly: the filesystem was not unmounted, and a capture"
        " at rest writes nothing"
    ),
    Cause.LOCKED: Remedy("capture the node while it runs: cloner new-image"),
    Cause.NO_METHOD: Remedy(
        "the disk cannot erase itself in that way now: where its security is frozen, have the machine sleep and wake or"
        " cut the disk's power; or erase again with another --method"
    ),
    Cause.NOT_ERASED: Remedy(
        "do not give the disk away: it is not erased; look at the log of the task, erase again with another --method,"
        " or destroy the disk"
    ),
    Cause.TOOL: Remedy("look at the log of the task for the output of the program"),
    Cause.SCRIPT: Remedy(
        "the log of the task has the output of the script: 'cloner script --get' shows it, '--set' replaces it; a"
        " retry runs the one the task was armed with",
        "deploy",
    ),
    Cause.LOST: Remedy("the machine stops talking in the middle: watch its console, check its power and its cable"),
    Cause.BOOT: Remedy(
        "the agent does not start on the machine: watch its console while it boots over the network, compare its memory"
        " and its network card with what the initramfs needs"
    ),
    Cause.BOOT_LOOP: Remedy(
        "the clone does not start: watch the machine's console; where the loader or the firmware stays before the disk,"
        " choose another 'cloner node set --local-method'; where another disk starts, set the boot order in its setup"
    ),
    Cause.UNCONFIRMED: Remedy(
        "watch the machine's console: the clone does not boot, or runs and cannot reach this server (then it needs no"
        " second deploy: its call ends the task at any time)"
    ),
    Cause.ABORTED: Remedy("nothing is broken: somebody aborted the task"),
    Cause.INTERNAL: Remedy("this is a mistake in Cloner: report it with the log of the task"),
}

_BY_STAGE: dict[tuple[Cause, Stage], Remedy] = {
    (Cause.SCRIPT, Stage.PRE_SCRIPT): Remedy(
        "a script of the image does not let this machine be deployed: its output is in the log of the task", "deploy"
    ),
    (Cause.NETWORK, Stage.HELLO): Remedy(
        "the machine has an address and does not reach the server: look for a firewall before the port of the API"
    ),
    (Cause.NO_SPACE, Stage.BOOTFILES): Remedy("the ESP is too small: make it bigger in the layout", "deploy"),
    (Cause.NO_SPACE, Stage.COMMIT): Remedy("the ESP is too small: make it bigger in the layout", "deploy"),
    (Cause.DISK_IO, Stage.PARTITION): Remedy(
        "the disk does not take or show a partition table: switch the node off and on; if it happens again, replace"
        " the disk"
    ),
    (Cause.NO_DISK, Stage.GUARD): Remedy("the disk vanished between plan and work: check its cable and its controller"),
    (Cause.NVRAM, Stage.GUARD): Remedy(
        "the kernel that the node booted reaches no EFI runtime services: take efi=noruntime from its command line, or"
        " update the firmware"
    ),
    (Cause.REFUSED, Stage.RECEIPT): Remedy(
        "what the agent wrote is not what was planned: do not boot that disk; report it with the log of the task"
    ),
    (Cause.REFUSED, Stage.COMMIT): Remedy(
        "the task ended or another attempt took its place while this one worked: 'cloner events' has who and when"
    ),
}


_ANEW = {
    "deploy": "cloner deploy --nodes",
    "erase": "cloner erase --disks … --nodes",
    "capture": "cloner capture --image … --node",
}


def remedy(cause: Cause, stage: Stage | None = None) -> Remedy:
    """Return what to do about `cause`; what is known of it in `stage` goes before."""
    known = None if stage is None else _BY_STAGE.get((cause, stage))
    return known or _RULES[cause]


def mending_line(cause: Cause, stage: Stage | None, nodes: str, kind: str = "deploy") -> str:
    """Return the one line that mends a failure of the node set `nodes`: what to do, then the command to type.

    `kind` is that of the tasks; "erase" is begun anew by `cloner erase`, "capture" by `cloner capture`.
    """
    what = remedy(cause, stage)
    command = f"{_ANEW[kind]} '{nodes}'"
    if what.again == "retry":
        command = f"cloner task retry --failed --cause {cause} --nodes '{nodes}'"
    return f"{what.do}; then: {command}"
