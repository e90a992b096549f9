"""The steps of a deploy in their order, from a plan whose disks are chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloner_core.describing import describe_disk
from cloner_core.messages import BootPolicy, Stage
from cloner_core.plan.biosbooting import bios_boot_step, stub_steps
from cloner_core.plan.dracut import arguments as dracut_arguments
from cloner_core.plan.encryption import kernel_arguments, key_steps, opening_steps
from cloner_core.plan.filesystems import mkfs_command
from cloner_core.plan.guarding import guarded_identifiers
from cloner_core.plan.stacking import array_steps, crypt_steps, group_steps
from cloner_core.plan.tables import sfdisk_script
from cloner_core.plan.values import Plan, PlannedDisk, PlannedMount, PlannedVolume, components
from cloner_core.sizes import format_bytes
from cloner_core.steps import (
    ActivateEsp,
    BootFiles,
    Check,
    CheckInitramfs,
    Command,
    Commit,
    EspPlace,
    Guard,
    Identity,
    MakeSwapFile,
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

_TOP = "/mnt/btrfs"
"""Where the top of a btrfs filesystem is mounted while its subvolumes are made."""


def steps_of(
    plan: Plan,
    *,
    hostname: str,
    boot: BootPolicy,
    inodes: Mapping[str, int],
    by_bios: bool = False,
    has_old_xfs: bool = False,
) -> tuple[Step, ...]:
    """Return the steps for the disks of `plan`; `inodes` by device of the volume, `by_bios` what starts the machine."""
    paths = tuple(disk.disk.path for disk in plan.disks)
    steps = [Step(Stage.GUARD, "look for our identifiers on other disks", Guard(guarded_identifiers(plan), paths))]
    for disk in plan.disks:
        steps.append(Step(Stage.GUARD, f"release {disk.disk.path}", StopHolders(disk.disk.path)))
    for disk in plan.disks:
        steps += _partition_steps(disk)
        steps += stub_steps(disk) if by_bios else ()
    for disk in plan.disks:
        steps += _wipe_steps(disk)
    steps += _stacking_steps(plan)
    for volume in plan.volumes:
        if not volume.is_kept:
            steps.append(_mkfs_step(volume, inodes.get(volume.device, 0), has_old_xfs=has_old_xfs))
            steps += _subvolume_steps(volume)
    steps += [_mount_step(mounted) for mounted in plan.mounts if not mounted.is_kept]
    return (*steps, *_file_steps(plan, hostname, boot, by_bios), *_final_steps(plan, boot, by_bios))


def _stacking_steps(plan: Plan) -> Iterator[Step]:
    """Give what lies between partitions and filesystems, each after what it lies on."""
    for array in plan.arrays:
        yield from array_steps(array)
    volumes = {group.device(volume) for group in plan.groups for volume in group.volumes}
    for crypt in plan.crypts:
        if crypt.backing not in volumes:
            yield from crypt_steps(crypt)
    for group in plan.groups:
        yield from group_steps(group)
    for crypt in plan.crypts:
        if crypt.backing in volumes:
            yield from crypt_steps(crypt)


def _partition_steps(planned: PlannedDisk) -> Iterator[Step]:
    disk = planned.disk
    kept = [one.device for one in planned.partitions if one.is_kept]
    # one without anything to wipe is left out: the kernel may not even show it
    old = sorted({s.device for s in disk.signatures if s.kind and s.device != disk.path} - set(kept))
    # partitions first: once the table is gone their device nodes may go too; with it goes what is kept, so it stays
    devices = (*old, disk.path) if not kept else tuple(old)
    destroys = describe_disk(disk) + (f", except {', '.join(kept)}" if kept else "")
    if devices:
        yield Step(
            Stage.PARTITION,
            f"wipe old signatures of {disk.path}",
            Command(("wipefs", "--all", "--force", "--lock=yes", *devices)),
            destroys=destroys,
        )
    if planned.table == "none":
        return
    wipe = "never" if kept else "always"
    yield Step(
        Stage.PARTITION,
        f"write the partition table of {disk.path}",
        Command(
            ("sfdisk", "--quiet", "--lock=yes", f"--wipe={wipe}", f"--wipe-partitions={wipe}", disk.path),
            stdin=sfdisk_script(planned),
        ),
        destroys=destroys,
    )
    yield Step(
        Stage.PARTITION,
        f"wait until udev has seen the partitions of {disk.path}",
        Command(("udevadm", "settle", "--timeout=30")),
    )


def _wipe_steps(planned: PlannedDisk) -> Iterator[Step]:
    """Give what sfdisk does itself where nothing is kept; the kernel shows the new partitions by then."""
    new = tuple(one.device for one in planned.partitions if not one.is_kept and one.role != "extended")
    if planned.is_kept and new:
        yield Step(
            Stage.MKFS,
            f"wipe old signatures of the new partitions of {planned.disk.path}",
            Command(("wipefs", "--all", "--force", "--lock=yes", *new)),
            destroys=", ".join(new),
        )


def _mkfs_step(volume: PlannedVolume, inodes: int, *, has_old_xfs: bool) -> Step:
    size = format_bytes(volume.size_bytes)
    return Step(
        Stage.MKFS,
        f"format {volume.role} ({volume.filesystem}, {size})",
        mkfs_command(volume, inodes, has_old_xfs=has_old_xfs),
        destroys=volume.device,
    )


def _subvolume_steps(volume: PlannedVolume) -> Iterator[Step]:
    if not volume.subvolumes:
        return

    def step(why: str, *argv: str) -> Step:
        return Step(Stage.MKFS, why, Command(argv))

    yield step(f"make {_TOP}", "mkdir", "-p", _TOP)
    yield step(f"mount the top of {volume.device}", "mount", "-t", "btrfs", "-o", "subvolid=5", volume.device, _TOP)
    for one in sorted(volume.subvolumes, key=lambda one: components(one.name)):
        if parent := one.name.rpartition("/")[0]:
            yield step(f"make the folder of subvolume {one.name}", "mkdir", "-p", f"{_TOP}/{parent}")
        yield step(f"make subvolume {one.name}", "btrfs", "subvolume", "create", f"{_TOP}/{one.name}")
    yield step(f"unmount the top of {volume.device}", "umount", _TOP)


def _mount_step(mounted: PlannedMount) -> Step:
    """Mount for the time of the deploy; files are compressed as the clone's fstab would have it."""
    options = ["umask=0077"] if mounted.filesystem == "vfat" else ["noatime"]
    if mounted.subvolume:
        options.append(f"subvol={mounted.subvolume}")
    if mounted.filesystem == "btrfs":
        options += [one for one in mounted.options.split(",") if one.startswith("compress")]
    action = Mount(mounted.device, mounted.filesystem, mounted.mount, ",".join(options))
    return Step(Stage.MOUNT, f"mount {mounted.mount}", action)


