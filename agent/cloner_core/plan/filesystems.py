"""What each filesystem costs and how it is made: minima, usable bytes, and the mkfs command.

Everything that decides a size is given to mkfs explicitly, so that what is promised here does not depend on the
mke2fs.conf or the defaults of a tool's version.
"""

from __future__ import annotations

from cloner_core.plan.values import Contents, PlannedVolume
from cloner_core.sizes import GIB, MIB, TIB
from cloner_core.steps import Command

_BLOCK = 4096
_INODE = 256
_GROUP = 32768 * _BLOCK
_FAT32_CLUSTERS = 65525 + 16  # firmware tells FAT types by cluster count alone; 16 to be clear of off-by-ones
_LOADERS_BYTES = 16 * MIB  # two sets of shim, GRUB and MokManager
_MKFS_TIMEOUT_S = 900  # mkfs discards the whole partition, and some SSDs take their time
_XFS_INODE = 512
_XFS_LEAST = 320 * MIB  # xfsprogs 5.19 and newer make none below 300 MiB
_BTRFS_LEAST = 256 * MIB
_BTRFS_CHUNK = 256 * MIB  # of metadata, at most a tenth of a small filesystem; kept twice


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
    match filesystem:
        case "vfat":
            return _vfat_usable(size_bytes, sector_bytes, inodes)
        case "xfs":
            return _xfs_usable(size_bytes, inodes)
        case "btrfs":
            return _btrfs_usable(size_bytes, inodes)
    return _ext4_usable(size_bytes, inodes)


