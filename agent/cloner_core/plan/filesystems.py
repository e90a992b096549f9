"""What each filesystem costs and how it is made: minima, usable bytes, and the mkfs command.

Everything that decides a size is given to mkfs explicitly, so that what is promised here does not depend on the
mke2fs.conf or the defaults of a tool's version.
"""

from __future__ import annotations

from cloner_core.plan.values import Contents, PlannedPartition
from cloner_core.sizes import GIB, MIB, TIB
from cloner_core.steps import Command

_BLOCK = 4096
_INODE = 256
_GROUP = 32768 * _BLOCK
_FAT32_CLUSTERS = 65525 + 16  # firmware tells FAT types by cluster count alone; 16 to be clear of off-by-ones
_LOADERS_BYTES = 16 * MIB  # two sets of shim, GRUB and MokManager
_MKFS_TIMEOUT_S = 900  # mkfs discards the whole partition, and some SSDs take their time


def fat_cluster_sectors(size_bytes: int, sector_bytes: int) -> int:
    """Return sectors per cluster: 4 KiB clusters where that keeps it FAT32, else single sectors."""
    large = max(4096 // sector_bytes, 1)
    return large if size_bytes >= _fat32_bytes(large, sector_bytes) else 1


def fat32_minimum_bytes(sector_bytes: int) -> int:
    """Return the least size at which mkfs.vfat makes a real FAT32: 33 MiB at 512-byte sectors, 257 MiB at 4096."""
    return -(-_fat32_bytes(1, sector_bytes) // MIB) * MIB


def _fat32_bytes(cluster_sectors: int, sector_bytes: int) -> int:
    fat_sectors = -(-(_FAT32_CLUSTERS + 2) * 4 // sector_bytes)
    # 32 reserved sectors; mkfs.vfat may align the data to a cluster
    return (32 + 2 * fat_sectors + (_FAT32_CLUSTERS + 1) * cluster_sectors) * sector_bytes


def usable_bytes(filesystem: str, size_bytes: int, sector_bytes: int, inodes: int) -> int:
    """Return how many bytes of files a new filesystem of `size_bytes` takes at least; `inodes` of every kind."""
    if filesystem == "vfat":
        cluster = fat_cluster_sectors(size_bytes, sector_bytes) * sector_bytes
        tables = 2 * 4 * (size_bytes // cluster) + 32 * sector_bytes
        return size_bytes - tables - _LOADERS_BYTES - inodes * (cluster + 512)  # slack and directory entries
    groups = -(-size_bytes // _GROUP)
    per_group = -(-ext4_inodes(size_bytes, inodes) // groups)
    inode_tables = groups * (-(-per_group // 16) * 16) * _INODE
    descriptors = -(-groups * 64 // _BLOCK) + 1024  # 1024 blocks kept by resize_inode at most
    backups = 1 + sum(1 for group in range(groups) if is_backup_group(group)) if groups < 64 else 32
    metadata = inode_tables + groups * 2 * _BLOCK + backups * (1 + descriptors) * _BLOCK + journal_mib(size_bytes) * MIB
    reserved = size_bytes // 20  # the 5 % mke2fs keeps for root: a clone must not be full when it first boots
    return size_bytes - metadata - reserved - size_bytes // 100


def is_backup_group(group: int) -> bool:
    """Whether a block group holds a copy of the superblock (ext4 sparse_super: 0, 1 and powers of 3, 5, 7)."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


def fits(contents: Contents, filesystem: str, size_bytes: int, sector_bytes: int) -> bool:
    """Whether `contents` fit into a new filesystem of `size_bytes`."""
    if (
        filesystem != "vfat" and ext4_inodes(size_bytes, contents.inodes) > size_bytes // _BLOCK
    ):  # a group holds no more
        return False
    return contents.allocated_bytes <= usable_bytes(filesystem, size_bytes, sector_bytes, contents.inodes)


def least_bytes(contents: Contents, filesystem: str, sector_bytes: int) -> int:
    """Return a size, a whole number of MiB, at which `contents` fit; within 1 % of the least."""
    floor = fat32_minimum_bytes(sector_bytes) if filesystem == "vfat" else 16 * MIB
    low, high = floor // MIB, floor // MIB
    while not fits(contents, filesystem, high * MIB, sector_bytes):
        low, high = high, high * 2
    while high - low > max(high // 100, 1):
        middle = (low + high) // 2
        if fits(contents, filesystem, middle * MIB, sector_bytes):
            high = middle
        else:
            low = middle
    return high * MIB


def ext4_inodes(size_bytes: int, inodes: int) -> int:
    """Return how many inodes to make: mke2fs's own ratios, and never less than a fifth above what is restored."""
    ratio = 16384 if size_bytes < 4 * TIB else 65536
    return max(size_bytes // ratio, inodes * 6 // 5 + 4096)


def journal_mib(size_bytes: int) -> int:
    """Return the journal's size in MiB: mke2fs's own steps, up to 256."""
    steps = ((GIB // 8, 4), (GIB, 16), (2 * GIB, 32), (16 * GIB, 64), (32 * GIB, 128))
    return next((mib for bound, mib in steps if size_bytes < bound), 256)


def mkfs_command(partition: PlannedPartition, sector_bytes: int, inodes: int) -> Command:
    """Return the command that makes the filesystem of `partition` for at least `inodes` files."""
    label = ("-n" if partition.filesystem == "vfat" else "-L", partition.label) if partition.label else ()
    size_bytes = partition.size_sectors * sector_bytes
    if partition.filesystem == "swap":
        argv: tuple[str, ...] = ("mkswap", "-U", partition.uuid, *label, partition.device)
    elif partition.filesystem == "vfat":
        cluster = str(fat_cluster_sectors(size_bytes, sector_bytes))
        fixed = ("-F", "32", "-S", str(sector_bytes), "-s", cluster, "-i", partition.uuid.replace("-", ""))
        argv = ("mkfs.vfat", *fixed, *label, partition.device)
    else:
        argv = (
            "mkfs.ext4",
            # -F: no question when an old signature is there after all; lazy_itable_init is safe with metadata_csum
            *("-q", "-F", "-b", str(_BLOCK), "-I", str(_INODE), "-N", str(ext4_inodes(size_bytes, inodes))),
            *("-J", f"size={journal_mib(size_bytes)}", "-E", "lazy_itable_init=1"),
            # GRUB 2.06 refuses the first; kernels before 5.15 mount the second read-only after a crash
            *("-O", "^metadata_csum_seed,^orphan_file", "-U", partition.uuid, *label, partition.device),
        )
    return Command(argv=argv, timeout_s=_MKFS_TIMEOUT_S)