def _file_steps(plan: Plan, hostname: str, boot: BootPolicy, by_bios: bool) -> Iterator[Step]:
    esp_mount = plan.esp.mount if plan.esp else ""
    if plan.esp and not by_bios:
        yield Step(Stage.MOUNT, "stage the esp", StageEsp(esp_mount))
    yield Step(Stage.RESTORE, f"restore {plan.image}", Restore(plan.version_digest, esp_mount))
    yield Step(Stage.READBACK, "read everything back", ReadBack(plan.version_digest))
    yield Step(Stage.IDENTITY, f"write the identity of {hostname}", Identity(hostname))
    yield Step(Stage.IDENTITY, "rewrite references", Rewrite(references_of(plan)))
    for one in plan.swapfiles:
        action = MakeSwapFile(one.path, one.size_bytes, one.filesystem, one.uuid)
        yield Step(Stage.IDENTITY, f"make swap file {one.path} ({format_bytes(one.size_bytes)})", action)
    yield from key_steps(plan)
    yield Step(Stage.BOOTFILES, "place boot files", _boot_files(plan, "" if by_bios else esp_mount, boot))
    yield Step(Stage.BOOTFILES, "look for drivers in the initramfs", CheckInitramfs())
    yield from opening_steps(plan)
    yield Step(Stage.CHECK, "check identity and bootability", Check())


def _boot_files(plan: Plan, esp_mount: str, boot: BootPolicy) -> BootFiles:
    root, holder = plan.root, plan.boot
    prefix = f"/{holder.subvolume}" if holder.subvolume else ""
    return BootFiles(
        esp=esp_mount,
        root_uuid=root.uuid,
        kernel_arguments=(*kernel_arguments(plan), *boot.kernel_arguments),
        root_part_uuid=root.part_uuid,
        boot_uuid=holder.uuid,
        boot_path=prefix if holder.mount == "/boot" else f"{prefix}/boot",
        root=_root_argument(plan),
        root_flags=f"subvol={root.subvolume}" if root.subvolume else "",
        dracut_arguments=dracut_arguments(plan),
    )


def _root_argument(plan: Plan) -> str:
    """Return what root= says: initramfs scripts activate a volume group, or open a mapping, by the name of the root."""
    device = plan.root.device
    return device if device.startswith("/dev/mapper/") else f"UUID={plan.root.uuid}"


def references_of(plan: Plan) -> tuple[Reference, ...]:
    """Return old and new identifier of each filesystem whose old one is known."""
    volumes = [Reference(source, volume.uuid) for volume in plan.volumes for source in volume.source_uuids]
    crypts = [Reference(one.source_uuid, one.uuid) for one in plan.crypts if one.source_uuid and one.uuid]
    return (*volumes, *crypts)


def _final_steps(plan: Plan, boot: BootPolicy, by_bios: bool) -> Iterator[Step]:
    yield Step(Stage.COMMIT, "ask for leave to commit", Commit())
    if by_bios:
        yield bios_boot_step(plan)
    elif esp := plan.esp:
        copies = tuple(copy.device for copy in plan.esp_copies)
        yield Step(Stage.COMMIT, "make the disk bootable", ActivateEsp(esp.mount, copies))
        place, *others = [_esp_place(plan, one) for one in (esp, *plan.esp_copies)]
        action = Nvram(
            esp=esp.mount,
            partition=place.partition,
            part_uuid=place.part_uuid,
            start_sectors=place.start_sectors,
            size_sectors=place.size_sectors,
            description=f"cloner {plan.image}",
            boot_order=boot.boot_order,
            copies=tuple(others),
        )
        yield Step(Stage.NVRAM, "write the boot entry and its order", action)
    yield Step(Stage.RECEIPT, "send the receipt", SendReceipt())
    yield Step(Stage.REBOOT, "boot the clone", Reboot())


def _esp_place(plan: Plan, volume: PlannedVolume) -> EspPlace:
    _, partition = plan.partition_at(volume.device)
    return EspPlace(
        partition=partition.number,
        part_uuid=partition.part_uuid,
        start_sectors=partition.start_sectors,
        size_sectors=partition.size_sectors,
    )
