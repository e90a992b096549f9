"""What was told of a machine, joined: which device lies on which, what is mounted from it, and what it belongs to.

Must not make parts of a layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from cloner_core.detection.mounting import Names, Place, Places, places
from cloner_core.detection.parsing import (
    ArraySeen,
    Block,
    CryptEntry,
    parse_array,
    parse_blocks,
    parse_crypttab,
    parse_groups,
    parse_logical,
    parse_mounts,
    parse_physical,
)
from cloner_core.detection.told import Told
from cloner_core.facts import Disk, DiskPartition
from cloner_core.fstab import entries
from cloner_core.plan.values import partition_path

_RANDOM = frozenset({"/dev/urandom", "/dev/random", "/dev/hwrng"})


class Seen:
    """A machine as its tools tell it."""

    def __init__(self, told: Told) -> None:
        """Read everything that was told."""
        self.told = told
        self.blocks = parse_blocks(told.lsblk, told.blkid)
        self.arrays: dict[str, ArraySeen] = {path: parse_array(one.export) for path, one in told.arrays.items()}
        self.groups = {group.name: group for group in parse_groups(told.groups)}
        self.logical = parse_logical(told.logical)
        self.physical = parse_physical(told.physical)
        self.names = Names(self.blocks, told.disks, {array.name: path for path, array in self.arrays.items()})
        self.crypttab: dict[str, CryptEntry] = {one.name: one for one in parse_crypttab(told.crypttab)}
        self.mounts = parse_mounts(told.mounts)
        self.places: Places = places(self.names, entries(told.fstab), self.mounts, told.root)

    def whole(self, disk: Disk) -> Block:
        """Return the device of a whole disk; of one on several cables the mapping that joins them."""
        block = self.blocks.get(disk.path) or _unseen(disk.path, disk.size_bytes)
        joined = (self.blocks.get(child) for child in block.children)
        return next((child for child in joined if child and child.kind == "mpath"), block)

    def partition(self, disk: Disk, entry: DiskPartition) -> Block:
        """Return the device of a partition."""
        beneath = [self.blocks[child] for child in self.whole(disk).children if child in self.blocks]
        same = (one for one in beneath if entry.part_uuid and one.part_uuid == entry.part_uuid)
        path = partition_path(disk.path, entry.number)
        return next(same, None) or self.blocks.get(path) or _unseen(path, entry.size_bytes)

    def children(self, block: Block) -> list[Block]:
        """Return what lies on `block`."""
        return [self.blocks[child] for child in block.children if child in self.blocks]

    def mounted(self, block: Block) -> tuple[Place, ...]:
        """Return where it is mounted."""
        return self.places.by_device.get(block.path, ())

    def above(self, paths: Iterable[str]) -> set[str]:
        """Return the devices at `paths` and everything that lies on them."""
        found: set[str] = set()
        left = list(paths)
        while left:
            if (path := left.pop()) not in found:
                found.add(path)
                left += self.blocks[path].children if path in self.blocks else ()
        return found

    def mounted_now(self) -> Iterator[tuple[str, str]]:
        """Give the device of each mount of now and its mount point in the tree."""
        prefix = self.told.root.rstrip("/")
        for seen in self.mounts:
            device = self.names.find(seen.source)
            if device and (seen.target.startswith(f"{prefix}/") or seen.target == (prefix or "/")):
                yield device, seen.target.removeprefix(prefix) or "/"

    def twins(self, block: Block) -> list[str]:
        """Return the devices with the same filesystem that do not lie on one another; several are parts of one."""
        same = {
            one.path
            for one in self.blocks.values()
            if (one.filesystem, one.uuid) == (block.filesystem, block.uuid) and block.uuid
        }
        return sorted(path for path in same if not set(self.blocks[path].children) & same)

    def kinds(self, block: Block) -> list[str]:
        """Return everything that lies on `block`, where it is a disk or a partition: blkid names none of several."""
        found = (one.kind for disk in self.told.disks for one in disk.signatures if one.device == block.path)
        return sorted({kind for kind in found if kind and kind not in ("gpt", "dos", "PMBR")})

    def random_mapping(self, block: Block) -> str:
        """Return the name under which crypttab opens `block` with a new key at each boot; "" when it does not.

        Whether it is open now does not matter: before the first boot, or in a tree at rest, it is not.
        """
        above = {one.name for one in self.children(block) if one.kind == "crypt"}
        entries = (one for one in self.crypttab.values() if one.key in _RANDOM)
        return next((one.name for one in entries if one.name in above or self.names.find(one.device) == block.path), "")


def _unseen(path: str, size_bytes: int) -> Block:
    return Block(path, path.rpartition("/")[2], "", size_bytes, "", "", "", "", ())


class Findings(msgspec.Struct):
    """What cannot be described, and what an admin should know; grows while the layout is made."""

    faults: list[str] = []
    notes: list[str] = []

    def fault(self, device: str, what: str, remedy: str) -> None:
        """Note what of `device` no layout describes, and what to do."""
        self.faults.append(f"{device} {what}; {remedy}")

    def note(self, text: str) -> None:
        """Note something once."""
        if text not in self.notes:
            self.notes.append(text)
