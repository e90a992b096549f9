"""What a node boots to become the agent's: kernel and initramfs, put together once at the start of the server.

The layers *base* and *drivers* come from a directory (`cloner initramfs build`); the *site* layer is made
here from our CA and key. Kernel and initramfs are named by digest, so an old boot script never gets a new half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from cloner_core.messages import PROTOCOL
from cloner_initramfs import Layer, build_site_layer, concatenate, needed_memory_bytes, read_installer
from cloner_server.site import Site


@dataclass(frozen=True, slots=True)
class Installer:
    """The files a boot script names, and the memory they need."""

    kernel: Path
    kernel_key: str
    initramfs: Path
    initramfs_key: str
    memory_bytes: int
    release: str = ""  # of the kernel; "" not known


def assemble(directory: Path, site: Site, into: Path) -> Installer:
    """Write the initramfs for this site beneath `into`; raises as `read_installer` does."""
    files = read_installer(directory)
    ours = site_layer(site)
    key = short_key(*(layer.digest for layer in files.layers), ours.hex())
    initramfs = into / f"initramfs-{key}"
    if not initramfs.is_file():
        for old in (*into.glob("initramfs-*"), *into.glob(".initramfs-*")):
            old.unlink()
        concatenate([*files.layers, ours], initramfs)
    return Installer(
        kernel=files.kernel,
        kernel_key=short_key(files.manifest.kernel_digest),
        initramfs=initramfs,
        initramfs_key=key,
        memory_bytes=needed_by(files.layers, ours),
        release=files.manifest.release,
    )


def site_layer(site: Site) -> bytes:
    """Return the layer that makes an installer ours."""
    return build_site_layer(site.ca_pem, {"protocol": PROTOCOL, "server_key": site.public_key.hex()})


def needed_by(layers: Sequence[Layer], ours: bytes) -> int:
    """Return the memory a node needs for `layers` with the site layer `ours`, in bytes."""
    return needed_memory_bytes(layers, more_unpacked_bytes=len(ours) * 4)


def short_key(*parts: str) -> str:
    """Return the key of an URL, from digests."""
    return blake3(" ".join(parts).encode()).hexdigest(8)
