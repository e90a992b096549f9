"""Builds what a machine netboots into, for direct boots without the network."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloner_initramfs import Cache, Layer, build_base, build_drivers, build_site_layer, concatenate
from vmlab.errors import LabError

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

_ZSTD = bytes.fromhex("28b52ffd")


@dataclass(frozen=True, slots=True)
class Initramfs:
    """A kernel and one file of all layers."""

    kernel: Path
    image: Path
    size_bytes: int
    layers: tuple[Layer, ...]  # without the site's
    release: str


def initramfs(
    cache: Cache,
    target: Path,
    *,
    flavour: str = "vm",
    ca_pem: bytes = b"",
    site: dict[str, object] | None = None,
    more: tuple[bytes, ...] = (),
) -> Initramfs:
    """Concatenate base, drivers, site and any further layers (as bytes) into `target`."""
    base = build_base(cache)
    drivers = build_drivers(cache, flavour)
    size = concatenate([base, drivers.layer, build_site_layer(ca_pem, site or {}), *more], target)
    return Initramfs(drivers.kernel, target, size, (base, drivers.layer), drivers.release)


def decompressed(initramfs: bytes) -> bytes:
    """Return the same archives, none of them compressed, each padded to 4 bytes.

    An emulated kernel unpacks them seconds sooner. Raises LabError for a layer that is not of zstd.
    """
    made, rest = bytearray(), initramfs
    while rest := rest.lstrip(b"\0"):
        if not rest.startswith(_ZSTD):
            raise LabError(f"a layer of an initramfs begins with {rest[:4]!r}")
        frame = zstd.ZstdDecompressor()
        made += frame.decompress(rest)
        made += bytes(-len(made) % 4)
        rest = frame.unused_data
    return bytes(made)


def probed(said: str) -> dict[str, object]:
    """Return what the probe (`cloner.probe=1`) told, by name, from all that was said on the console."""
    lines = [line.partition("cloner-probe: ")[2] for line in said.splitlines() if "cloner-probe: " in line]
    return {name: json.loads(value) for name, _, value in (line.partition("=") for line in lines)}
