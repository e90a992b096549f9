"""What the network saw of a machine between two words of its own, and what that says about a boot that went wrong.

Pure. Every sighting was said by whoever spoke for the machine and proves nothing: it explains a failure, and never
decides what a machine gets.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

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
