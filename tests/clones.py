"""Capture into a store and restore from it, in one call each, for the tests."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloner_agent.capture.job import Captured, CaptureOptions, capture
from cloner_agent.restore.job import Order, RestoreSummary, restore
from cloner_agent.restore.readback import read_back
from cloner_agent.restore.source import DirectorySource
from cloner_agent.restore.table import SpilledTree, spill_tree
from cloner_core.image.pack import ENTRY, PackWriter, compress_pack, decode_pack
from cloner_core.image.packmap import PackMap
from cloner_core.image.version import PackOffer, verify_map
from cloner_server.store.local import LocalSink, LocalStore
from cloner_server.store.publish import place_map
from store_images import Key


def capture_into(store: LocalStore, root: Path, **options: object) -> Captured:
    return capture(root, LocalSink(store), CaptureOptions("golden", **options))  # type: ignore[arg-type]


def places(captured: Captured) -> dict[str, list[str]]:
    """Return the paths of each kind that the lint of a capture found."""
    return {finding.kind: [place.path for place in finding.places] for finding in captured.record.findings}


@dataclass(frozen=True)
class Ready:
    """All a node has before it writes."""

    spilled: SpilledTree
    pack_map: PackMap
    source: DirectorySource


def make_ready(store: LocalStore, version: bytes, work_dir: Path) -> Ready:
    signed = store.signed_map(version)
    name = bytes.fromhex(signed.map)
    pack_map = verify_map(store.pack_map(name), bytes.fromhex(signed.signature), version, Key().public_key)
    source = DirectorySource(store.files.root, name)
    return Ready(spill_tree(store.tree_root(version), source, work_dir), pack_map, source)


def restore_from(
    store: LocalStore, version: bytes, target: Path, *, order: Callable[[], Order] | None = None, workers: int = 2
) -> RestoreSummary:
    """Restore and read back."""
    ready = make_ready(store, version, target)
    try:
        summary = restore(target, ready.spilled, ready.pack_map, ready.source, order=order, workers=workers)
        read_back(target, ready.spilled, workers=workers)
        return summary
    finally:
        ready.spilled.table.close()


def scatter(store: LocalStore, version: bytes, seed: int, chunks_in_pack: int = 3) -> int:
    """Give a version a map over small packs whose chunks have nothing to do with each other; return how many packs."""
    chance = random.Random(seed)
    chunks: dict[bytes, bytes] = {}
    for offer in store.offers(version):
        raw = decode_pack(store.packs.read(offer.digest), offer.digest, offer.raw_size)
        for name, offset, length in ENTRY.iter_unpack(offer.entries):
            chunks[name] = raw[offset : offset + length]
    names = sorted(chunks)
    chance.shuffle(names)
    offers = []
    for start in range(0, len(names), chunks_in_pack):
        writer = PackWriter()
        # Five chunks of 1 MiB make two packs.
        closed = [writer.add(name, chunks[name]) for name in names[start : start + chunks_in_pack]]
        for gathered in [*closed, writer.close()]:
            if gathered is not None:
                pack = compress_pack(gathered)
                store.put_pack(pack.digest, pack.stored)
                offers.append(PackOffer(pack.digest, len(pack.stored), pack.raw_size, pack.entries))
    place_map(store, version, store.tree_root(version), offers, Key())
    return len(offers)
