"""Looks into the disk of a machine that is off: partition table, ext4 read-only, ESP by mtools.

Foreign tools only, so that what Cloner wrote is judged by others' code. Nothing is changed: an ext4 that was not
unmounted is read without replaying its journal, or from a copy.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmlab import host
from vmlab.disk import Disk
from vmlab.errors import LabError


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; bytes, not sectors."""

    number: int
    start_bytes: int
    size_bytes: int
    kind: str  # GPT type GUID, upper case
    uuid: str  # PARTUUID, lower case
    name: str


@contextlib.contextmanager
def attached(disk: Disk) -> Iterator[str]:
    """Give the disk as a read-only loop device with its own sector size."""
    device = host.run(
        ["losetup", "--find", "--show", "--read-only", "--sector-size", str(disk.sector_bytes), disk.path]
    ).strip()
    try:
        yield device
    finally:
        host.run(["losetup", "--detach", device])


def partitions(disk: Disk) -> list[Partition]:
    """Return the partitions in order of their numbers; raises LabError when the disk has no table."""
    with attached(disk) as device:
        table = json.loads(host.run(["sfdisk", "--json", device]))["partitiontable"]
    sector = int(table.get("sectorsize", disk.sector_bytes))
    return [
        Partition(
            number=int(one["node"].removeprefix(device).lstrip("p")),
            start_bytes=one["start"] * sector,
            size_bytes=one["size"] * sector,
            kind=str(one["type"]).upper(),
            uuid=str(one.get("uuid", "")).lower(),
            name=str(one.get("name", "")),
        )
        for one in sorted(table.get("partitions", []), key=lambda one: int(one["start"]))
    ]


def partition(disk: Disk, number: int) -> Partition:
    """Return one partition by its number; raises LabError when there is none."""
    for one in partitions(disk):
        if one.number == number:
            return one
    raise LabError(f"{disk.path} has no partition {number}")


@contextlib.contextmanager
def mounted(disk: Disk, number: int) -> Iterator[Path]:
    """Give the ext4 of a partition mounted read-only; unmounted at the end."""
    where = partition(disk, number)
    options = f"loop,ro,noload,offset={where.start_bytes},sizelimit={where.size_bytes}"
    folder = Path(tempfile.mkdtemp(prefix="vmlab-mount-"))
    try:
        host.run(["mount", "--types", "ext4", "--options", options, disk.path, folder])
        try:
            yield folder
        finally:
            host.run(["umount", folder])
    finally:
        folder.rmdir()


@contextlib.contextmanager
def repaired(disk: Disk, number: int) -> Iterator[Path]:
    """Give the ext4 of a partition as a system finds it after the power was lost: checked, its journal replayed.

    Works on a copy. Raises LabError when the check finds more than a journal puts right.
    """
    where = partition(disk, number)
    with tempfile.TemporaryDirectory(prefix="vmlab-repaired-", dir=disk.path.parent) as folder:
        copy, mount = Path(folder) / "copy", Path(folder) / "mount"
        mount.mkdir()
        host.run(["cp", "--sparse=always", disk.path, copy])
        window = ["--offset", str(where.start_bytes), "--sizelimit", str(where.size_bytes)]
        device = host.run(["losetup", "--find", "--show", *window, copy]).strip()
        try:
            # Not by mounting it: whoever makes a mount namespace meanwhile keeps the filesystem alive.
            host.run(["sh", "-c", 'e2fsck -f -p "$0"; test $? -le 1', device])
            host.run(["e2fsck", "-f", "-n", device])
            host.run(["mount", "--types", "ext4", "--options", "ro", device, mount])
            try:
                yield mount
            finally:
                host.run(["umount", mount])
        finally:
            host.run(["losetup", "--detach", device])


def filesystem(disk: Disk, number: int) -> dict[str, str]:
    """Return what blkid finds on a partition, such as TYPE, UUID and LABEL."""
    where = partition(disk, number)
    probe = ["blkid", "--probe", "--output", "export", "--offset", str(where.start_bytes)]
    lines = host.run([*probe, "--size", str(where.size_bytes), disk.path]).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def esp_files(disk: Disk, number: int = 1) -> dict[str, bytes]:
    """Return all files of a FAT partition by path, such as `EFI/BOOT/BOOTX64.EFI`; names as they are written."""
    where = partition(disk, number)
    with tempfile.TemporaryDirectory(prefix="vmlab-esp-") as folder:
        source = f"{disk.path}@@{where.start_bytes}"
        # -s whole folders, -p keeps nothing it cannot, -n never asks; an empty file system is no error.
        environment = dict(os.environ, MTOOLS_SKIP_CHECK="1")
        words = [f"MTOOLS_SKIP_CHECK={environment['MTOOLS_SKIP_CHECK']}", "mcopy", "-s", "-n", "-i", source, "::"]
        host.run(["env", *words, folder], check=False)
        root = Path(folder)
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
