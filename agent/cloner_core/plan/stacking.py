"""Arrays, encryption and volume groups: what they cost, how large they become, and the commands that make them.

Everything that decides a size is given to the tools explicitly, as for filesystems.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloner_core.layout import Array, VolumeGroup
from cloner_core.messages import Cause, Stage
from cloner_core.plan.partitioning import solve
from cloner_core.plan.values import PlannedArray, PlannedCrypt, PlannedGroup, PlannedLogical
from cloner_core.refusals import PlanError
from cloner_core.sizes import GIB, KIB, MIB, format_bytes
from cloner_core.steps import Command, LuksFormat, Step

LUKS_HEADER_BYTES = 16 * MIB  # cryptsetup's own for LUKS2: two of metadata, the rest for keys
PV_HEADER_BYTES = MIB
_ARRAY_DEVICES = 120  # /dev/md120 and on: no other numbering of a booting system reaches so far up
_MD_TAIL_BYTES = 4 * MIB  # of format 1.0: superblock and bitmap lie at the end
_CREATE_S = 120

# No udev rule of the initramfs knows LVM, so that nothing is activated by itself; and the devices file is the image's.
_LVM_CONFIG = "devices{use_devicesfile=0} activation{udev_sync=0 udev_rules=0} backup{backup=0 archive=0}"


def array_offset_bytes(array: Array, member_bytes: int) -> int:
    """Return where data begins on a member; 0 where the format says so itself."""
    if array.metadata == "1.0":
        return 0
    return 16 * MIB if member_bytes >= GIB else 2 * MIB  # room for a bitmap, and to reshape


def data_disks(array: Array, members: int) -> float:
    """Return how many members' worth of data an array of `members` holds."""
    counts = {"raid0": members, "raid1": 1, "raid5": members - 1, "raid6": members - 2, "raid10": members / 2}
    return counts[array.level]


