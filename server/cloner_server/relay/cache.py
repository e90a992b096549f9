"""What a relay keeps of versions, on its own disk: so much and no more, and never by half.

What live sessions need is pinned; of all else goes first what was used last the longest ago.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from blake3 import blake3

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import ClonerError, IntegrityError, InvalidError, RefusedError
from cloner_core.image.digest import digest, require_digest
from cloner_core.image.limits import DIGEST_BYTES
from cloner_core.image.packmap import PackMap, decode_map
from cloner_core.seats import ParcelList, parcel_head, split_parcel
from cloner_core.sizes import format_bytes
from cloner_server.durable import replace_file
from cloner_server.relay.cachefiles import CacheReader, name_of

_MARK = "cloner-relay.lock"
_MODE = 0o600  # images hold what only root may read
_RESERVE_BYTES = 64 << 20  # of the disk, which is not the cache's alone


class CacheFullError(ClonerError):
    """The cache has no room for a version, whatever is taken away of what no live session needs."""


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold a cache's directory, made when missing.

    Raises RefusedError while another relay has it, and for a directory with other things in it.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (root / _MARK).exists() and any(root.iterdir()):
        raise RefusedError(f"{root} is not empty, and no cache of a relay", hint="--cache DIR: a directory of its own")
    descriptor = os.open(root / _MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RefusedError(f"another relay has the cache {root}", hint="--cache DIR: each has its own") from None
    try:
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Known:
    """A pack map that is kept, with the names of its parcels."""

    name: bytes
    pack_map: PackMap
    parcels: ParcelList


class PackCache:
    """The cache of one relay. Safe to use from several threads of the one process that `held` it."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        """Take what is there; what was being written when a relay was killed is taken away."""
        self.files = CacheReader(root)
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._pinned: dict[bytes, frozenset[bytes]] = {}  # maps of live sessions, with their packs once known
        for path in (self.files.packs, self.files.maps):
            path.mkdir(mode=0o700, exist_ok=True)
            for half in path.rglob(".*"):
                half.unlink(missing_ok=True)
        self._used_bytes = _size(self.files.packs) + _size(self.files.maps)

    @property
    def used_bytes(self) -> int:
        """What lies there in all."""
        return max(0, self._used_bytes)

    def pin(self, maps: Collection[bytes]) -> None:
        """Keep all that is of these maps, and nothing else for good."""
        with self._lock:
            self._pinned = {name: self._pinned.get(name, frozenset()) for name in maps}
        for name in maps:
            with suppress(OSError):  # who fetches it meets the same, and tells it
                self.known(name)

    def known(self, name: bytes) -> Known | None:
        """Return a map that is here, None when it is not, or not whole; it counts as used now."""
        try:
            found = self._read(name)
        except (FileNotFoundError, IntegrityError, *UNREADABLE):
            return None
        with self._lock:
            if name in self._pinned:
                self._pinned[name] = frozenset(pack.digest for pack in found.pack_map.packs)
        _use(self.files.map_path(name))
        return found

    def keep_map(self, name: bytes, encoded: bytes, parcels: ParcelList) -> Known:
        """Keep a map and the list of its parcels. Raises IntegrityError when they cannot be, or CacheFullError."""
        require_digest(encoded, name, f"pack map {name.hex()}")
        packs = decode_map(encoded).packs
        if not len(packs) == len(parcels.digests) == len(parcels.sizes):
            raise IntegrityError(f"{len(parcels.digests)} parcels cannot be of a map of {len(packs)} packs")
        listed = msgspec.json.encode(parcels)
        self.make_room(f"pack map {name.hex()}", len(encoded) + len(listed) + DIGEST_BYTES)
        self.files.record_path(name, 0).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(self.files.list_path(name), digest(listed) + listed)
        self._write(self.files.map_path(name), encoded)  # last: without it nothing is known of the map
        found = self.known(name)
        assert found is not None
        return found

    def missing(self, known: Known) -> list[int]:
        """Return the parcels (from 0) of which anything is missing; packs that are here count as used now."""
        found = []
        for ordinal, pack in enumerate(known.pack_map.packs):
            record_bytes = known.parcels.sizes[ordinal] - pack.stored_size - len(parcel_head(b""))
            is_there = _has(self.files.record_path(known.name, ordinal), record_bytes)
            if not (self.has_pack(known, ordinal) and is_there):
                found.append(ordinal)
        return found

    def has_pack(self, known: Known, ordinal: int) -> bool:
        """Tell whether the pack of a parcel is here, of this or of any other map."""
        pack = known.pack_map.packs[ordinal]
        path = self.files.where_pack(pack.digest)
        if not _has(path, pack.stored_size):
            return False
        _use(path)
        return True

    def missing_bytes(self, known: Known, ordinals: Collection[int]) -> int:
        """Return what these parcels would take."""
        sizes, packs = known.parcels.sizes, known.pack_map.packs
        kept = sum(packs[ordinal].stored_size for ordinal in ordinals if self.has_pack(known, ordinal))
        return sum(sizes[ordinal] for ordinal in ordinals) - kept

    def make_room(self, what: str, wanted_bytes: int) -> None:
        """Take away what was used last the longest ago, until `wanted_bytes` more have room. Raises CacheFullError."""
        with self._lock:
            for path in self._oldest_first():
                if self._room_bytes() >= wanted_bytes:
                    return
                self._remove(path)
            if (room := self._room_bytes()) < wanted_bytes:
                raise CacheFullError(
                    f"{what} wants {format_bytes(wanted_bytes)} more, and the cache has {format_bytes(max(0, room))}"
                    f" free of {format_bytes(self.limit_bytes)} beside what live sessions need",
                    hint="cloner relay --cache-size, or another disk: --cache DIR",
                )

    def keep_parcel(self, known: Known, ordinal: int, parcel: bytes) -> None:
        """Keep a parcel. Raises IntegrityError when it is another than the list says, OSError when it cannot be."""
        pack = known.pack_map.packs[ordinal]
        what = f"parcel {ordinal} (pack {pack.digest.hex()})"
        require_digest(parcel, bytes.fromhex(known.parcels.digests[ordinal]), what)
        stored, record = split_parcel(memoryview(parcel))
        require_digest(stored, pack.digest, f"pack {pack.digest.hex()}")
        self._write(self.files.where_pack(pack.digest), stored)
        self._write(self.files.record_path(known.name, ordinal), record)

    def keep_record(self, known: Known, ordinal: int, record: bytes) -> bool:
        """Keep the placement record of a pack that is here; False, and neither is kept, when they do not fit."""
        pack, head = known.pack_map.packs[ordinal], parcel_head(record)
        path = self.files.where_pack(pack.digest)
        try:
            found = blake3(head).update(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return False
        if found != known.parcels.digests[ordinal]:
            self._forget(path)
            return False
        self._write(self.files.record_path(known.name, ordinal), record)
        return True

    def drop_damaged(self, known: Known) -> list[int]:
        """Read every parcel of a map, and take away what is damaged; returns those (from 0)."""
        found = []
        for ordinal, wanted in enumerate(known.parcels.digests):
            record, pack = self.files.record_path(known.name, ordinal), known.pack_map.packs[ordinal]
            path = self.files.where_pack(pack.digest)
            try:
                is_whole = blake3(parcel_head(record.read_bytes())).update(path.read_bytes()).hexdigest() == wanted
            except FileNotFoundError:
                continue
            except OSError:  # a sector that cannot be read any more
                is_whole = False
            if not is_whole:
                found.append(ordinal)
                self._forget(record)
                self._forget(path)
        return found

    def _read(self, name: bytes) -> Known:
        encoded = self.files.map_path(name).read_bytes()
        require_digest(encoded, name, f"pack map {name.hex()}")
        listed = self.files.list_path(name).read_bytes()
        require_digest(listed[DIGEST_BYTES:], listed[:DIGEST_BYTES], f"the list of parcels of {name.hex()}")
        return Known(name, decode_map(encoded), msgspec.json.decode(listed[DIGEST_BYTES:], type=ParcelList))

    def _write(self, path: Path, content: bytes | memoryview) -> None:
        before = path.stat().st_size if path.exists() else 0
        # A power cut may leave it empty or wrong: everything is measured and digested before it is used, and had again.
        replace_file(path, content, _MODE, is_durable=False)
        with self._lock:
            self._used_bytes += len(content) - before

    def _forget(self, path: Path) -> None:
        with self._lock:
            self._remove(path)

    def _remove(self, path: Path) -> None:
        """Take a file or the directory of a map away; the lock is held."""
        with suppress(FileNotFoundError):
            size = _size(path)
            if path.is_dir():
                (path / "map").unlink(missing_ok=True)  # first: what is left of a kill is not taken for a whole
                shutil.rmtree(path)
            else:
                path.unlink()
            self._used_bytes -= size

    def _room_bytes(self) -> int:
        free = shutil.disk_usage(self.files.root).free - _RESERVE_BYTES
        return min(self.limit_bytes - self._used_bytes, free)

    def _oldest_first(self) -> list[Path]:
        """Return what may go, what was used last the longest ago first."""
        pinned = frozenset().union(*self._pinned.values())
        found: list[tuple[float, Path]] = []
        for path in (*self.files.packs.iterdir(), *self.files.maps.iterdir()):
            try:
                name = name_of(path)
            except InvalidError:  # it is being written, or nothing of ours
                continue
            if name not in self._pinned and name not in pinned:
                found.append((_used_s(path), path))
        return [path for _, path in sorted(found)]


def _has(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except FileNotFoundError:
        return False


def _use(path: Path) -> None:
    with suppress(OSError):  # of a disk that cannot be written any more what is there is still sent
        os.utime(path)


def _used_s(path: Path) -> float:
    with suppress(FileNotFoundError):
        return (path / "map" if path.is_dir() else path).stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
