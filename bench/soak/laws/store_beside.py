"""Captures, deploys, gc, repacking and removals beside each other: nobody loses what he was told.

Four writers publish versions of two images, each built on the last; three deploys are told a map and read it to the
end; all the while versions are removed, sparse packs written anew, and gc runs, with a grace and without. A capture is
published or told why not; a deploy gives the true files; at the end everything published is whole and nothing is left.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cloner_core.errors import ConflictError, IntegrityError, NotFoundError
from cloner_core.image.pack import ENTRY, decode_pack
from cloner_core.image.placement import decode_placement
from cloner_server.store.local import LocalStore
from soak.book import Entry
from soak.law import Case, Figures, Law, require, share
from store_images import Image, Key, files_from, make_image

_IMAGES = ("one", "two")
_WRITERS, _READERS, _ROUNDS = 4, 3, 8
_GRACE_S = 3600.0


@dataclass
class _Yard:
    """A store, and what everybody who works on it knows."""

    store: LocalStore
    contents: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)  # by version
    told: Counter[bytes] = field(default_factory=Counter)  # maps that deploys under way were told
    # As in the server, where a map is told and the maps told are read in transactions of one database.
    telling: threading.Lock = field(default_factory=threading.Lock)
    seen: Counter[str] = field(default_factory=Counter)
    is_over: bool = False
    counting: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.counting:
            self.seen[what] += 1


@contextmanager
def open_store_beside(work: Path) -> Iterator[Case]:
    """Every case has a store of its own."""

    def case(seed: int) -> Figures:
        with tempfile.TemporaryDirectory(dir=work) as directory:
            return _case(LocalStore(Path(directory), Key()), seed)

    yield case


def _case(store: LocalStore, seed: int) -> Figures:
    yard = _Yard(store)
    for number, image in enumerate(_IMAGES):
        _publish(yard, image, random.Random(f"{seed} first {number}"))
    with ThreadPoolExecutor(_WRITERS + _READERS + 1) as pool:
        keeper = pool.submit(_keep, yard, random.Random(f"{seed} keeper"))
        work: list[tuple[Callable[[_Yard, random.Random], None], str]] = [
            (_capture, f"{seed} writer {n}") for n in range(_WRITERS)
        ]
        work += [(_deploy, f"{seed} reader {n}") for n in range(_READERS)]
        running = [pool.submit(do, yard, random.Random(name)) for do, name in work]
        try:
            for one in running:
                one.result()
        finally:
            yard.is_over = True
        keeper.result()
    _check(yard)
    return dict(yard.seen)


def _capture(yard: _Yard, chance: random.Random) -> None:
    for _ in range(_ROUNDS):
        try:
            _publish(yard, chance.choice(_IMAGES), chance)
            yard.count("published")
        except ConflictError:
            yard.count("came late")
        except IntegrityError as told:
            # What a gc without grace takes from under a capture; it says so, and shows nothing.
            require(
                "gone" in told.message or "not in the store" in told.message or "not complete" in told.message,
                str(told),
            )
            yard.count("lost its base")


def _publish(yard: _Yard, image: str, chance: random.Random) -> None:
    """Capture as a client does: what the base has is not sent."""
    base = yard.store.base(image)
    known = {name for offer in (base.packs if base else ()) for name, _, _ in ENTRY.iter_unpack(offer.entries)}
    # Few different files: captures share content, and most of a pack is soon used by nobody.
    files = {b"%03d" % number: random.Random(number).randbytes(3000) for number in chance.sample(range(90), 30)}
    made = make_image(files, image, pack_every=6)
    draft = msgspec.structs.replace(
        made.draft,
        packs=tuple(o for o in made.draft.packs if any(n not in known for n, _, _ in ENTRY.iter_unpack(o.entries))),
        base=base.version if base else b"",
        also=base.also if base else (),
        after=base.number if base else 0,
    )
    sent = {offer.digest for offer in draft.packs}
    Image(draft, made.segments, [pack for pack in made.packs if pack.digest in sent]).put(yard.store)
    with yard.counting:
        yard.contents[made.version] = files
    yard.store.publish(draft)


def _deploy(yard: _Yard, chance: random.Random) -> None:
    for _ in range(_ROUNDS):
        with yard.telling:
            try:
                version = bytes.fromhex(yard.store.version(chance.choice(_IMAGES)).version)
                told = bytes.fromhex(yard.store.signed_map(version).map)
            except NotFoundError:  # removed at this moment
                continue
            yard.told[told] += 1
        try:
            require(_read(yard.store, version, told, chance) == yard.contents[version], "a deploy gives other files")
            yard.count("deployed")
        finally:
            with yard.telling:
                yard.told[told] -= 1


def _read(store: LocalStore, version: bytes, told: bytes, chance: random.Random) -> dict[bytes, bytes]:
    """Read a version by the map that was told, slowly, as a node does."""
    pack_map = store.map_of(told)
    content: dict[int, dict[int, bytes]] = {}
    for ordinal, pack in enumerate(pack_map.packs):
        time.sleep(chance.uniform(0, 0.01))
        raw = decode_pack(store.pack_path(pack.digest).read_bytes(), pack.digest, pack.raw_size)
        for number, offset, start, length in decode_placement(
            store.placement(told, ordinal), version, pack.digest, pack.raw_size
        ):
            content.setdefault(number, {})[offset] = raw[start : start + length]
    # The records of a tree of files alone are numbered from 2 on, in the order of their names.
    names = sorted(random_name for random_name in _names(store, version))
    return {names[number - 2]: b"".join(pieces[at] for at in sorted(pieces)) for number, pieces in content.items()}


def _names(store: LocalStore, version: bytes) -> list[bytes]:
    from cloner_core.image.tree import iter_segment

    root = store.tree_root(version)
    return [
        inode.path
        for ref, raw in zip(root.segments, store.raw_segments(root), strict=True)
        for inode, _ in iter_segment(raw, ref)
        if inode.path
    ]


def _keep(yard: _Yard, chance: random.Random) -> None:
    """Do the upkeep until the others are through."""
    while not yard.is_over:
        what = chance.choice(("gc", "gc at once", "repack", "repack", "remove", "remove", "remove"))
        if what == "repack":
            yard.count(what if yard.store.repack_sparse(0.7).packs else "nothing to repack")
        elif what == "remove":
            _remove(yard, chance.choice(_IMAGES))
        else:
            grace_s = _GRACE_S if what == "gc" else 0.0
            with yard.telling:
                keep = {name for name, deploys in yard.told.items() if deploys}
                if grace_s == 0:
                    yard.store.gc(grace_s, keep_maps=keep)
            if grace_s:
                yard.store.gc(grace_s, keep_maps=keep)
            yard.count(what)


def _remove(yard: _Yard, image: str) -> None:
    """Remove the oldest version but the newest, which deploys and captures ask for."""
    with yard.telling:
        numbers = yard.store.numbers(image)
        if len(numbers) > 1:
            yard.store.remove_version(image, numbers[0])
            yard.count("remove")


def _check(yard: _Yard) -> None:
    store = yard.store
    faults = store.check(read_data=True).faults
    require(faults == (), f"the store has faults: {faults}")
    store.repack_sparse(0.7)
    store.gc(-60)
    report = store.check(read_data=True)
    require(report.faults == () and report.unused_bytes == 0, f"after the last gc: {report}")
    for image, number in store.listed():
        version = bytes.fromhex(store.version(image, number).version)
        require(files_from(store, version) == yard.contents[version], f"{image}:{number} gives other files")


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: everything that can happen did."""
    words = ("published", "came late", "deployed", "repack", "remove", "gc", "gc at once")
    rare = [
        word
        for word in words
        if share(entries, lambda figures, word=word: float(figures.get(word, 0)) > 0) < 0.3  # type: ignore[misc]
    ]
    return f"too rarely: {', '.join(rare)}" if rare else ""


LAW = Law(
    "store-beside",
    "captures and deploys beside gc, repacking and removals: each is whole, or told why it is not",
    100,
    open_store_beside,
    enough=enough,
)
