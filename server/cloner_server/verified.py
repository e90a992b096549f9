"""Asserts that a version is whole on this server: every part read and hashed before a node destroys anything for it.

What was hashed is remembered by size, time and inode of its file, so the next node of the same deploy does not wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from cloner_core.bootfiles import NotBootableError, boot_lacks, is_boot_name
from cloner_core.errors import IntegrityError, NotFoundError
from cloner_core.image.compression import decompress
from cloner_core.image.digest import digest as digest_of
from cloner_core.image.tree import iter_segment
from cloner_server.catalog import Catalog, Part, Version

_Seen = tuple[int, int, int, int]  # size, mtime, ctime, inode


@dataclass(frozen=True, slots=True)
class Verifier:
    """Hashes parts of versions; two requests for one version share the work."""

    catalog: Catalog
    _good: dict[Path, _Seen] = field(default_factory=dict)
    _boot_names: dict[tuple[bytes, str], tuple[str, ...]] = field(default_factory=dict)  # by version and ESP
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
            hint = "the disk of the store is failing or was written to: restore the store from a backup"
            raise IntegrityError(_listed(version, "damaged", damaged), hint=hint)

    async def require_bootable(self, version: Version, *, esp: str, arch: str) -> None:
        """Raise NotBootableError unless `version` has a kernel and a loader for a clone with its ESP at `esp`."""
        lacking = await asyncio.get_running_loop().run_in_executor(self._worker, self._lacks, version, esp, arch)
        if lacking:
            raise NotBootableError(
                f"the image could not boot from its disk: it lacks {' and '.join(lacking)}",
                hint="install it on the golden node and capture again",
            )

    def _lacks(self, version: Version, esp: str, arch: str) -> tuple[str, ...]:
        key = version.digest, esp
        if key not in self._boot_names:
            self._boot_names[key] = tuple(self._find_boot_names(version, esp))
        return boot_lacks(self._boot_names[key], esp, arch)

    def _find_boot_names(self, version: Version, esp: str) -> Iterator[str]:
        for segment in version.root.segments:
            stored = self.catalog.store.segment_path(segment.digest).read_bytes()
            raw = decompress(stored, segment.raw_size, "segment")
            for inode, _ in iter_segment(raw, segment):
                name = "/" + os.fsdecode(inode.path)
                if is_boot_name(name, esp):
                    yield name

    def _look(self, version: Version) -> tuple[list[str], list[str]]:
        missing, damaged = [], []
        sizes = {pack.digest: pack.stored_size for pack in version.pack_map.packs}
        raw_sizes = {segment.digest: segment.raw_size for segment in version.root.segments}
        wanted = [(Part.PACK, digest) for digest in sizes] + [(Part.SEGMENT, digest) for digest in raw_sizes]
        for part, digest in wanted:
            name = f"{part.value} {digest.hex()}"
            try:
                store = self.catalog.store
                path = store.pack_path(digest) if part is Part.PACK else store.segment_path(digest)
                seen = _seen(path)
                if self._good.get(path) == seen:
                    continue
                if part is Part.PACK:
                    is_whole = seen[0] == sizes[digest] and _hash(path) == digest
                else:
                    is_whole = _is_whole_segment(path, digest, raw_sizes[digest])
            except (NotFoundError, FileNotFoundError):
                missing.append(name)
                continue
            except OSError as fault:
                damaged.append(f"{name} ({fault})")
                continue
            if is_whole:
                self._good[path] = seen
            else:
                damaged.append(name)
        return missing, damaged


def _seen(path: Path) -> _Seen:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _hash(path: Path) -> bytes:
    return blake3().update_mmap(path).digest()


def _is_whole_segment(path: Path, digest: bytes, raw_size: int) -> bool:
    try:
        return digest_of(decompress(path.read_bytes(), raw_size, "segment")) == digest
    except IntegrityError:
        return False


def _listed(version: Version, what: str, names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"version {version.digest.hex()} has {len(names)} {what} parts: {', '.join(names[:10])}{more}"
