"""Finds the systems on the disks of the node: every filesystem, and every subvolume, that could be a root.

Must not choose one; `cloner_core.roots` does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from cloner_agent.atrest.assembling import Assembly
from cloner_agent.atrest.mounting import UncleanError, mounted_clean
from cloner_agent.capture.mounts import LOCAL_TYPES
from cloner_agent.capture.source import read_start
from cloner_agent.failures import StageError
from cloner_agent.host import Runner, ToolError
from cloner_agent.rooted import Rooted
from cloner_core.detection import Block, BtrfsTold
from cloner_core.detection.mounting import Names
from cloner_core.detection.parsing import parse_subvolumes
from cloner_core.facts import Disk
from cloner_core.fstab import entries
from cloner_core.messages import Cause
from cloner_core.roots import RootSeen
from cloner_core.systems import system_name

log = logging.getLogger(__name__)

_TOP = "subvolid=5"  # BTRFS_FS_TREE_OBJECTID
_RELEASES = ("etc/os-release", "usr/lib/os-release")
_SUBVOLUME = "subvol="
_MD = "/dev/md"


class Systems:
    """What could be a root; filesystems that nobody could look into are in `unread`, with the reason."""

    def __init__(self, run: Runner, assembly: Assembly, names: Names, place: str) -> None:
        """Mount each filesystem at `place` for a moment, and look."""
        self._run = run
        self._names = names
        self._place = place
        self.unread: list[UncleanError | ToolError] = []
        self.roots: list[RootSeen] = []
        seen: set[str] = set()
        for block in assembly.blocks.values():
            is_root_kind = block.filesystem in LOCAL_TYPES and block.filesystem != "vfat"
            if not is_root_kind or block.children or block.uuid in seen:
                continue  # of a btrfs on several devices one tells all
            seen.add(block.uuid)
            try:
                self.roots += self._look(block)
            except (UncleanError, ToolError) as why:
                self.unread.append(why)

    def _look(self, block: Block) -> Iterator[RootSeen]:
        options = (_TOP,) if block.filesystem == "btrfs" else ()
        with mounted_clean(self._run, block.path, block.filesystem, self._place, options), Rooted(self._place) as top:
            if block.filesystem != "btrfs":
                if (root := self._root(block, top, None)) is not None:
                    yield root
                return
            listed = parse_subvolumes(
                BtrfsTold(*(self._btrfs(*words) for words in (("list",), ("list", "-s"), ("get-default",))))
            )
            paths = {"", listed.default, *listed.paths} - (listed.snapshots - {listed.default})
            for path in sorted(paths):
                if path and not _is_directory(top, path):
                    continue
                fd = top.open(path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
                try:
                    with Rooted(fd) as inner:
                        root = self._root(block, inner, path, is_default=path == listed.default)
                finally:
                    os.close(fd)
                if root is not None:
                    yield root

    def _btrfs(self, *words: str) -> str:
        verb, *rest = words
        return self._run(("btrfs", "subvolume", verb, *rest, self._place)).stdout

    def _root(self, block: Block, tree: Rooted, subvolume: str | None, *, is_default: bool = True) -> RootSeen | None:
        if not any(_is_there(tree, path) for path in _RELEASES) or not _is_directory(tree, "etc"):
            return None
        release = next((text for path in _RELEASES if (text := read_start(tree, path))), b"")
        hostname = read_start(tree, "etc/hostname")
        return RootSeen(
            device=block.path,
            kind=block.filesystem,
            uuid=block.uuid,
            label=block.label,
            part_uuid=block.part_uuid,
            subvolume=subvolume,
            system=system_name(release.decode(errors="replace"), hostname.decode(errors="replace")),
            is_own=self._names_itself(block, tree, subvolume, is_default=is_default),
        )

    def _names_itself(self, block: Block, tree: Rooted, subvolume: str | None, *, is_default: bool) -> bool:
        for entry in entries(read_start(tree, "etc/fstab")):
            if entry.mount == "/" and self._names.find(entry.device) == block.path:
                said = [word.removeprefix(_SUBVOLUME) for word in entry.options.split(",") if _SUBVOLUME in word]
                return subvolume is None or (said[-1].strip("/") == subvolume if said else is_default)
        return False


def refuse_twins(assembly: Assembly) -> None:
    """Raise StageError (FOREIGN_UUID) for two filesystems with one UUID, copies: which one is meant nobody can tell.

    The devices of one btrfs have one UUID; copies of an ESP have one too, and are no root.
    """
    found: dict[tuple[str, str], str] = {}
    for block in assembly.blocks.values():
        if block.children or not block.uuid or block.filesystem not in LOCAL_TYPES - {"btrfs", "vfat"}:
            continue
        other = found.setdefault((block.filesystem, block.uuid), block.path)
        if other != block.path:
            what = f"{block.filesystem}, UUID={block.uuid}"
            raise StageError(Cause.FOREIGN_UUID, f"{other} and {block.path} hold one and the same {what}")


def names_of(assembly: Assembly, disks: tuple[Disk, ...]) -> Names:
    """Return what finds a device by the words of fstab(5)."""
    arrays = {}
    if os.path.isdir(_MD):
        arrays = {entry.name: os.path.realpath(entry.path) for entry in os.scandir(_MD)}
    return Names(assembly.blocks, disks, arrays)


def _is_there(tree: Rooted, path: str) -> bool:
    try:
        tree.lstat(path)
    except OSError:
        return False
    return True


def _is_directory(tree: Rooted, path: str) -> bool:
    try:
        os.close(tree.open(path, os.O_RDONLY | os.O_DIRECTORY, follow=False))
    except OSError:
        return False
    return True
