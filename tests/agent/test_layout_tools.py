"""The programs that plans name take what they are given, on files and loop devices of this machine's own kernel.

Arrays and volume groups need kernels with md and device mapper: machines of the lab have them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloner_agent.host import run
from cloner_core.plan import Contents, PlannedDisk, PlannedVolume
from cloner_core.plan.filesystems import least_bytes, mkfs_command, usable_bytes
from cloner_core.plan.tables import sfdisk_script
from cloner_core.sizes import GIB, MIB
from core.test_golden_layouts import NAMES, made

pytestmark = pytest.mark.root


@contextmanager
def loop(file: Path, size_bytes: int, sector_bytes: int = 512) -> Iterator[str]:
    """Give a loop device over a sparse file."""
    file.touch()
    os.truncate(file, size_bytes)
    device = run(("losetup", "--find", "--show", "--sector-size", str(sector_bytes), str(file))).stdout.strip()
    try:
        yield device
    finally:
        run(("losetup", "--detach", device))


@contextmanager
def mounted(device: str, where: Path, *options: str) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    run(("mount", *options, device, str(where)))
    try:
        yield where
    finally:
        run(("umount", str(where)))


@pytest.mark.parametrize("name", NAMES)
def test_sfdisk_writes_each_table_as_it_is_planned(name: str, tmp_path: Path) -> None:
    for number, disk in enumerate(made(name).disks):
        if disk.table == "none":
            continue
        with loop(tmp_path / f"{number}.disk", disk.disk.size_bytes, disk.disk.sector_bytes) as device:
            if disk.is_kept:
                _make_before(disk, device)
            script = sfdisk_script(disk).replace(disk.disk.path, device + ("p" if disk.disk.path[-1].isalpha() else ""))
            wipe = "never" if disk.is_kept else "always"
            run(("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", f"--wipe={wipe}", device), stdin=script)
            seen = json.loads(run(("sfdisk", "--json", device)).stdout)["partitiontable"]
        assert seen["label"] == {"gpt": "gpt", "mbr": "dos"}[disk.table]
        assert seen["id"].lower() == disk.table_guid
        told = {
            int(one["node"].removeprefix(f"{device}p")): (
                one["start"],
                one["size"],
                one["type"].lower(),
                one.get("uuid", "").lower(),
                one.get("name", ""),
                one.get("bootable", False),
                one.get("attrs", ""),
            )
            for one in seen["partitions"]
        }
        assert told == {
            one.number: (
                one.start_sectors,
                one.size_sectors,
                one.kind,
                one.part_uuid if disk.table == "gpt" else "",
                one.name,
                one.is_active,
                one.attributes,
            )
            for one in disk.partitions
        }


def _make_before(disk: PlannedDisk, device: str) -> None:
    """Give the disk the table that its facts say it has."""
    unit = disk.disk.sector_bytes
    first = min(one.start_bytes for one in disk.disk.partitions) // unit
    lines = ["label: gpt", f"first-lba: {first}", ""]
    for one in disk.disk.partitions:
        place = f"start={one.start_bytes // unit}, size={one.size_bytes // unit}"
        fields = f'type={one.type}, uuid={one.part_uuid}, attrs="{one.attributes}"'
        lines.append(f"{device}p{one.number} : {place}, {fields}")
    run(("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device), stdin="\n".join(lines) + "\n")


@pytest.mark.parametrize("name", NAMES)
def test_each_filesystem_is_made_with_its_identifiers(name: str, tmp_path: Path) -> None:
    for number, volume in enumerate(made(name).volumes):
        if volume.is_kept:
            continue
        with loop(tmp_path / f"{number}.volume", volume.size_bytes, volume.sector_bytes) as device:
            command = mkfs_command(volume, 1000)
            run(tuple(device if word == volume.device else word for word in command.argv), timeout_s=command.timeout_s)
            said = run(("blkid", "--probe", "--output", "export", device)).stdout
        told = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        assert (told["TYPE"], told["UUID"], told.get("LABEL", "")) == (volume.filesystem, volume.uuid, volume.label)


def test_an_xfs_for_an_old_system_has_no_feature_of_linux_5_10(tmp_path: Path) -> None:
    volume = PlannedVolume("/dev/x", "x", "xfs", "5e1f0000-0000-4000-8000-0000000000aa", 400 * MIB, 512)
    with loop(tmp_path / "disk", volume.size_bytes) as device:
        command = mkfs_command(volume, 10, has_old_xfs=True)
        run(tuple(device if word == "/dev/x" else word for word in command.argv))
        told = run(("xfs_db", "-r", "-c", "version", device)).stdout
    assert not {"BIGTIME", "INOBTCNT"} & set(told.strip().split(","))
    assert "REFLINK" in told


@pytest.mark.parametrize("inodes", [100, 10_000])
@pytest.mark.parametrize("size_bytes", [400 * MIB, GIB])
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_what_a_filesystem_is_said_to_take_it_takes(kind: str, size_bytes: int, inodes: int, tmp_path: Path) -> None:
    """Files of half a block as many as are counted, in folders, and one that fills the rest."""
    takes = usable_bytes(kind, size_bytes, 512, inodes)
    assert takes > size_bytes * 0.45
    volume = PlannedVolume(
        device="/dev/x",
        id="x",
        filesystem=kind,
        uuid="5e1f0000-0000-4000-8000-0000000000aa",
        size_bytes=size_bytes,
        sector_bytes=512,
    )
    with loop(tmp_path / "disk", size_bytes) as device:
        run(tuple(device if word == "/dev/x" else word for word in mkfs_command(volume, inodes).argv))
        with mounted(device, tmp_path / "mnt") as top:
            folders = inodes // 100
            for folder in range(folders):
                (top / str(folder)).mkdir()
            for number in range(inodes - folders - 1):
                (top / str(number % folders) / f"a file of some length {number}").write_bytes(bytes(3000))
            rest = takes - (inodes - folders - 1) * 4096
            content = os.urandom(MIB)  # again and again: none of them compresses or shares blocks by itself
            with (top / "large").open("wb") as file:
                for _ in range(rest // MIB):
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            run(("sync", "--file-system", str(top)))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_the_least_size_is_one_the_program_makes(kind: str, tmp_path: Path) -> None:
    size_bytes = least_bytes(Contents(mount="/", allocated_bytes=MIB, inodes=10), kind, 512)
    volume = PlannedVolume("/dev/x", "x", kind, "5e1f0000-0000-4000-8000-0000000000aa", size_bytes, 512)
    with loop(tmp_path / "disk", size_bytes) as device:
        run(tuple(device if word == "/dev/x" else word for word in mkfs_command(volume, 10).argv))
        with mounted(device, tmp_path / "mnt") as top:
            (top / "file").write_bytes(bytes(MIB))