def _vfat_usable(size_bytes: int, sector_bytes: int, inodes: int) -> int:
    cluster = fat_cluster_sectors(size_bytes, sector_bytes) * sector_bytes
    tables = 2 * 4 * (size_bytes // cluster) + 32 * sector_bytes
    return size_bytes - tables - _LOADERS_BYTES - inodes * (cluster + 512)  # slack and directory entries


def _ext4_usable(size_bytes: int, inodes: int) -> int:
    groups = -(-size_bytes // _GROUP)
    per_group = -(-ext4_inodes(size_bytes, inodes) // groups)
    inode_tables = groups * (-(-per_group // 16) * 16) * _INODE
    descriptors = -(-groups * 64 // _BLOCK) + 1024  # 1024 blocks kept by resize_inode at most
    backups = 1 + sum(1 for group in range(groups) if is_backup_group(group)) if groups < 64 else 32
    metadata = inode_tables + groups * 2 * _BLOCK + backups * (1 + descriptors) * _BLOCK + journal_mib(size_bytes) * MIB
    reserved = size_bytes // 20  # the 5 % mke2fs keeps for root: a clone must not be full when it first boots
    return size_bytes - metadata - reserved - size_bytes // 100


def _xfs_usable(size_bytes: int, inodes: int) -> int:
    """The log, what the kernel keeps per allocation group for its trees, and inodes, which are made as they come."""
    kept = size_bytes // 50 + 16 * MIB
    return size_bytes - xfs_log_mib(size_bytes) * MIB - kept - inodes * _XFS_INODE * 5 // 4 - size_bytes // 20


def _btrfs_usable(size_bytes: int, inodes: int) -> int:
    """Metadata is kept twice (DUP) and taken in chunks: about 1 KiB an inode, with its names and extents."""
    chunk = min(_BTRFS_CHUNK, size_bytes // 10)
    metadata = max(inodes * 1024 * 5 // 4, chunk)
    return size_bytes - 2 * (metadata + chunk // 2) - 64 * MIB - size_bytes // 20


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
    if filesystem == "ext4" and ext4_inodes(size_bytes, contents.inodes) > size_bytes // _BLOCK:
        return False  # a group holds no more
    if size_bytes < floor_bytes(filesystem, sector_bytes):
        return False
    return contents.allocated_bytes <= usable_bytes(filesystem, size_bytes, sector_bytes, contents.inodes)


def least_bytes(contents: Contents, filesystem: str, sector_bytes: int) -> int:
    """Return a size, a whole number of MiB, at which `contents` fit; within 1 % of the least."""
    low = high = floor_bytes(filesystem, sector_bytes) // MIB
    while not fits(contents, filesystem, high * MIB, sector_bytes):
        low, high = high, high * 2
    while high - low > max(high // 100, 1):
        middle = (low + high) // 2
        if fits(contents, filesystem, middle * MIB, sector_bytes):
            high = middle
        else:
            low = middle
    return high * MIB


def floor_bytes(filesystem: str, sector_bytes: int) -> int:
    """Return the least size that the tool makes a filesystem of."""
    if filesystem == "vfat":
        return fat32_minimum_bytes(sector_bytes)
    return {"xfs": _XFS_LEAST, "btrfs": _BTRFS_LEAST}.get(filesystem, 16 * MIB)


def xfs_log_mib(size_bytes: int) -> int:
    """Return the log's size in MiB: 64 as mkfs.xfs has it, more where many write at once."""
    return next((mib for bound, mib in ((512 * GIB, 64), (4 * TIB, 256)) if size_bytes < bound), 1024)


def ext4_inodes(size_bytes: int, inodes: int) -> int:
    """Return how many inodes to make: mke2fs's own ratios, and never less than a fifth above what is restored."""
    ratio = 16384 if size_bytes < 4 * TIB else 65536
    return max(size_bytes // ratio, inodes * 6 // 5 + 4096)


def journal_mib(size_bytes: int) -> int:
    """Return the journal's size in MiB: mke2fs's own steps, up to 256."""
    steps = ((GIB // 8, 4), (GIB, 16), (2 * GIB, 32), (16 * GIB, 64), (32 * GIB, 128))
    return next((mib for bound, mib in steps if size_bytes < bound), 256)


def mkfs_command(volume: PlannedVolume, inodes: int, *, has_old_xfs: bool = False) -> Command:
    """Return the command that makes the filesystem of `volume` for at least `inodes` files.

    `has_old_xfs`: a system older than Linux 5.10 is to mount it.
    """
    if volume.filesystem == "xfs":
        return Command(argv=_mkfs_xfs(volume, has_old_xfs=has_old_xfs), timeout_s=_MKFS_TIMEOUT_S)
    make = {"swap": _mkswap, "vfat": _mkfs_vfat, "btrfs": _mkfs_btrfs}.get(volume.filesystem)
    argv = make(volume) if make else _mkfs_ext4(volume, inodes)
    return Command(argv=argv, timeout_s=_MKFS_TIMEOUT_S)


def _label(option: str, volume: PlannedVolume) -> tuple[str, ...]:
    return (option, volume.label) if volume.label else ()


def _mkswap(volume: PlannedVolume) -> tuple[str, ...]:
    return ("mkswap", "-U", volume.uuid, *_label("-L", volume), volume.device)


def _mkfs_vfat(volume: PlannedVolume) -> tuple[str, ...]:
    cluster = str(fat_cluster_sectors(volume.size_bytes, volume.sector_bytes))
    fixed = ("-F", "32", "-S", str(volume.sector_bytes), "-s", cluster, "-i", volume.uuid.replace("-", ""))
    return ("mkfs.vfat", *fixed, *_label("-n", volume), volume.device)


def _mkfs_ext4(volume: PlannedVolume, inodes: int) -> tuple[str, ...]:
    return (
        "mkfs.ext4",
        # -F: no question when an old signature is there after all; lazy_itable_init is safe with metadata_csum
        *("-q", "-F", "-b", str(_BLOCK), "-I", str(_INODE), "-N", str(ext4_inodes(volume.size_bytes, inodes))),
        *("-J", f"size={journal_mib(volume.size_bytes)}", "-E", "lazy_itable_init=1"),
        # GRUB 2.06 refuses the first; kernels before 5.15 mount the second read-only after a crash
        *("-O", "^metadata_csum_seed,^orphan_file", "-U", volume.uuid, *_label("-L", volume), volume.device),
    )


def _mkfs_xfs(volume: PlannedVolume, *, has_old_xfs: bool) -> tuple[str, ...]:
    # kernels before 5.10 and GRUB before 2.06 refuse the first; such kernels mount the second read-only
    recent = ",bigtime=0,inobtcount=0" if has_old_xfs else ""
    # nrext64 and larger sectors than the disk's are what kernels before 5.19 and GRUB 2.06 do not read
    return (
        *("mkfs.xfs", "-q", "-f", "-m", f"crc=1,finobt=1,reflink=1,rmapbt=0{recent},uuid={volume.uuid}"),
        *("-i", f"size={_XFS_INODE},nrext64=0", "-s", f"size={max(volume.sector_bytes, 512)}"),
        *("-l", f"size={xfs_log_mib(volume.size_bytes)}m", *_label("-L", volume), volume.device),
    )


def _mkfs_btrfs(volume: PlannedVolume) -> tuple[str, ...]:
    # metadata twice, on SSDs as well; both features are read by kernels since 4.5 and by GRUB
    features = ("-O", "no-holes", "-R", "free-space-tree")
    return (
        *("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "dup", "-n", "16384", "-s", "4096", "-U", volume.uuid),
        *(*features, *_label("-L", volume), volume.device),
    )
