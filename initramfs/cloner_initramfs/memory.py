"""How much memory a node needs to start these layers; asked before they are offered.

The kernel truncates an initramfs that does not fit in silence and breaks later, so the server must know beforehand.
Source: kernel, fs/ramfs and mm/shmem.c (a tmpfs holds half of the memory); init/initramfs.c ("write error").
"""

from __future__ import annotations

from collections.abc import Sequence

from cloner_initramfs.layer import Layer

MIB = 1 << 20
# Kernel text, page tables and reserved regions: what "MemTotal" lacks of the machine's size, rounded up.
KERNEL_BYTES = 64 * MIB
# UEFI's own memory is given back only after the initramfs was unpacked, so the tmpfs is half of what is left.
# Measured with OVMF: 85 MiB (docs/boot-walkthrough.md).
FIRMWARE_BYTES = 96 * MIB
# The agent with its worker processes and one pack each in flight.
AGENT_BYTES = 128 * MIB


def needed_memory_bytes(layers: Sequence[Layer], *, more_unpacked_bytes: int = 0) -> int:
    """Return the memory a node needs, in bytes: the larger of what unpacking and what running takes.

    `more_unpacked_bytes` is for layers that are not on disk, such as the site's. The stored layers count twice:
    the loader's copy is still there when the kernel's own is unpacked.
    """
    unpacked = sum(layer.unpacked_bytes for layer in layers) + more_unpacked_bytes
    stored = sum(layer.size_bytes for layer in layers)
    unpacking = 2 * unpacked + 2 * stored + FIRMWARE_BYTES
    running = unpacked + AGENT_BYTES
    return max(unpacking, running) + KERNEL_BYTES
