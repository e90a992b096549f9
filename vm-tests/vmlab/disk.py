"""Disks of virtual machines: sparse files, and how each is attached.

Must not look into a disk; `offline` does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from blake3 import blake3

GIB = 1 << 30
MIB = 1 << 20


class Bus(Enum):
    """What a disk hangs on."""

    VIRTIO = "virtio"
    NVME = "nvme"
    SATA = "sata"  # needs the drivers flavour `full`: the cloud kernel has no AHCI


@dataclass(frozen=True, slots=True)
class BrokenSector:
    """A sector (of 512 bytes) that every write to it, or every read of it, fails on with EIO."""

    number: int
    operation: Literal["read", "write"]

    def arguments(self, path: Path) -> str:
        """Return what stands for the source of a drive over `path`: QEMU's blkdebug, whose rules are a file beside."""
        rules = path.with_suffix(".blkdebug")
        rule = {"event": "none", "iotype": self.operation, "errno": 5, "sector": self.number, "once": "off"}
        rules.write_text("[inject-error]\n" + "".join(f'{name} = "{value}"\n' for name, value in rule.items()))
        return f"file.driver=blkdebug,file.config={rules},file.image.driver=file,file.image.filename={path}"


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of a machine."""

    path: Path
    serial: str  # at most 20 characters: virtio cuts there
    bus: Bus = Bus.VIRTIO
    sector_bytes: int = 512
    nbd: Path | None = None  # socket of the server of ours that has `path` behind it; None: QEMU opens `path` itself
    broken: BrokenSector | None = None

    def arguments(self, index: int) -> list[str]:
        """Return QEMU's arguments for this disk as number `index` (from 0) of its machine."""
        # cache=unsafe: flushes are not waited for. A killed QEMU loses nothing by that, only a killed host would.
        source = f"file={self.path},cache=unsafe"
        if self.nbd:
            # Here they are passed on, and the disk has a cache that the guest knows of.
            source = f"file=nbd+unix:///?socket={self.nbd},cache=writeback,werror=report,rerror=report"
        if self.broken:
            source = f"{self.broken.arguments(self.path)},cache.no-flush=on,werror=report,rerror=report"
        drive = f"if=none,id=disk{index},format=raw,{source},discard=unmap"
        sectors = f"logical_block_size={self.sector_bytes},physical_block_size={self.sector_bytes}"
        device = {
            Bus.VIRTIO: f"virtio-blk-pci,drive=disk{index},serial={self.serial},{sectors}",
            Bus.NVME: f"nvme,drive=disk{index},serial={self.serial},{sectors}",
            Bus.SATA: f"ide-hd,drive=disk{index},serial={self.serial},bus=ide.{index}",
        }[self.bus]
        return ["-drive", drive, "-device", device]


def blank_disk(path: Path, size_bytes: int, *, serial: str, bus: Bus = Bus.VIRTIO, sector_bytes: int = 512) -> Disk:
    """Make a disk of zeros, sparse, and return it; an older file of the name is replaced."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    os.truncate(path, size_bytes)
    return Disk(path, serial, bus, sector_bytes)


def content_digest(path: Path) -> str:
    """Return a digest of every byte of a file: of its size, and of each MiB that is not all zeros, with its place.

    Holes are zeros that need not be read, and most of a disk is.
    """
    with path.open("rb") as file:
        digest = blake3(os.fstat(file.fileno()).st_size.to_bytes(8, "big"))
        for place in _places_of_data(file.fileno()):
            content = os.pread(file.fileno(), MIB, place)
            if content != bytes(len(content)):
                digest.update(place.to_bytes(8, "big"))
                digest.update(content)
    return digest.hexdigest()


def _places_of_data(fd: int) -> Iterator[int]:
    """Give the offset of each MiB of a file that is no hole, ascending."""
    place = 0
    with contextlib.suppress(OSError):  # ENXIO: no data after that
        while True:
            place = os.lseek(fd, place, os.SEEK_DATA) // MIB * MIB
            yield place
            place += MIB


def two_cables(path: Path, *, serial: str, wwn: int) -> tuple[str, ...]:
    """Return QEMU's arguments for one SCSI disk over `path` that a machine sees twice, as over two cables."""
    arguments: list[str] = ["-device", "virtio-scsi-pci,id=cables"]
    for number in (1, 2):
        # Both open the file, so neither may lock it.
        source = f"if=none,id=cable{number},format=raw,file={path},file.locking=off,cache=unsafe"
        identity = f"scsi-id={number},serial={serial},wwn=0x{wwn:016x}"
        arguments += ["-drive", source, "-device", f"scsi-hd,drive=cable{number},bus=cables.0,{identity},share-rw=on"]
    return tuple(arguments)
