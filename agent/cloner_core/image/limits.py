"""The numbers of the image format: sizes that define it and caps that bound what hostile bytes may ask for."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

FORMAT = 1  # of the tree root and of the pack map

DIGEST_BYTES = 32  # BLAKE3

CHUNK_BYTES = MIB  # chunks end at multiples of this offset of their file
PACK_RAW_BYTES = 4 * MIB  # a pack is closed before it would exceed this
PACK_STORED_BYTES = PACK_RAW_BYTES + 64 * KIB  # incompressible chunks and the frame around them
ZSTD_LEVEL = 3
ZSTD_WINDOW_LOG = 23  # a frame asking for a window above 8 MiB is refused

SEGMENT_INODES = 16384  # a segment is closed at this many records …
SEGMENT_RAW_BYTES = 4 * MIB  # … or before it would exceed this; a longer record is alone in its segment

# A segment may be sent as what it has and others have not; both ends hold all of them in memory meanwhile.
ONTO_MOST = 2
ZSTD_ONTO_WINDOW_LOG = 24  # ONTO_MOST segments and the one made of them

MAX_FILE_BYTES = 16 * TIB  # logical, holes included
MAX_FILE_CHUNKS = 1 << 21  # 2 TiB of data in one file
MAX_FILE_HOLES = 1 << 18
MAX_RECORD_BYTES = MAX_FILE_CHUNKS * DIGEST_BYTES + MAX_FILE_HOLES * 16 + 2 * MIB
MAX_PATH_BYTES = 4095  # PATH_MAX without its NUL, include/uapi/linux/limits.h
MAX_NAME_BYTES = 255  # NAME_MAX
MAX_XATTR_NAMES_BYTES = 64 * KIB  # XATTR_LIST_MAX, NULs counted
MAX_XATTR_VALUE_BYTES = 64 * KIB  # XATTR_SIZE_MAX
MAX_XATTRS_BYTES = MIB  # values of one inode together
MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "leave as it is" to chown(2)
MAX_DEVICE_MAJOR = (1 << 12) - 1
MAX_DEVICE_MINOR = (1 << 20) - 1
MAX_FILESYSTEMS = 31
MAX_SEGMENTS = 1 << 18
MAX_INODES = 1 << 28
MAX_PACKS = 1 << 24
MAX_ROOT_BYTES = 64 * MIB
MAX_MAP_BYTES = 2 * GIB - 1
