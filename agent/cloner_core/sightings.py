"""What the network saw of a machine between two words of its own, and what that says about a boot that went wrong.

Pure. Every sighting was said by whoever spoke for the machine and proves nothing: it explains a failure, and never
decides what a machine gets.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum

from cloner_core.messages import Strict


class BootStep(StrEnum):
    """The steps of a boot that the server can see, in their order."""

    DHCP_FIRMWARE = "dhcp-firmware"
    LOADER = "loader"
    DHCP_IPXE = "dhcp-ipxe"
    SCRIPT = "script"  # any but the way on to the disk
    KERNEL = "kernel"
    INITRAMFS = "initramfs"
    LOCAL = "local"  # the script that leads to the disk
    DHCP_SYSTEM = "dhcp-system"  # an operating system, or the agent's: no boot client


class Sighting(Strict, frozen=True):
    """The last time one step was seen of a node."""

    step: BootStep
    time_s: float
    address: str = ""  # of the machine; "" not known


class Verdict(Strict, frozen=True):
    """What a person is told."""

    message: str
    hint: str


_AFTER_SCRIPT: dict[BootStep, Verdict] = {
    BootStep.SCRIPT: Verdict(
        "the script was the last thing it fetched: it never asked for the kernel",
        "look at its console: iPXE cannot load from the HTTP port of this server, or the machine was switched off",
    ),
    BootStep.KERNEL: Verdict(
        "the kernel was the last thing it asked for: it never asked for the initramfs",
        "look at its console: the transfer broke off, or the machine has too little memory",
    ),
    BootStep.INITRAMFS: Verdict(
        "the initramfs was the last thing it asked for",
        "look at its console: the transfer broke off, the kernel does not start, or it has no driver for the network"
        " card (build the initramfs with --drivers full)",
    ),
    BootStep.DHCP_SYSTEM: Verdict(
        "its kernel runs and asked for an address, and no agent said hello",
        "look at its console and for 'claim refused' in 'cloner events'; is the TLS port of this server reachable?",
    ),
}


def boot_verdict(seen: Iterable[Sighting], since_s: float, scripts: int) -> Verdict:
    """Return why a machine that fetched its boot script `scripts` times since `since_s` never said hello.

    The last step reached is the furthest, not the newest: a machine that starts over is told by what it never did.
    """
    reached = {one.step for one in seen if one.time_s >= since_s}
    last = next((step for step in reversed(_AFTER_SCRIPT) if step in reached), BootStep.SCRIPT)
    found = _AFTER_SCRIPT[last]
    again = f", {scripts} times" if scripts > 1 else ""
    return Verdict(
        f"the node fetched its boot script{again}, and its agent never said hello: {found.message}", found.hint
    )


class SshAnswer(IntEnum):
    """What the SSH port of a node that should be a clone said; the greater, the more it tells."""

    SILENT = 0  # nothing answers
    REFUSED = 1  # a system answers, and has no SSH server
    NO_PROOF = 2  # something answers and does not prove that it holds a host key
    OTHER_KEY = 3  # the host key is none of this node's
    KEY = 4  # the node's host key, and not the certificate of this deploy
    CLONE = 5  # the node's host key with the certificate that only this deploy's disk holds


class Aftermath(Strict, frozen=True):
    """What was seen of a node since its agent said good-bye."""

    since_s: float
    seen: tuple[Sighting, ...]
    local_answers: int  # how often it asked for its boot script and was sent to its disk
    ssh: SshAnswer
    address: str  # that answered; "" for SILENT


_CANNOT_CALL = "the clone boots but cannot call"
_CALL_HINT = (
    "it needs no second deploy: open the way from the clone to the HTTP port of this server, and restart it; or let it"
    " confirm by SSH (cloner node set --confirm ssh)"
)
_DID_NOT = "the clone did not boot"


def clone_verdict(after: Aftermath) -> Verdict:
    """Return what became of a clone that never confirmed: it cannot call, it did not boot, or nobody knows."""
    return _by_ssh(after) or _by_the_wire(after)


def _by_ssh(after: Aftermath) -> Verdict | None:
    where = after.address
    if after.ssh is SshAnswer.KEY:
        return Verdict(
            f"{_CANNOT_CALL}: the SSH server at {where} holds the node's host key; whether it is the clone's or one of"
            " before is not told, for it shows no certificate of this deploy",
            f"compare its PARTUUID of / with the receipt's; {_CALL_HINT}",
        )
    if after.ssh is SshAnswer.OTHER_KEY:
        return Verdict(
            f"another system answers at {where}: its SSH host key is none of this node's",
            "another machine has the address, or the node booted from another disk: look at its console",
        )
    if after.ssh in (SshAnswer.REFUSED, SshAnswer.NO_PROOF):
        return Verdict(
            f"{_CANNOT_CALL}: a system answers at {where}, and its SSH server proves nothing",
            f"look at its console; {_CALL_HINT}",
        )
    return None


def _by_the_wire(after: Aftermath) -> Verdict:
    times = {one.step: one.time_s for one in after.seen if one.time_s > after.since_s}
    netted_s = max((time_s for step, time_s in times.items() if step is not BootStep.DHCP_SYSTEM), default=0.0)
    if times.get(BootStep.DHCP_SYSTEM, 0.0) > netted_s:
        return Verdict(f"{_CANNOT_CALL}: its system asked for an address, and did not call", _CALL_HINT)
    look = "look at its console, at its boot order, and at the boot entries in the receipt"
    if after.local_answers > 1:
        return Verdict(f"{_DID_NOT}: the node netbooted again {after.local_answers} times", look)
    if after.local_answers:
        return Verdict("the node was sent to its disk once more, and nothing was seen of its system since", look)
    if netted_s:
        last = max(times, key=lambda step: times[step])
        return Verdict(f"{_DID_NOT}: the node asked the network again, and came no further than {last}", look)
    return Verdict(
        "nothing was seen of the node since it restarted",
        "is it switched on? look at its console: a clone with a static address that cannot reach this server looks the"
        " same",
    )
