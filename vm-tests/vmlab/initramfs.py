"""Builds what a machine netboots into, for direct boots without the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloner_initramfs import Cache, Layer, build_base, build_drivers, build_site_layer, concatenate


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
