"""A kernel and a layer of drivers as a node puts them: whole in form, and nothing that could run."""

from __future__ import annotations

from pathlib import Path

import msgspec
from blake3 import blake3

from cloner_core import newc
from cloner_initramfs.installer import LayerFacts, Manifest
from cloner_initramfs.layer import compress

BASE_RELEASE = "6.1.0-built"
RELEASE = "5.14.0-70.el9.x86_64"


BASE = compress(newc.with_parents([newc.file("init", b"#!/bin/sh\n", 0o755)]))
BUILT_DRIVERS = compress(newc.with_parents([newc.file(f"usr/lib/modules/{BASE_RELEASE}/modules.dep", b"")]))


def kernel_part(text: bytes = b"kernel") -> bytes:
    """Return what has the header of a bzImage."""
    return bytes(0x202) + b"HdrS" + text * 100


def drivers_part(release: str = RELEASE, *more: newc.Entry, size_bytes: int = 1000) -> bytes:
    """Return a layer with two modules of `release`, and `more`."""
    home = f"usr/lib/modules/{release}"
    files = [
        newc.file(f"{home}/modules.dep", b"kernel/drivers/net/e1000.ko:\nkernel/drivers/nvme.ko:\n"),
        newc.file(f"{home}/modules.builtin", b"kernel/fs/ext4/ext4.ko\n"),
        newc.file(f"{home}/kernel/drivers/net/e1000.ko", b"e" * size_bytes),
        newc.file(f"{home}/kernel/drivers/nvme.ko", b"n" * 1000),
    ]
    return compress(newc.with_parents([*files, *more]))


def digest(part: bytes) -> str:
    """Return the name of a part."""
    return blake3(part).hexdigest()


def built_installer(directory: Path) -> Path:
    """Make what `cloner initramfs build` makes, in form."""
    directory.mkdir()
    parts = {"vmlinuz": b"built kernel", "base.cpio.zst": BASE, "drivers-vm.cpio.zst": BUILT_DRIVERS}
    for name, content in parts.items():
        (directory / name).write_bytes(content)
    layers = tuple(
        LayerFacts(name, digest(parts[f"{name}.cpio.zst"]), len(parts[f"{name}.cpio.zst"]), 1 << 20)
        for name in ("base", "drivers-vm")
    )
    manifest = Manifest(BASE_RELEASE, digest(parts["vmlinuz"]), 1 << 20, layers)
    (directory / "installer.json").write_bytes(msgspec.json.encode(manifest))
    return directory
