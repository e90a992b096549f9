"""A part of a tree as a tree of its own, so that the same restore and read-back serve it.

The part keeps its paths and the folders on the way to them; its records are numbered anew. With an owner it is made
for somebody who is not root: what only root can make is changed or left out.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cloner_agent.restore.source import PackSource
from cloner_agent.restore.table import Spill, SpilledTree
from cloner_core.errors import NotFoundError
from cloner_core.image.digest import Bytes
from cloner_core.image.inode import Inode, Kind, encode_inode
from cloner_core.image.packmap import PackMap, PackRef
from cloner_core.image.placement import ENTRY, Placement, decode_placement, encode_placement

_BUFFER_BYTES = 1 << 20
_DEVICES = (Kind.CHARACTER, Kind.BLOCK)

FetchPlacement = Callable[[PackRef], bytes]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who is to have every file."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The part, and where each inode of the whole went."""

    spilled: SpilledTree
    numbers: array[int]  # by number in the whole: the number here of the inode that has its content, 0 for none
    left_out: int  # devices, which only root can make


def select(whole: SpilledTree, paths: Sequence[bytes], owner: Owner | None, work_dir: Path) -> Selection:
    """Return what lies at `paths` (without leading slash, no link followed; none for everything) or beneath them.

    A hard link whose leader is not chosen becomes the file itself. Raises NotFoundError that names every path the
    tree does not have.
    """
    choice = _Choice(paths)
    numbers = array("I", bytes(4 * (whole.table.count + 1)))
    left_out, buffer = 0, bytearray()
    with Spill(work_dir, whole.table.filesystems) as spill:
        for inode in whole.table.range(1, whole.table.count + 1):
            if not choice.takes(inode):
                continue
            leader = whole.table.inode(inode.leader) if inode.leader else inode
            if owner is not None and leader.kind in _DEVICES:
                left_out += 1
                continue
            number = spill.checker.count + 1
            if inode.leader and numbers[inode.leader]:
                made = Inode(number, Kind.LINK, inode.path, leader=numbers[inode.leader])
            else:
                made = msgspec.structs.replace(leader, number=number, path=inode.path)
                numbers[leader.number] = number
                if owner is not None and not whole.table.is_on_esp(inode.path):
                    made = _owned(made, owner)
            record = encode_inode(made)
            spill.note(made, len(record))
            buffer += record
            if len(buffer) >= _BUFFER_BYTES:
                spill.write(buffer)
                buffer.clear()
        choice.require_all()
        spill.write(buffer)
        return Selection(spill.table(), numbers, left_out)


class _Choice:
    """Which records are chosen."""

    def __init__(self, paths: Sequence[bytes]) -> None:
        self._is_everything = not paths or b"" in paths
        self._paths = frozenset(paths)
        self._beneath = tuple(path + b"/" for path in paths)
        parts = (path.split(b"/") for path in paths)
        self._on_the_way = {b"/".join(each[:count]) for each in parts for count in range(len(each))}
        self._missing = set(paths) - {b""}
        self._links: list[Inode] = []  # where a path would have to follow one

    def takes(self, inode: Inode) -> bool:
        path = inode.path
        if path in self._paths:
            self._missing.discard(path)
            return True
        if path in self._on_the_way:
            if inode.kind is Kind.SYMLINK:
                self._links.append(inode)
            return inode.kind is Kind.DIRECTORY
        return self._is_everything or path.startswith(self._beneath)

    def require_all(self) -> None:
        if not self._missing:
            return
        links = (f"{_shown(link.path)} is a link to {os.fsdecode(link.target)}" for link in self._links)
        raise NotFoundError(
            "\n  - ".join(("the version does not have", *map(_shown, sorted(self._missing)))),
            hint="; ".join(("no link is followed", *links)) if self._links else "",
        )


def _shown(path: bytes) -> str:
    return "/" + os.fsdecode(path)


def _owned(inode: Inode, owner: Owner) -> Inode:
    """Return `inode` as somebody who is not root can make it, read it and remove it."""
    mode = inode.mode
    if inode.kind is not Kind.SYMLINK:
        mode = mode & 0o777 | (0o700 if inode.kind is Kind.DIRECTORY else 0o600)
    return msgspec.structs.replace(inode, uid=owner.uid, gid=owner.gid, mode=mode, xattrs=(), flags=0)


class SelectedPacks:
    """The packs that a selection needs, from a source of all of them; satisfies PackSource."""

    def __init__(self, source: PackSource, whole: PackMap, selection: Selection, placements: FetchPlacement) -> None:
        """Ask for the placement record of every pack of `whole`: the tree alone does not say where its chunks are."""
        self._source = source
        self._numbers = selection.numbers
        self._version = whole.version
        self._ordinals = [
            ordinal for ordinal, pack in enumerate(whole.packs) if any(self._placed(pack, placements(pack)))
        ]
        packs = tuple(whole.packs[ordinal] for ordinal in self._ordinals)
        self.pack_map = msgspec.structs.replace(whole, packs=packs)

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[Bytes, Bytes]:
        """Return a pack and what of its placement is chosen; neither is believed."""
        stored, placement = self._source.fetch(self._ordinals[ordinal], pack)
        entries = sorted(self._placed(pack, placement))  # the numbers of leaders may have changed their order
        flat = b"".join(ENTRY.pack(*entry) for entry in entries)
        return stored, encode_placement(Placement(self._version, pack.digest, flat))

    def _placed(self, pack: PackRef, placement: Bytes) -> Iterator[tuple[int, int, int, int]]:
        for number, offset, start, length in decode_placement(placement, self._version, pack.digest, pack.raw_size):
            if number < len(self._numbers) and (made := self._numbers[number]):
                yield made, offset, start, length
