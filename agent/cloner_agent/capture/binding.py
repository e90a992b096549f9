"""What a capture index is of: this machine, this tree, these filesystems. It says nothing about anything else."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from cloner_agent.flushing import sync_filesystem
from cloner_agent.rooted import Rooted

_FORMAT = 1
_FS_IOC_GETFSUUID = 0x80111500  # _IOR(0x15, 0, struct fsuuid2), include/uapi/linux/fs.h since Linux 6.9
_BY_UUID = "/dev/disk/by-uuid"
_MACHINE_ID = Path("/etc/machine-id")
_TOLD = {"format": "version of this program", "machine_id": "machine", "root": "directory"}


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an index is bound to."""

    format: int
    machine_id: str
    image: str
    root: str  # real path of the captured tree
    filesystem: dict[bytes, str]  # mount point from the root → identity


encode_binding = msgspec.msgpack.Encoder().encode
decode_binding = msgspec.msgpack.Decoder(Binding).decode


def bind_index(image: str, rooted: Rooted, crossed: Iterable[bytes]) -> Binding:
    """Return what an index of the tree is bound to; what was written to its filesystems before is on their disks then.

    `crossed` are the mounts within it that are captured. Raises OSError when any of this cannot be had.
    """
    machine_id = ""  # where a machine has none, its filesystems tell it apart
    with suppress(FileNotFoundError):
        machine_id = _MACHINE_ID.read_text(errors="replace").strip()
    root = os.readlink(f"/proc/self/fd/{rooted.fd}")
    filesystem: dict[bytes, str] = {}
    for mount in (b"", *sorted(crossed)):
        folder = rooted.directory(mount)
        sync_filesystem(folder)
        filesystem[mount] = _identify(folder)
    return Binding(_FORMAT, machine_id, image, root, filesystem)


def difference(seen: Binding, wanted: Binding) -> str:
    """Return the first thing in which two bindings differ, in words."""
    name = next(field for field in Binding.__struct_fields__ if getattr(seen, field) != getattr(wanted, field))
    return _TOLD.get(name, name)


def _identify(fd: int) -> str:
    """Return what tells the filesystem of an open file from any other: its UUID, as far as the kernel says it."""
    answer = bytearray(17)  # struct fsuuid2: length, sixteen bytes
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFSUUID, answer)
        uuid = answer[1 : 1 + answer[0]].hex()
    except OSError:
        uuid = _uuid_of_device(os.fstat(fd).st_dev)
    return f"{os.fstatvfs(fd).f_fsid:x} {uuid}"  # f_fsid: made of the UUID by ext4, btrfs and f2fs


def _uuid_of_device(device: int) -> str:
    try:
        with os.scandir(_BY_UUID) as links:
            return next((link.name for link in links if link.stat().st_rdev == device), "")
    except OSError:
        return ""
