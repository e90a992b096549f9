"""The steps of a deploy in their order, from a plan whose disks are chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloner_core.describing import describe_disk
from cloner_core.messages import BootPolicy, Stage
from cloner_core.plan.filesystems import mkfs_command
from cloner_core.plan.guarding import guarded_identifiers
from cloner_core.plan.values import Plan, PlannedDisk, PlannedPartition
from cloner_core.sizes import format_bytes
from cloner_core.steps import (
    ActivateEsp,
    BootFiles,
    Check,
    Command,
    Commit,
    Guard,
    Identity,
    Mount,
    Nvram,
    ReadBack,
    Reboot,
    Reference,
    Restore,
    Rewrite,
    SendReceipt,
    StageEsp,
    Step,
    StopHolders,
)

_MOUNT_OPTIONS = {"ext4": "noatime", "vfat": "umask=0077"}


def steps_of(plan: Plan, *, hostname: str, boot: BootPolicy, inodes: Mapping[str, int]) -> tuple[Step, ...]:
    """Return the steps for the disks of `plan`; `inodes` by mount point."""
    paths = tuple(disk.disk.path for disk in plan.disks)
    steps = [Step(Stage.GUARD, "look for our identifiers on other disks", Guard(guarded_identifiers(plan), paths))]
    for disk in plan.disks:
        steps.append(Step(Stage.GUARD, f"release {disk.disk.path}", StopHolders(disk.disk.path)))
    for disk in plan.disks:
        steps += _partition_steps(disk)
    for disk in plan.disks:
        steps += [_mkfs_step(partition, disk, inodes) for partition in disk.partitions]
    for mounted in plan.mounts:
        options = _MOUNT_OPTIONS[mounted.filesystem]
        action = Mount(mounted.device, mounted.filesystem, mounted.mount, options)
        steps.append(Step(Stage.MOUNT, f"mount {mounted.mount}", action))
    return (*steps, *_file_steps(plan, hostname, boot), *_final_steps(plan, boot))


def _partition_steps(planned: PlannedDisk) -> Iterator[Step]:
    disk = planned.disk
    old = [s.device for s in disk.signatures if s.device != disk.path]
    devices = (*dict.fromkeys(sorted(old)), disk.path)
    yield Step(
        Stage.PARTITION,
        f"wipe old signatures of {disk.path}",
        # partitions first: once the table is gone their device nodes may go too
        Command(("wipefs", "--all", "--force", "--lock=yes", *devices)),
        destroys=describe_disk(disk),
    )
    yield Step(
        Stage.PARTITION,
        f"write the partition table of {disk.path}",
        Command(
            ("sfdisk", "--quiet", "--lock=yes", "--wipe=always", "--wipe-partitions=always", disk.path),
            stdin=sfdisk_script(planned),
        ),
        destroys=describe_disk(disk),
    )
    yield Step(
        Stage.PARTITION,
        f"wait until udev has seen the partitions of {disk.path}",
        Command(("udevadm", "settle", "--timeout=30")),
    )


def sfdisk_script(planned: PlannedDisk) -> str:
    """Return the input of sfdisk(8) for the new table; places are in logical sectors."""
    lines = ["label: gpt", f"label-id: {planned.table_guid.upper()}", "unit: sectors", ""]
    for partition in planned.partitions:
        fields = {
            "start": str(partition.start_sectors),
            "size": str(partition.size_sectors),
            "type": partition.type_guid.upper(),
            "uuid": partition.part_uuid.upper(),
            "name": f'"{partition.name}"',
        }
        lines.append(", ".join(f"{key}={value}" for key, value in fields.items()))
    return "\n".join(lines) + "\n"


def _mkfs_step(partition: PlannedPartition, planned: PlannedDisk, inodes: Mapping[str, int]) -> Step:
    size = format_bytes(partition.size_sectors * planned.disk.sector_bytes)
    command = mkfs_command(partition, planned.disk.sector_bytes, inodes.get(partition.mount, 0))
    return Step(
        Stage.MKFS,
        f"format {partition.role} ({partition.filesystem}, {size})",
        command,
        destroys=partition.device,
    )


def _file_steps(plan: Plan, hostname: str, boot: BootPolicy) -> Iterator[Step]:
    esp = plan.esp
    esp_mount = esp.mount if esp else ""
    if esp:
        yield Step(Stage.MOUNT, "stage the esp", StageEsp(esp_mount))
    yield Step(Stage.RESTORE, f"restore {plan.image}", Restore(plan.version_digest, esp_mount))
    yield Step(Stage.READBACK, "read everything back", ReadBack(plan.version_digest))
    yield Step(Stage.IDENTITY, f"write the identity of {hostname}", Identity(hostname))
    yield Step(Stage.IDENTITY, "rewrite references", Rewrite(references_of(plan)))
    if esp:
        boot_uuid = next((mounted.uuid for mounted in plan.mounts if mounted.mount == "/boot"), "")
        action = BootFiles(esp_mount, plan.root.uuid, boot.kernel_arguments, plan.root.part_uuid, boot_uuid)
        yield Step(Stage.BOOTFILES, "place boot files", action)
    yield Step(Stage.CHECK, "check identity and bootability", Check())


def references_of(plan: Plan) -> tuple[Reference, ...]:
    """Return old and new identifier of each filesystem whose old one is known."""
    return tuple(
        Reference(source, partition.uuid) for partition in plan.partitions for source in partition.source_uuids
    )


def _final_steps(plan: Plan, boot: BootPolicy) -> Iterator[Step]:
    yield Step(Stage.COMMIT, "ask for leave to commit", Commit())
    if esp := plan.esp:
        yield Step(Stage.COMMIT, "make the disk bootable", ActivateEsp(esp.mount))
        action = Nvram(
            esp=esp.mount,
            partition=esp.number,
            part_uuid=esp.part_uuid,
            start_sectors=esp.start_sectors,
            size_sectors=esp.size_sectors,
            description=f"cloner {plan.image}",
            boot_order=boot.boot_order,
        )
        yield Step(Stage.NVRAM, "write the boot entry and its order", action)
    yield Step(Stage.RECEIPT, "send the receipt", SendReceipt())
    yield Step(Stage.REBOOT, "boot the clone", Reboot())
