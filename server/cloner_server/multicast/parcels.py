"""The parcels of a version: what they are called, and their bytes for a sender, out of files of a store or a cache."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import msgspec
from blake3 import blake3

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError
from cloner_core.image.digest import digest, require_digest
from cloner_core.image.limits import DIGEST_BYTES
from cloner_core.image.packmap import PackMap, PackRef, decode_map
from cloner_core.multicast.content import SPARE_BYTES, Content
from cloner_core.seats import ParcelList, parcel_head
from cloner_server.durable import replace_file

log = logging.getLogger(__name__)

_THREADS_MOST = 8
_KEPT = 8  # parcels that were sent and may be mended: 32 MiB


class PackFiles(Protocol):
    """What parcels are made of, in a store or in a relay's cache; see `Store`."""

    def pack_map(self, name: bytes) -> bytes: ...

    def pack_path(self, name: bytes) -> Path: ...

    def placement(self, pack_map: bytes, ordinal: int) -> bytes: ...


class Packs(PackFiles, Protocol):
    """The same with a place for lists of parcels."""

    def parcel_list_path(self, pack_map: bytes) -> Path: ...


def parcel_list(
    store: Packs, pack_map: bytes, watch: Callable[[int, int], None] = lambda _done, _of: None
) -> ParcelList:
    """Return the parcels of the pack map of this digest, in its order.

    Made by reading every pack, which takes as long as the disk does, and then kept beside the map. `watch` is told how
    many of how many were read, and ends it by raising. Raises NotFoundError, and IntegrityError for a damaged pack.
    """
    known = _read_map(store, pack_map)
    path = store.parcel_list_path(pack_map)
    if (kept := _read_kept(path, known)) is not None:
        return kept
    threads = min(_THREADS_MOST, os.cpu_count() or 1)
    found: list[tuple[str, int]] = []
    with ThreadPoolExecutor(threads, "parcels") as pool:
        try:
            named = pool.map(lambda one: _name_parcel(store, pack_map, *one), enumerate(known.packs))
            for one in named:
                found.append(one)
                watch(len(found), len(known.packs))
        finally:
            pool.shutdown(cancel_futures=True)
    listed = ParcelList(tuple(name for name, _ in found), tuple(size for _, size in found))
    _keep(path, listed)
    return listed


def _read_map(store: PackFiles, name: bytes) -> PackMap:
    data = store.pack_map(name)
    require_digest(data, name, f"pack map {name.hex()}")
    return decode_map(data)


def _name_parcel(store: Packs, pack_map: bytes, ordinal: int, pack: PackRef) -> tuple[str, int]:
    head, stored = parcel_head(store.placement(pack_map, ordinal)), store.pack_path(pack.digest).read_bytes()
    require_digest(stored, pack.digest, f"pack {pack.digest.hex()}")
    return blake3(head).update(stored).hexdigest(), len(head) + len(stored)


def _read_kept(path: Path, known: PackMap) -> ParcelList | None:
    """Return the list that was kept, None when there is none or it is not of these packs."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("the list of parcels %s cannot be read, and is made again: %s", path, error)
        return None
    try:
        listed = msgspec.json.decode(data[DIGEST_BYTES:], type=ParcelList)
    except UNREADABLE:
        listed = ParcelList((), ())
    is_whole = digest(data[DIGEST_BYTES:]) == data[:DIGEST_BYTES]
    if not is_whole or not len(listed.digests) == len(listed.sizes) == len(known.packs):
        log.warning("the list of parcels %s is damaged, and is made again", path)
        return None
    return listed


def _keep(path: Path, listed: ParcelList) -> None:
    data = msgspec.json.encode(listed)
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, digest(data) + data, 0o644)
    except OSError as error:  # a full disk must not keep a session from being sent
        log.warning("the list of parcels %s cannot be kept, and will be made again: %s", path, error)


class ReadAhead:
    """Gives a sender the bytes of parcels. A thread reads the next while one is sent: none is waited for.

    The bytes stay as they are as long as they are held. Memory: the parcels given last, and two more.
    """

    def __init__(self, read: Callable[[int], memoryview], count: int) -> None:
        """`read` returns one of `count` parcels, and is called in either thread; what it raises, a call raises."""
        self._count = count
        self._read = read
        self._given: OrderedDict[int, memoryview] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._ahead: dict[int, Future[memoryview]] = {}

    def __call__(self, parcel: int) -> memoryview:
        """Return the bytes of a parcel."""
        if parcel in self._given:
            self._given.move_to_end(parcel)
            return self._given[parcel]
        reading = self._ahead.pop(parcel, None)
        data = reading.result() if reading is not None else self._read(parcel)
        self._given[parcel] = data
        while len(self._given) > _KEPT:
            self._given.popitem(last=False)
        self._read_ahead(parcel + 1)
        return data

    def close(self) -> None:
        """Read nothing any more."""
        self._thread.shutdown(cancel_futures=True)

    def _read_ahead(self, parcel: int) -> None:
        if parcel >= self._count or parcel in self._given or parcel in self._ahead:
            return
        for other in list(self._ahead):  # of a range that is not sent on
            self._ahead.pop(other).cancel()
        self._ahead[parcel] = self._thread.submit(self._read, parcel)


class ParcelSource(ReadAhead):
    """The parcels of a version, encrypted. Raises NotFoundError, IntegrityError or OSError for what the store lacks."""

    def __init__(self, store: PackFiles, pack_map: bytes, listed: ParcelList, content: Content) -> None:
        """`listed` are the parcels of `pack_map`, `content` encrypts them. Raises NotFoundError and IntegrityError."""
        self._store = store
        self._pack_map = pack_map
        self._content = content
        self._packs = _read_map(store, pack_map).packs
        self._digests = listed.digests
        if len(self._packs) != len(listed.digests):
            raise IntegrityError(f"{len(listed.digests)} parcels cannot be of a map of {len(self._packs)} packs")
        super().__init__(self._read_parcel, len(self._packs))

    def _read_parcel(self, parcel: int) -> memoryview:
        pack = self._packs[parcel]
        head = parcel_head(self._store.placement(self._pack_map, parcel))
        size = len(head) + pack.stored_size
        room = bytearray(size + SPARE_BYTES)
        data = memoryview(room)[:size]
        data[: len(head)] = head
        with self._store.pack_path(pack.digest).open("rb", buffering=0) as file:
            file.readinto(data[len(head) :])  # a copy less than to join them, and without holding the GIL
        require_digest(data, bytes.fromhex(self._digests[parcel]), f"parcel {parcel} (pack {pack.digest.hex()})")
        self._content.crypt(parcel, room, size)
        return data