def member_bytes(array: Array, smallest_bytes: int) -> int:
    """Return what each member gives when the smallest has `smallest_bytes`; 0 when that is nothing."""
    given = smallest_bytes - array_offset_bytes(array, smallest_bytes)
    given -= _MD_TAIL_BYTES if array.metadata == "1.0" else 64 * KIB
    unit = array.chunk_kib * KIB if array.level != "raid1" else 64 * KIB
    return max(given // unit * unit, 0)


def least_member_bytes(array: Array, content_bytes: int, members: int) -> int:
    """Return the size of each member at which the array holds `content_bytes`."""
    each = -(-int(content_bytes / data_disks(array, members)) // MIB) * MIB
    return each + 16 * MIB + _MD_TAIL_BYTES + array.chunk_kib * KIB


def plan_array(array: Array, index: int, uuid: str, members: Sequence[tuple[str, int]]) -> PlannedArray:
    """Return array number `index` of a layout over `members` (device, bytes).

    Raises PlanError (disk-too-small) when a member has no room for data.
    """
    smallest = min(size for _, size in members)
    each = member_bytes(array, smallest)
    if not each:
        raise PlanError(
            Cause.DISK_TOO_SMALL,
            f"a member of array '{array.id}' is {format_bytes(smallest)}, which leaves no room for data",
            hint="make the members of the array larger",
        )
    unit = array.chunk_kib * KIB
    size = int(each * data_disks(array, len(members)))
    return PlannedArray(
        id=array.id,
        device=f"/dev/md{_ARRAY_DEVICES + index}",
        level=array.level,
        metadata=array.metadata,
        uuid=uuid,
        members=tuple(device for device, _ in members),
        member_bytes=each,
        offset_bytes=array_offset_bytes(array, smallest),
        size_bytes=size if array.level == "raid1" else size // unit * unit,
        chunk_kib=0 if array.level == "raid1" else array.chunk_kib,
    )


def group_extents(physical: Sequence[tuple[str, int]], extent_mib: int) -> int:
    """Return how many extents the physical volumes (device, bytes) of a group have."""
    extent = extent_mib * MIB
    return sum(max((size - PV_HEADER_BYTES) // extent, 0) for _, size in physical)


def plan_group(group: VolumeGroup, physical: Sequence[tuple[str, int]], least: Sequence[int]) -> PlannedGroup:
    """Return `group` over its physical volumes (device, bytes); `least` raises the minimum of each of its volumes.

    Raises PlanError (disk-too-small) when the minima do not fit.
    """
    extent = group.extent_mib * MIB
    room = group_extents(physical, group.extent_mib) * extent
    sizes = [volume.size for volume in group.volumes]
    solved = solve(sizes, least, room, unit_bytes=extent)
    if solved is None:
        need = sum(-(-max(size.min_bytes, bound) // extent) * extent for size, bound in zip(sizes, least, strict=True))
        raise PlanError(
            Cause.DISK_TOO_SMALL,
            f"volume group '{group.name}' has room for {format_bytes(room)}; its volumes with what the image puts"
            f" there need at least {format_bytes(need)}",
            hint="take larger disks, or a layout with smaller volumes",
        )
    return PlannedGroup(
        name=group.name,
        extent_mib=group.extent_mib,
        physical=tuple(device for device, _ in physical),
        volumes=tuple(
            PlannedLogical(volume.name, size // extent) for volume, size in zip(group.volumes, solved, strict=True)
        ),
    )


def array_steps(array: PlannedArray) -> Iterator[Step]:
    """Give the step that makes an array; members lose what they held."""
    has_parity = array.level in ("raid5", "raid6")
    options = [
        f"--level={array.level}",
        f"--raid-devices={len(array.members)}",
        f"--metadata={array.metadata}",
        f"--name={array.id}",
        "--homehost=any",  # a name of another host would have the clone call its array md127
        f"--uuid={array.uuid.replace('-', '')}",
        *([f"--chunk={array.chunk_kib}K"] if array.chunk_kib else []),
        *([f"--data-offset={array.offset_bytes // KIB}K"] if array.offset_bytes else []),
        *([] if array.level == "raid0" else [f"--size={array.member_bytes // KIB}K", "--bitmap=internal"]),
        # Mirrors may differ where nothing was written yet; parity must be right before the first part of a stripe is.
        *([] if array.level == "raid0" or has_parity else ["--assume-clean"]),
    ]
    argv = ("mdadm", "--create", array.device, "--run", "--quiet", *options, *array.members)
    yield Step(
        Stage.MKFS,
        f"make array {array.id} ({array.level}, {format_bytes(array.size_bytes)})",
        Command(argv, timeout_s=_CREATE_S),
        destroys=", ".join(array.members),
    )
    # where an array of the same shape was before, its content shows again
    wipe = Command(("wipefs", "--all", "--force", "--lock=yes", array.device))
    yield Step(Stage.MKFS, f"wipe old signatures of array {array.id}", wipe, destroys=array.device)


def crypt_steps(crypt: PlannedCrypt) -> Iterator[Step]:
    """Give the step that makes and opens a LUKS container; its key is drawn on the node and is in no plan."""
    if crypt.is_fresh:
        return
    yield Step(
        Stage.MKFS,
        f"make the encrypted {crypt.name}",
        LuksFormat(
            device=crypt.backing,
            name=crypt.name,
            uuid=crypt.uuid,
            sector_bytes=crypt.sector_bytes,
            offset_bytes=LUKS_HEADER_BYTES,
        ),
        destroys=crypt.backing,
    )


def group_steps(group: PlannedGroup) -> Iterator[Step]:
    """Give the steps that make a volume group and its volumes."""
    config = ("--config", _LVM_CONFIG)
    yield Step(
        Stage.MKFS,
        f"make the physical volumes of {group.name}",
        Command(("lvm", "pvcreate", "--yes", "-ff", "--zero", "y", "--dataalignment", "1m", *config, *group.physical)),
        destroys=", ".join(group.physical),
    )
    extent = ("--physicalextentsize", f"{group.extent_mib}m")
    yield Step(
        Stage.MKFS,
        f"make volume group {group.name}",
        Command(("lvm", "vgcreate", "--yes", *extent, *config, group.name, *group.physical)),
    )
    for volume in group.volumes:
        size = format_bytes(volume.extents * group.extent_mib * MIB)
        shape = ("--name", volume.name, "--extents", str(volume.extents))
        clean = ("--wipesignatures", "y", "--zero", "y", "--noudevsync")
        yield Step(
            Stage.MKFS,
            f"make volume {group.name}/{volume.name} ({size})",
            Command(("lvm", "lvcreate", "--yes", *shape, *clean, *config, group.name)),
        )
