"""An installer directory: the kernel and the layers that nodes netboot into, with a manifest that names them.

Written by `cloner initramfs build`, read by the server. The site's layer is not in it: the server makes that one.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
from blake3 import blake3

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError, NotFoundError
from cloner_initramfs.base import build_base
from cloner_initramfs.cache import Cache
from cloner_initramfs.drivers import build_drivers
from cloner_initramfs.layer import Layer
from cloner_initramfs.memory import needed_memory_bytes

MANIFEST = "installer.json"
KERNEL = "vmlinuz"


class LayerFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One layer as the manifest names it; its file is `<name>.cpio.zst`."""

    name: str
    digest: str  # BLAKE3 of the file, 64 hex digits
    size_bytes: int
    unpacked_bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an installer directory holds."""

    release: str  # of the kernel
    kernel_digest: str
    needed_memory_bytes: int  # without the site's layer, which is a few KiB
    layers: tuple[LayerFacts, ...]  # in the order of unpacking


@dataclass(frozen=True, slots=True)
class InstallerFiles:
    """An installer directory that was read and found whole."""

    manifest: Manifest
    kernel: Path
    layers: tuple[Layer, ...]


def write_installer(cache: Cache, out: Path, *, flavour: str) -> Manifest:
    """Build what the cache lacks and put kernel, layers and manifest into `out`; the manifest is written last.

    Raises ClonerError when a part cannot be built.
    """
    base = build_base(cache)
    drivers = build_drivers(cache, flavour)
    layers = (base, drivers.layer)
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    for layer in layers:
        shutil.copyfile(layer.path, out / _file_name(layer.name))
    shutil.copyfile(drivers.kernel, out / KERNEL)
    manifest = Manifest(
        release=drivers.release,
        kernel_digest=_digest(out / KERNEL),
        needed_memory_bytes=needed_memory_bytes(layers),
        layers=tuple(LayerFacts(one.name, one.digest, one.size_bytes, one.unpacked_bytes) for one in layers),
    )
    half = out / f".{MANIFEST}"
    half.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    os.replace(half, out / MANIFEST)
    return manifest


def read_installer(directory: Path) -> InstallerFiles:
    """Return the files of an installer directory, every digest checked.

    Raises NotFoundError when it has no manifest or lacks a file, IntegrityError when a file is not what it names.
    """
    hint = f"cloner initramfs build --out {directory}"
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise NotFoundError(f"{directory} is not an installer: it has no {MANIFEST}", hint=hint) from error
    except UNREADABLE as error:
        raise IntegrityError(f"{directory / MANIFEST} cannot be read: {error}", hint=hint) from error
    named = {KERNEL: manifest.kernel_digest} | {_file_name(one.name): one.digest for one in manifest.layers}
    if missing := [name for name in named if not (directory / name).is_file()]:
        raise NotFoundError(f"{directory} is not an installer: it lacks {', '.join(missing)}", hint=hint)
    if changed := [name for name, digest in named.items() if _digest(directory / name) != digest]:
        raise IntegrityError(f"{directory}: {', '.join(changed)} changed since the installer was built", hint=hint)
    layers = tuple(
        Layer(one.name, directory / _file_name(one.name), one.digest, one.size_bytes, one.unpacked_bytes)
        for one in manifest.layers
    )
    return InstallerFiles(manifest, directory / KERNEL, layers)


def _file_name(layer: str) -> str:
    return f"{layer}.cpio.zst"


def _digest(path: Path) -> str:
    return blake3().update_mmap(path).hexdigest()
