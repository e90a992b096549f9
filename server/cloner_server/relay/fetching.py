"""Fetches what a relay is to send into its cache: each pack once, over a few connections, and checked.

What is wanted is told again and again by the head; what is cut off goes on with the next parcel that is missing.
What is all here is ready before anything is fetched, and waits for nothing that is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cloner_core.errors import ClonerError, IntegrityError, UnreachableError
from cloner_core.seats import ParcelList
from cloner_server.relay.cache import Known, PackCache
from cloner_server.relay.words import Fetching, Wanted

log = logging.getLogger(__name__)

CONNECTIONS = 4
_TRIES = 3  # of a parcel that comes damaged
_AGAIN_S = 1.0  # after the head was away
_FAULT_AGAIN_S = 5.0
_LOOK_AGAIN_S = 5.0  # something may have been taken away, or become suspect, while the rest was fetched
_TOLD_EVERY = 16  # parcels


class Parts(Protocol):
    """What the head gives of a pack map that a live session of the relay is of; for several threads.

    All raise UnreachableError when it does not answer now, and other errors of ours when it refuses.
    """

    def pack_map(self, name: bytes) -> bytes:
        """Return the encoded map."""

    def parcels(self, name: bytes) -> ParcelList:
        """Return the list of its parcels; waits while the head makes it."""

    def parcel(self, name: bytes, ordinal: int) -> bytes:
        """Return a parcel: the placement record and the pack."""

    def placement(self, name: bytes, ordinal: int) -> bytes:
        """Return the placement record alone, for a pack that is here."""


class _BrokenOffError(Exception):
    """Nobody wants it any more, or something else is to be looked at first."""


@dataclass(slots=True)
class _State:
    """Of one wanted map."""

    image: str
    have: int = 0
    of: int = 0  # 0: not known yet
    fault: str = ""
    is_suspect: bool = False  # what is here is read before it is trusted
    known: Known | None = None  # all of it is here


class Fetcher:
    """Has one thread that fetches one version after the other. Safe to use from several threads."""

    def __init__(self, parts: Parts, cache: PackCache, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is told when there is something new to say of how far it is; it must not wait."""
        self._parts = parts
        self._cache = cache
        self._changed = changed
        self._wanted: dict[bytes, _State] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="fetcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Fetch nothing any more; what is under way comes to its end."""
        self._is_closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def want(self, wanted: Iterable[Wanted]) -> None:
        """Have all of these maps, and nothing else."""
        told = {bytes.fromhex(one.pack_map): one.image for one in wanted}
        with self._lock:
            if told.keys() == self._wanted.keys():
                return
            self._wanted = {name: self._wanted.get(name) or _State(image) for name, image in told.items()}
        try:
            self._cache.pin(told.keys())
        finally:
            for state in self._wanted.values():  # what is wanted no more may have been in the way
                state.fault = ""
            self._wake.set()

    def suspect(self, name: bytes) -> None:
        """Have what is here of a map read again: a sender could not."""
        with self._lock:
            if (state := self._wanted.get(name)) is not None:
                state.is_suspect, state.known = True, None
        self._wake.set()

    def ready(self, name: bytes) -> Known | None:
        """Return a map all of which is here; None while anything is missing."""
        with self._lock:
            state = self._wanted.get(name)
            return state.known if state is not None else None

    def progress(self) -> tuple[Fetching, ...]:
        """Return how far each wanted map is."""
        with self._lock:
            return tuple(
                Fetching(name.hex(), one.have, one.of, one.known is not None, one.fault)
                for name, one in self._wanted.items()
            )

    # In the thread

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.clear()
            with self._lock:
                open_ones = [(name, one) for name, one in self._wanted.items() if one.known is None]
            for name, state in open_ones:
                self._look(name, state)
            self._changed()
            waits_s = []
            for name, state in sorted(open_ones, key=lambda one: not one[1].is_suspect):  # to be read, not fetched
                if state.known is None and not self._wake.is_set():
                    waits_s.append(self._try(name, state))
            self._changed()
            if not any(wait_s == 0 for wait_s in waits_s):
                self._wake.wait(min(waits_s, default=None))

    def _look(self, name: bytes, state: _State) -> None:
        """Have a map ready all of which is here."""
        with suppress(Exception):  # `_try` meets the same, and tells it
            if not state.is_suspect and (known := self._cache.known(name)) is not None:
                self._settle(name, known, state)

    def _try(self, name: bytes, state: _State) -> float:
        """Fetch one map; return after how many seconds to look again whether all of it is here."""
        try:
            self._fetch(name, state)
        except _BrokenOffError:
            return 0.0
        except UnreachableError as error:
            log.warning("%s is fetched on when the server answers: %s", state.image, error)
            return _AGAIN_S
        except (ClonerError, OSError) as error:
            log.error("%s cannot be fetched: %s", state.image, error)
            state.fault = _words(error)
            return _FAULT_AGAIN_S
        except Exception as error:  # a bug must not end what else is fetched
            log.exception("%s cannot be fetched", state.image)
            state.fault = f"{type(error).__name__}: {error}"[:500]
            return _FAULT_AGAIN_S
        state.fault = ""
        return _LOOK_AGAIN_S

    def _fetch(self, name: bytes, state: _State) -> None:
        known = self._cache.known(name)
        if known is None:
            encoded = self._parts.pack_map(name)
            known = self._cache.keep_map(name, encoded, self._parts.parcels(name))
        if state.is_suspect:
            state.have, state.of = 0, len(known.parcels.digests)
            self._changed()
            if damaged := self._cache.drop_damaged(known):
                log.warning(
                    "%d parcels of %s were damaged in the cache, and are fetched again", len(damaged), state.image
                )
            state.is_suspect = False
        missing = self._cache.missing(known)
        state.have, state.of = len(known.parcels.digests) - len(missing), len(known.parcels.digests)
        self._changed()
        self._cache.make_room(state.image, self._cache.missing_bytes(known, missing))
        if state.fault:
            state.fault = ""
            self._changed()
        with ThreadPoolExecutor(CONNECTIONS, "fetch") as pool:
            try:
                for _ in pool.map(lambda ordinal: self._fetch_one(known, ordinal), missing):
                    self._count(name, state)
            finally:
                pool.shutdown(cancel_futures=True)
        self._settle(name, known, state)

    def _fetch_one(self, known: Known, ordinal: int) -> None:
        if self._is_closed or known.name not in self._wanted:
            raise _BrokenOffError
        if self._cache.has_pack(known, ordinal) and self._cache.keep_record(
            known, ordinal, self._parts.placement(known.name, ordinal)
        ):
            return
        for left in reversed(range(_TRIES)):
            try:
                self._cache.keep_parcel(known, ordinal, self._parts.parcel(known.name, ordinal))
                return
            except IntegrityError:
                if not left:
                    raise

    def _count(self, name: bytes, state: _State) -> None:
        state.have += 1
        if self._is_closed or self._wake.is_set() or name not in self._wanted:
            raise _BrokenOffError
        if state.have % _TOLD_EVERY == 0:
            self._changed()

    def _settle(self, name: bytes, known: Known, state: _State) -> None:
        missing, of = self._cache.missing(known), len(known.parcels.digests)
        state.have, state.of = of - len(missing), of
        if missing:  # something was taken away meanwhile
            return
        with self._lock:
            if not state.is_suspect and name in self._wanted:
                state.known, state.fault = known, ""


def _words(error: ClonerError | OSError) -> str:
    return (error.message if isinstance(error, ClonerError) else str(error))[:500]
