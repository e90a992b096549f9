"""What a node boots to become the agent's: kernel and initramfs, put together once at the start of the server.

The layers *base* and *drivers* come from a directory (`python -m cloner_initramfs --out DIR`); the *site* layer is made
here from our CA and key. Kernel and initramfs are named by digest, so an old boot script never gets a new half.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from cloner_core.errors import NotFoundError
from cloner_core.messages import PROTOCOL
from cloner_initramfs import Layer, build_site_layer, concatenate, needed_memory_bytes
from cloner_server.site import Site

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Installer:
    """The files a boot script names, and the memory they need."""

    kernel: Path
    kernel_key: str
    initramfs: Path
    initramfs_key: str
    memory_bytes: int


def assemble(directory: Path, site: Site, into: Path) -> Installer:
    """Write the initramfs for this site beneath `into`; raises NotFoundError naming every part that is missing."""
    wanted = {"vmlinuz": directory / "vmlinuz", "base.cpio.zst": directory / "base.cpio.zst"}
    drivers = sorted(directory.glob("drivers*.cpio.zst"))
    missing = [name for name, path in wanted.items() if not path.is_file()]
    missing += [] if len(drivers) == 1 else [f"exactly one drivers*.cpio.zst ({len(drivers)} seen)"]
    if missing:
        raise NotFoundError(
            f"{directory} is not an installer; wanted: {', '.join(missing)}",
            hint=f"python -m cloner_initramfs --out {directory}",
        )
    layers = [_layer(wanted["base.cpio.zst"]), _layer(drivers[0])]
    site_layer = build_site_layer(site.ca_pem, {"protocol": PROTOCOL, "server_key": site.public_key.hex()})
    key = _short_digest([*(layer.path for layer in layers)], site_layer)
    initramfs = into / f"initramfs-{key}"
    if not initramfs.is_file():
        for old in into.glob("*initramfs-*"):
            old.unlink()
        concatenate([*layers, site_layer], initramfs)
    return Installer(
        kernel=wanted["vmlinuz"],
        kernel_key=_short_digest([wanted["vmlinuz"]]),
        initramfs=initramfs,
        initramfs_key=key,
        memory_bytes=needed_memory_bytes(layers, more_unpacked_bytes=len(site_layer) * 4),
    )


def _layer(path: Path) -> Layer:
    unpacked = 0
    with zstd.open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            unpacked += len(block)
    return Layer(path.name, path, "", path.stat().st_size, unpacked)


def _short_digest(paths: list[Path], more: bytes = b"") -> str:
    hasher = blake3(more)
    for path in paths:
        hasher.update_mmap(path)
    return hasher.hexdigest(8)
