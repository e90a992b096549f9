"""The files of installers made from nodes: put in parts, checked, and put together with what this server adds.

Kernel and drivers come from a node; the userland (*base*) is that of the installer in the settings, the *site* layer is
ours. Parts are named by their digest. Must not know who boots what; `cloner_server.state.installers` does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from cloner_core.admin.installers import InstallerBuild, InstallerSpec
from cloner_core.errors import ClonerError, IntegrityError, InvalidError, RefusedError
from cloner_core.initrd import InitrdError, read_initrd
from cloner_initramfs import Layer, concatenate, read_installer
from cloner_initramfs.memory import KERNEL_BYTES
from cloner_server.durable import sync_directory
from cloner_server.export.manifest import INSTALLERS
from cloner_server.installer import Installer, needed_by, short_key, site_layer
from cloner_server.reserve import require_room
from cloner_server.site import Site

log = logging.getLogger(__name__)

MOST_PART_BYTES = 1 << 30
_GRACE_S = 86400.0  # a node may fetch what it was offered; a put comes long after its parts
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PIECE_BYTES = 1 << 20
_INODE_BYTES = 1024 + 4096  # of each file in a tmpfs: itself, and its last page
_BZIMAGE = 0x202, b"HdrS"


class PartFile:
    """A part that is coming in, under a name that nobody asks for until it is whole; no two of them share one.

    A kill leaves what had come; `Shelf.sweep` takes it away when a day has passed.
    """

    def __init__(self, path: Path, reserve_bytes: int = 0) -> None:
        """Make the file beside `path`, which is named by the digest; `reserve_bytes` of its filesystem stay free."""
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        self._file = open(self._fresh, "xb")  # noqa: SIM115 — for several calls; `drop` closes it
        self._hash = blake3()

    def write(self, piece: bytes | bytearray) -> None:
        """Add the next bytes; raises StoreFullError."""
        require_room(self._path.parent, "a part of an installer", len(piece), self._reserve_bytes)
        self._file.write(piece)
        self._hash.update(piece)

    def keep(self) -> None:
        """Have the part under its digest, on the disk; raises IntegrityError unless it has that digest."""
        wanted, found = self._path.name, self._hash.hexdigest()
        if found != wanted:
            raise IntegrityError(f"the part is {found[:12]}…, not {wanted[:12]}… as it was named: send it again")
        self._file.flush()
        os.fchmod(self._file.fileno(), 0o644)  # whatever the umask is
        os.fsync(self._file.fileno())
        self._fresh.rename(self._path)
        sync_directory(self._path.parent)

    def drop(self) -> None:
        """Close the file, and take away what was not kept."""
        with contextlib.suppress(OSError):  # what is buffered finds no room
            self._file.close()
        self._fresh.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Parts on disk, and the installers put together of them; safe for several threads."""

    parts: Path
    boot: Path  # where initramfs files are put together
    base: Layer
    ours: bytes  # the site layer
    base_release: str  # kernel of the installer in the settings
    reserve_bytes: int = 0  # of the filesystem, which what is put leaves free
    _made: dict[tuple[str, str], Installer] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open_part(self, digest: str) -> PartFile:
        """Return the file that a part of this digest is written to; raises InvalidError for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidError(f"'{digest[:80]}' is no digest: want 64 hexadecimal digits")
        self.parts.mkdir(exist_ok=True)
        return PartFile(self.parts / digest, self.reserve_bytes)

    def build(self, spec: InstallerSpec, author: str, now_s: float) -> InstallerBuild:
        """Return what the parts of `spec` make; raises InvalidError with every fault when they boot none."""
        lacking = [digest for digest in (spec.kernel, spec.drivers) if not (self.parts / digest).is_file()]
        if lacking:
            raise InvalidError("parts of the installer were not put", faults=lacking)
        faults = [] if _is_kernel(self.parts / spec.kernel) else ["kernel: it is no Linux kernel of a PC (bzImage)"]
        modules, unpacked_bytes = 0, 0
        try:
            found = read_initrd(_pieces(self.parts / spec.drivers))
            home = f"usr/lib/modules/{spec.release}/"
            if stray := sorted(one for one in found.files if not one.startswith((home, "usr/lib/firmware/"))):
                faults.append(f"drivers: {stray[0]} is neither a module of {spec.release} nor firmware")
            if f"{home}modules.dep" not in found.files:
                faults.append(f"drivers: there is no {home}modules.dep")
            modules = len(found.modules(spec.release))
            unpacked_bytes = found.raw_bytes + _INODE_BYTES * len(found.files)
        except InitrdError as fault:
            faults.append(f"drivers: {fault.message}")
        if faults:
            raise InvalidError("the installer cannot be", faults=faults)
        return InstallerBuild(
            release=spec.release,
            kernel=spec.kernel,
            kernel_bytes=(self.parts / spec.kernel).stat().st_size,
            drivers=spec.drivers,
            drivers_bytes=(self.parts / spec.drivers).stat().st_size,
            unpacked_bytes=unpacked_bytes,
            modules=modules,
            source=spec.source,
            author=author,
            made_s=now_s,
        )

    def require_room(self, build: InstallerBuild) -> None:
        """Raise StoreFullError when to put `build` together, unless it is, would not leave the reserve free."""
        if not self._initramfs(build).is_file():
            wanted = self.base.size_bytes + build.drivers_bytes + len(self.ours)
            require_room(self.parts, "an installer", wanted, self.reserve_bytes)

    def installer(self, build: InstallerBuild) -> Installer:
        """Return the files that a boot script names, put together now unless they are; raises RefusedError."""
        with self._lock:
            key = build.kernel, build.drivers
            if key not in self._made or not self._made[key].initramfs.is_file():
                self._made[key] = self._assemble(build)
            return self._made[key]

    def needed_bytes(self, build: InstallerBuild) -> int:
        """Return the memory, as a node tells it, in which the initramfs of `build` unpacks and the agent works."""
        return needed_by((self.base, self._layer(build)), self.ours) - KERNEL_BYTES

    def ready(self, builds: Collection[InstallerBuild]) -> None:
        """Put every installer together, and take away what none of `builds` needs and nobody touched for a day."""
        for build in builds:
            try:
                self.installer(build)
            except (ClonerError, OSError) as fault:  # others are offered all the same; this one is tried when asked for
                log.error("the installer of kernel %s cannot be offered: %s", build.release, fault)
        self.sweep(builds)

    def sweep(self, builds: Collection[InstallerBuild]) -> None:
        """Take away parts and initramfs files that none of `builds` needs and nobody touched for a day."""
        kept = {digest for build in builds for digest in (build.kernel, build.drivers)}
        kept |= {made.initramfs.name for key, made in self._made.items() if set(key) <= kept}
        for path in (*self.parts.glob("*"), *self.boot.glob("node-initramfs-*")):
            with contextlib.suppress(FileNotFoundError):
                if path.name not in kept and time.time() - path.stat().st_mtime > _GRACE_S:
                    path.unlink()

    def touch(self, builds: Collection[InstallerBuild]) -> None:
        """Have the day of `sweep` begin now for the files of `builds`: a node may hold a script that names them."""
        for build in builds:
            for path in (self.parts / build.kernel, self.parts / build.drivers, self._initramfs(build)):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)

    def file_of(self, kind: str, key: str) -> Path | None:
        """Return the file that a boot script names by `key`; None when it is none of ours, or no longer there."""
        for made in tuple(self._made.values()):
            if (kind, key) == ("kernel", made.kernel_key):
                return made.kernel
            if (kind, key) == ("initramfs", made.initramfs_key):
                return made.initramfs
        return None

    def _layer(self, build: InstallerBuild) -> Layer:
        return Layer("drivers", self.parts / build.drivers, build.drivers, build.drivers_bytes, build.unpacked_bytes)

    def _initramfs_key(self, build: InstallerBuild) -> str:
        return short_key(self.base.digest, build.drivers, self.ours.hex())

    def _initramfs(self, build: InstallerBuild) -> Path:
        return self.boot / f"node-initramfs-{self._initramfs_key(build)}"

    def _assemble(self, build: InstallerBuild) -> Installer:
        kernel, drivers = self.parts / build.kernel, self._layer(build)
        if missing := [path.name[:12] for path in (kernel, drivers.path) if not path.is_file()]:
            raise RefusedError(
                f"parts of the installer of kernel {build.release} are missing: {', '.join(missing)}",
                hint="make it again: cloner make-installer --overwrite on the node",
            )
        initramfs = self._initramfs(build)
        if not initramfs.is_file():
            concatenate([self.base, drivers, self.ours], initramfs)
        return Installer(
            kernel=kernel,
            kernel_key=short_key(build.kernel),
            initramfs=initramfs,
            initramfs_key=self._initramfs_key(build),
            memory_bytes=self.needed_bytes(build) + KERNEL_BYTES,
            release=build.release,
        )


def open_shelf(directory: Path, site: Site, state: Path, reserve_bytes: int = 0) -> Shelf:
    """Return the shelf whose userland is that of the installer in `directory`; raises as `read_installer` does."""
    files = read_installer(directory)
    return Shelf(
        parts=state / INSTALLERS,
        boot=state / "boot",
        base=next(layer for layer in files.layers if layer.name == "base"),
        ours=site_layer(site),
        base_release=files.manifest.release,
        reserve_bytes=reserve_bytes,
    )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(_PIECE_BYTES), b"")


def _is_kernel(path: Path) -> bool:
    """Whether it has the header of a bzImage. Source: kernel, Documentation/arch/x86/boot.rst."""
    place, sign = _BZIMAGE
    with path.open("rb") as file:
        file.seek(place)
        return file.read(len(sign)) == sign
