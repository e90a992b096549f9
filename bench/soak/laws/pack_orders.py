"""Packs in any order, some twice, by one to three processes: always the same tree, by the word of foreign tools."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torture
from cloner_server.store.local import LocalStore
from clones import capture_into, restore_from, scatter
from soak.law import Case, Figures, Law, require
from store_images import Key

_TOOLS = (torture.mtree_of, torture.getfattr_of, torture.getfacl_of, torture.lsattr_of, torture.holes_of)


@contextmanager
def open_pack_orders(work: Path) -> Iterator[Case]:
    """Capture the torture tree once; a case deals its chunks into packs anew and restores them."""
    with torture.ext4(work / "source") as source:
        torture.make_torture(source)
        store = LocalStore(work / "store", Key())
        version = bytes.fromhex(capture_into(store, source, esp=None).record.version)
        wanted = {tool.__name__: tool(source) for tool in _TOOLS}

        def case(seed: int) -> Figures:
            chance = random.Random(seed)
            packs = scatter(store, version, seed, chunks_in_pack=chance.randint(1, 6))
            order = [*range(packs), *chance.choices(range(packs), k=packs // 3)]
            chance.shuffle(order)
            workers = chance.randint(1, 3)
            with torture.ext4(work / f"target-{seed}") as target:
                started_s = time.monotonic()
                restore_from(store, version, target, order=lambda: order, workers=workers)
                restore_s = time.monotonic() - started_s
                for tool in _TOOLS:
                    require(tool(target) == wanted[tool.__name__], f"{tool.__name__} sees another tree")
                differences = torture.rsync_differences(source, target)
                require(differences == "", f"rsync sees another tree:\n{differences}")
            store.gc(-60)  # the packs of this case
            return {"packs": packs, "workers": str(workers), "restore_and_read_back_s": restore_s}

        yield case


LAW = Law(
    "pack-orders", "packs restored in any order, by any number of processes, give the same tree", 50, open_pack_orders
)
