"""Asserts that a version is whole on this server: every part read and hashed before a node destroys anything for it.

Placements have no digest: they are derived once more. What was found whole is remembered by size, time and inode of its
file, so the next node of the same deploy does not wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from blake3 import blake3

from cloner_core.bootfiles import NotBootableError, boot_lacks, is_boot_name
from cloner_core.bootfiles.unified import is_unified_name, read_command_line, unified_fault
from cloner_core.errors import IntegrityError, NotFoundError
from cloner_core.image.compression import decompress
from cloner_core.image.digest import digest as digest_of
from cloner_core.steps import BootFiles
from cloner_core.unlocking import Means, Wanted, is_unlock_name, means_of, unlock_lacks
from cloner_server.catalog import Catalog, Part, Version
from cloner_server.imagefiles import iter_inodes
from cloner_server.storedfile import StoredFiles

_BootNames = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]  # paths; unified kernel images, their command lines
_Seen = tuple[int, int, int, int]  # size, mtime, ctime, inode
_Look = tuple[str, Callable[[], Path], Callable[[Path], bool]]  # name of a part, where it is, whether it is whole


@dataclass(frozen=True, slots=True)
class Verifier:
    """Hashes parts of versions; two requests for one version share the work."""

    catalog: Catalog
    _good: dict[Path, _Seen] = field(default_factory=dict)
    _boot_names: dict[tuple[bytes, str], _BootNames] = field(default_factory=dict)  # by version and ESP
    _unlocking: dict[bytes, Means] = field(default_factory=dict)  # by version
    # One worker: hashing is bound by the disk, and waiters must not hold the threads that heartbeats need.
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "verify"))

    async def verify(self, version: Version) -> None:
        """Read every part of `version` not seen since it changed.

        Raises NotFoundError for a missing part and IntegrityError for a damaged one, naming each of the first ten.
        """
        missing, damaged = await asyncio.get_running_loop().run_in_executor(self._worker, self._look, version)
        if missing:
            raise NotFoundError(_listed(version, "missing", missing), hint="capture again, or restore the store")
        if damaged:
            hint = "the disk of the store fails or was written to: 'cloner store check --read-data', then capture again"
            raise IntegrityError(_listed(version, "damaged", damaged), hint=hint)

    async def require_bootable(self, version: Version, action: BootFiles, arch: str) -> None:
        """Raise NotBootableError unless `version` has a kernel and a loader for the clone of which `action` tells."""
        look_up = asyncio.get_running_loop().run_in_executor(self._worker, self._look_up, version, action.esp)
        names, unified = await look_up
        faults = {
            name: unified_fault(line, root=action.root, root_part_uuid=action.root_part_uuid) for name, line in unified
        }
        unfit = {name: fault for name, fault in faults.items() if fault}
        if lacking := boot_lacks((name for name in names if name not in unfit), action.esp, arch):
            told = "".join(f"; {name} does not count: {fault}" for name, fault in sorted(unfit.items()))
            raise NotBootableError(
                f"the image could not boot from its disk: it lacks {' and '.join(lacking)}{told}",
                hint="install it on the golden node and capture again",
            )

    async def require_unlockable(self, version: Version, wanted: Sequence[Wanted]) -> None:
        """Raise NotBootableError unless `version` has the programs that open what is `wanted`."""
        if not wanted:
            return
        means = await asyncio.get_running_loop().run_in_executor(self._worker, self._means, version)
        if lacking := unlock_lacks(means, wanted):
            raise NotBootableError(
                f"a clone of the image could not open its disks: it lacks {' and '.join(lacking)}",
                hint="install it on the golden node and capture again",
            )

    def _means(self, version: Version) -> Means:
        if version.digest not in self._unlocking:
            self._unlocking[version.digest] = means_of(name for name, _ in self._names(version) if is_unlock_name(name))
        return self._unlocking[version.digest]

    def _look_up(self, version: Version, esp: str) -> _BootNames:
        key = version.digest, esp
        if key not in self._boot_names:
            found = dict(self._find_boot_names(version, esp))
            images = {name: number for name, number in found.items() if is_unified_name(name.removeprefix(f"{esp}/"))}
            files = StoredFiles(self.catalog, version, images.values()) if esp and images else None
            lines = {
                name: read_command_line(lambda offset, size, number=number: files.read(number, offset, size))  # type: ignore[misc]
                for name, number in images.items()
                if files
            }
            unified = tuple((name, line) for name, line in lines.items() if line is not None)
            self._boot_names[key] = tuple(found), unified
        return self._boot_names[key]

    def _find_boot_names(self, version: Version, esp: str) -> Iterator[tuple[str, int]]:
        return ((name, number) for name, number in self._names(version) if is_boot_name(name, esp))

    def _names(self, version: Version) -> Iterator[tuple[str, int]]:
        for inode in iter_inodes(self.catalog.store, version.root):
            yield "/" + os.fsdecode(inode.path), inode.number

    def _look(self, version: Version) -> tuple[list[str], list[str]]:
        missing, damaged = self._look_at(self._part_looks(version))
        if not missing and not damaged:  # all that placements are derived from
            missing, damaged = self._look_at(self._placement_looks(version))
        return missing, damaged

    def _look_at(self, looks: Iterable[_Look]) -> tuple[list[str], list[str]]:
        missing, damaged = list[str](), list[str]()
        for name, find, is_whole in looks:
            try:
                path = find()
                seen = _seen(path)
                if self._good.get(path) == seen:
                    continue
                is_good = is_whole(path)
            except (NotFoundError, FileNotFoundError):
                missing.append(name)
                continue
            except OSError as fault:
                damaged.append(f"{name} ({fault})")
                continue
            if is_good:
                self._good[path] = seen
            else:
                damaged.append(name)
        return missing, damaged

    def _part_looks(self, version: Version) -> Iterator[_Look]:
        store, index = self.catalog.store, version.pack_map.index_digest
        for pack in version.pack_map.packs:
            whole = partial(_is_whole_pack, digest=pack.digest, stored_size=pack.stored_size)
            yield f"{Part.PACK.value} {pack.digest.hex()}", partial(store.pack_path, pack.digest), whole
        for segment in version.root.segments:
            whole = partial(_is_whole_segment, digest=segment.digest, raw_size=segment.raw_size)
            yield f"{Part.SEGMENT.value} {segment.digest.hex()}", partial(store.segment_path, segment.digest), whole
        yield f"pack index {index.hex()}", partial(store.index_path, index), lambda path: _hash(path) == index

    def _placement_looks(self, version: Version) -> Iterator[_Look]:
        name = version.map_digest
        find = partial(self.catalog.store.placements_path, name)
        yield f"placements {name.hex()}", find, lambda _: self._has_whole_placements(name)

    def _has_whole_placements(self, map_digest: bytes) -> bool:
        try:
            return self.catalog.store.has_whole_placements(map_digest)
        except IntegrityError:
            return False


def _seen(path: Path) -> _Seen:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _hash(path: Path) -> bytes:
    return blake3().update_mmap(path).digest()


def _is_whole_pack(path: Path, digest: bytes, stored_size: int) -> bool:
    return path.stat().st_size == stored_size and _hash(path) == digest


def _is_whole_segment(path: Path, digest: bytes, raw_size: int) -> bool:
    try:
        return digest_of(decompress(path.read_bytes(), raw_size, "segment")) == digest
    except IntegrityError:
        return False


def _listed(version: Version, what: str, names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"version {version.digest.hex()} has {len(names)} {what} parts: {', '.join(names[:10])}{more}"
