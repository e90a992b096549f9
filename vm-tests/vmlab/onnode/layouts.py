"""Has the agent make layouts on the disks of a node, one after the other, and compares what is there with the plan.

Each layout finds what the one before has left: arrays that run, volumes that are active. What is done is what a deploy
does up to the restore, by the agent's own code. What is there then is detected, as on a golden node: planned anew for
the same disks, it must be made of the same parts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cloner_agent.arrays import member_faults
from cloner_agent.detecting import ask
from cloner_agent.holders import stop_holders
from cloner_agent.host import run
from cloner_agent.probe import probe
from cloner_agent.stages.disks import unmount_all
from cloner_core.crypttab import make_crypttab
from cloner_core.detection import detect, parse_excluded
from cloner_core.errors import ClonerError
from cloner_core.facts import Disk, DiskPartition, Facts, Firmware
from cloner_core.fstab import make_fstab
from cloner_core.layout import Layout, parse_layout
from cloner_core.plan import Contents, Plan, PlanError, make_plan
from cloner_core.plan.filesystems import usable_bytes
from cloner_core.plan.values import PlannedDisk, PlannedPartition, PlannedVolume
from cloner_core.sizes import MIB, parse_bytes
from cloner_core.steps import TARGET
from cloner_core.unlocking import Means
from vmlab.onnode.making import make
from vmlab.onnode.reporting import tell

SCENES = Path("/usr/lib/cloner/scenes.json")
CONTENTS = (Contents(mount="/", allocated_bytes=700 * MIB, inodes=30_000),)
_MARKER = "kept-marker"
_MADE = ("ext4", "xfs", "btrfs", "vfat")
_MEANS = Means(initramfs="initramfs-tools", sealer="clevis", is_good_later=True)
_TABLES = {"gpt": "gpt", "mbr": "dos", "none": ""}


def main() -> None:
    """Tell, for each scene, why it was refused, or what is not as planned and how long it took."""
    # A new parity array is filled in the background, for nothing here.
    run(("modprobe", "md_mod"))
    Path("/proc/sys/dev/raid/speed_limit_max").write_text("100")
    for name, scene in json.loads(SCENES.read_bytes()).items():
        started = time.monotonic()
        try:
            outcome = _outcome(name, scene)
        except ClonerError as error:
            outcome = {"faults": [f"{error.message} ({error.hint})"]}
            unmount_all(run, TARGET)
        tell(name, {"seconds": round(time.monotonic() - started, 1), **outcome})


def _outcome(name: str, scene: Mapping[str, Any]) -> dict[str, object]:
    wanted = scene["machine"]["disks"]
    for one, disk in zip(wanted, _real(wanted, probe(run)), strict=True):
        if one.get("partitions"):
            _lay_out(disk.path, one)

    def look() -> Facts:
        return _as_in(scene["machine"], probe(run))

    facts = look()
    layout = parse_layout(json.dumps(scene["layout"]))
    try:
        plan = _planned(facts, layout)
    except PlanError as refusal:
        return {"refused": f"{refusal.cause}: {refusal.message}"}
    make(plan, plan.steps, facts, look)
    faults = [*_faults(plan, look())]
    if not any(disk.is_kept for disk in plan.disks):  # to keep something is nothing that a disk tells
        faults += _detection_faults(plan, facts, look())
    unmount_all(run, TARGET)
    return {"faults": faults}


def _planned(facts: Facts, layout: Layout) -> Plan:
    return make_plan(
        facts,
        layout,
        node="node01",
        image="debian:3",
        version_digest="ab" * 32,
        seed=layout.name.encode().hex().ljust(64, "0")[:64],
        contents=CONTENTS,
    )


def _real(wanted: list[Mapping[str, Any]], facts: Facts) -> list[Disk]:
    """Return a disk of this machine for each that a scene wants: as large, with such sectors."""
    left, found = list(facts.disks), []
    for one in wanted:
        size, sector = parse_bytes(one["size"]), one.get("sector_bytes", 512)
        disk = next(disk for disk in left if (disk.size_bytes, disk.sector_bytes) == (size, sector))
        left.remove(disk)
        found.append(disk)
    return found


def _as_in(machine: Mapping[str, Any], facts: Facts) -> Facts:
    """Return `facts` with the disks of a scene alone, named as there, but for paths and what is on them."""
    wanted = machine["disks"]
    told = ("serial", "bus", "by_path", "wwn", "bay", "controller", "is_rotational", "model")
    disks = tuple(
        msgspec.structs.replace(disk, **{"model": "Model", **{key: one[key] for key in told if key in one}})
        for one, disk in zip(wanted, _real(wanted, facts), strict=True)
    )
    # A container is made without its TPM, which comes in when the clone is bound to it.
    board = {"firmware": Firmware(machine["firmware"]), "tpm_major": machine.get("tpm", 0)}
    return msgspec.structs.replace(facts, disks=disks, **board)


def _lay_out(disk: str, told: Mapping[str, Any]) -> None:
    """Put on `disk` what a scene says is there before, each filesystem with a file in it."""
    stop_holders(disk, run)
    run(("wipefs", "--all", "--force", "--lock=yes", disk))
    lines = ["label: gpt", "first-lba: 34"]  # the least: tables of others begin anywhere
    for one in told["partitions"]:
        start, size = (parse_bytes(one[key]) // 512 for key in ("start", "size"))
        name = "".join(f"\\x{byte:02x}" for byte in one.get("name", "").encode())  # as sfdisk reads any name
        rest = f'name="{name}", attrs="{one.get("attributes", "")}"'
        lines.append(
            f"{one['number']}: start={start}, size={size}, type={one['type']}, uuid={one['part_uuid']}, {rest}"
        )
    run(("sfdisk", "--quiet", "--lock=yes", "--wipe=always", disk), stdin="\n".join(lines) + "\n")
    run(("udevadm", "settle"))
    kinds = {one["device"].removeprefix(told["path"]): one["kind"] for one in told.get("signatures", ())}
    for one in told["partitions"]:
        kind = kinds.get(str(one["number"]), "ext4")
        if kind not in _MADE:
            kind = "ext4"  # what a node has no tool for is kept no other way
        device = f"{disk}{one['number']}"
        run(("wipefs", "--all", "--force", device))
        run(("mkfs.vfat", device) if kind == "vfat" else (f"mkfs.{kind}", "-q", device))
        if kind != "vfat":
            run(("mkdir", "-p", "/mnt/kept"))
            run(("mount", "-t", kind, device, "/mnt/kept"))
            Path("/mnt/kept", _MARKER).write_text(_MARKER)
            run(("umount", "/mnt/kept"))


def _faults(plan: Plan, facts: Facts) -> Iterator[str]:
    """Give each thing that is not as the plan says."""
    by_path = {disk.path: disk for disk in facts.disks}
    for planned in plan.disks:
        yield from _table_faults(planned, by_path[planned.disk.path])
    for volume in plan.volumes:
        files = sum(one.size_bytes for one in plan.swapfiles if volume.mount == "/" or volume.subvolumes)
        yield from _volume_faults(volume, files)
    for array in plan.arrays:
        told = _pairs(run(("mdadm", "--detail", "--export", array.device)).stdout)
        seen = (told["MD_LEVEL"], told["MD_UUID"].replace(":", ""), int(told["MD_DEVICES"]), told["MD_METADATA"])
        want = (array.level, array.uuid.replace("-", ""), len(array.members), array.metadata)
        size = int(Path("/sys/block", array.device.removeprefix("/dev/"), "size").read_text()) * 512
        if seen != want or not _is_about(size, array.size_bytes):
            yield f"array {array.id}: {seen} of {size} bytes, want {want} of {array.size_bytes}"
        yield from (f"array {array.id}: {device} {fault}" for device, fault in member_faults(array))
    for group in plan.groups:
        fields = ("-o", "lv_name,seg_size_pe", "--reportformat", "json")
        rows = json.loads(run(("lvs", *fields, group.name)).stdout)["report"][0]["lv"]
        extents: dict[str, int] = {}
        for row in rows:
            extents[row["lv_name"]] = extents.get(row["lv_name"], 0) + int(row["seg_size_pe"])
        if extents != {one.name: one.extents for one in group.volumes}:
            yield f"group {group.name}: {extents}, want {group.volumes}"
    for one in plan.swapfiles:
        path = f"{TARGET}{one.path}"
        run(("swapon", path))
        run(("swapoff", path))
        if os.stat(path).st_size != one.size_bytes:
            yield f"swap file {path} has {os.stat(path).st_size} bytes, want {one.size_bytes}"
    yield from _mount_faults(plan)


def _detection_faults(plan: Plan, before: Facts, now: Facts) -> Iterator[str]:
    """Give what the layout that is detected makes otherwise, on the disks as they were before."""
    etc = Path(TARGET, "etc")
    etc.mkdir(exist_ok=True)
    (etc / "fstab").write_bytes(make_fstab(None, plan.entries).content)
    (etc / "crypttab").write_bytes(make_crypttab(None, plan.crypts, _MEANS).content)
    paths = {disk.path for disk in now.disks}
    told = ask(run, tree=TARGET, disk_names=lambda name: f"/dev/{name}" in paths)
    others = sorted(paths - {one.disk.path for one in plan.disks})  # as an admin leaves them out
    told = msgspec.structs.replace(told, disks=now.disks)
    detected = detect(told, plan.layout, parse_excluded(others, str))
    again = _planned(before, detected.layout)
    for kind, want in _parts(plan).items():
        found = _parts(again)[kind]
        if found != want:
            yield f"detected {kind} {sorted(found - want)}, made were {sorted(want - found)}"


def _parts(plan: Plan) -> dict[str, set[str]]:
    """Return what a plan makes, sizes left out: where a layout leaves room, a detected one gives it away."""
    return {
        "tables": {f"{one.disk.path} {one.table}" for one in plan.disks},
        "partitions": {f"{one.device} {one.kind} {one.role}" for one in plan.partitions},
        "arrays": {f"{one.level} {one.metadata} {one.chunk_kib} {one.members}" for one in plan.arrays},
        "groups": {f"{one.name} {one.physical} {sorted(lv.name for lv in one.volumes)}" for one in plan.groups},
        "volumes": {f"{one.device} {one.filesystem} {one.label}" for one in plan.volumes},
        "subvolumes": {f"{one.device} {sub}" for one in plan.volumes for sub in one.subvolumes},
        "mounts": {f"{one.device} {one.mount} {one.subvolume}" for one in plan.entries},
    }


def _table_faults(planned: PlannedDisk, disk: Disk) -> Iterator[str]:
    if disk.table != _TABLES[planned.table]:
        yield f"{disk.path}: table '{disk.table}', want {planned.table}"
    if disk.table_id != planned.table_guid.removeprefix("0x"):
        yield f"{disk.path}: table has id {disk.table_id}, want {planned.table_guid}"
    unit = disk.sector_bytes
    seen = {
        (one.number, one.start_bytes, one.size_bytes, one.type.removeprefix("0x").lstrip("0"), *_told(one))
        for one in disk.partitions
    }
    want = {
        (one.number, one.start_sectors * unit, one.size_sectors * unit, one.kind.lstrip("0"), *_told(one))
        for one in planned.partitions
    }
    for one in sorted(seen ^ want):
        yield f"{disk.path}: partition {one} is {'there' if one in seen else 'wanted'} alone"


def _told(one: DiskPartition | PlannedPartition) -> tuple[str, str, str]:
    return one.part_uuid, one.name, one.attributes


def _volume_faults(volume: PlannedVolume, files_bytes: int) -> Iterator[str]:
    told = _pairs(run(("blkid", "-p", "-o", "export", volume.device), accept=(0, 2)).stdout)
    seen = told.get("TYPE"), told.get("UUID"), told.get("LABEL", "")
    if seen != (volume.filesystem, volume.uuid, volume.label) and not volume.is_kept:
        yield f"{volume.device}: {seen}, want {(volume.filesystem, volume.uuid, volume.label)}"
    size = int(run(("blockdev", "--getsize64", volume.device)).stdout)
    if not _is_about(size, volume.size_bytes):
        yield f"{volume.device}: {size} bytes, want {volume.size_bytes}"
    if volume.mount and not volume.is_kept and volume.role != "esp":  # that one is staged, behind a folder
        room = os.statvfs(f"{TARGET}{volume.mount}")
        promised = usable_bytes(volume.filesystem, volume.size_bytes, volume.sector_bytes, 0)
        there = room.f_bavail * room.f_frsize + files_bytes
        if there < promised:
            yield f"{volume.device}: room for {there} bytes, {promised} were promised"


def _mount_faults(plan: Plan) -> Iterator[str]:
    listed = run(("findmnt", "--json", "--list", "--output", "TARGET,SOURCE,FSTYPE")).stdout
    seen = {one["target"]: one for one in json.loads(listed)["filesystems"]}
    for mounted in plan.mounts:
        where = TARGET if mounted.mount == "/" else f"{TARGET}{mounted.mount}"
        if mounted.is_kept:
            kept = Path("/mnt/kept")
            run(("mount", "-o", "ro", mounted.device, str(kept)))
            if not (kept / _MARKER).is_file():
                yield f"what was kept on {mounted.device} is lost"
            run(("umount", str(kept)))
            continue
        source = seen.get(where, {}).get("source", "").partition("[")[0]
        want = f"{mounted.device}[/{mounted.subvolume}]" if mounted.subvolume else mounted.device
        if where not in seen or source != mounted.device:
            yield f"{where}: {seen.get(where)}, want {want}"
        elif mounted.subvolume and f"[/{mounted.subvolume}]" not in seen[where]["source"]:
            yield f"{where}: {seen[where]['source']}, want {want}"


def _is_about(size: int, planned: int) -> bool:
    """Whether a device is as large as planned; mdadm may give a stripe a chunk more of each disk."""
    return planned <= size < planned + 2 * MIB


def _pairs(told: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


if __name__ == "__main__":
    main()
