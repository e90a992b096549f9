"""What a node boots to become the agent's: kernel and initramfs, put together once at the start of the server.

The layers *base* and *drivers* come from a directory (`cloner initramfs build`); the *site* layer is made
here from our CA and key. Kernel and initramfs are named by digest, so an old boot script never gets a new half.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from cloner_core.messages import PROTOCOL
from cloner_initramfs import build_site_layer, concatenate, needed_memory_bytes, read_installer
from cloner_server.site import Site


@dataclass(frozen=True, slots=True)
class Installer:
    """The files a boot script names, and the memory they need."""

    kernel: Path
    kernel_key: str
    initramfs: Path
    initramfs_key: str
    memory_bytes: int


def assemble(directory: Path, site: Site, into: Path) -> Installer:
    """Write the initramfs for this site beneath `into`; raises as `read_installer` does."""
    files = read_installer(directory)
    site_layer = build_site_layer(site.ca_pem, {"protocol": PROTOCOL, "server_key": site.public_key.hex()})
    key = _short_key(*(layer.digest for layer in files.layers), site_layer.hex())
    initramfs = into / f"initramfs-{key}"
    if not initramfs.is_file():
        for old in into.glob("*initramfs-*"):
            old.unlink()
        concatenate([*files.layers, site_layer], initramfs)
    return Installer(
        kernel=files.kernel,
        kernel_key=_short_key(files.manifest.kernel_digest),
        initramfs=initramfs,
        initramfs_key=key,
        memory_bytes=needed_memory_bytes(files.layers, more_unpacked_bytes=len(site_layer) * 4),
    )


def _short_key(*parts: str) -> str:
    return blake3(" ".join(parts).encode()).hexdigest(8)
