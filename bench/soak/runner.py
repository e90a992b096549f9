"""Runs the cases of a law, goes on after one that failed, and remembers each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from msgspec.structs import replace

from soak.book import Book, Entry
from soak.law import Case, Crowd, Figures, Law

Tell = Callable[[str], None]
_TELL_EVERY_S = 10.0


def run(law: Law, book: Book, work: Path, tell: Tell) -> list[Entry]:
    """Try the seeds the book's heading names that are not in the book yet; return all its entries, by seed."""
    first, count = book.heading.first_seed, book.heading.count
    entries = {entry.seed: entry for entry in book.entries()}
    book.rewrite(list(entries.values()))
    left = [seed for seed in range(first, first + count) if seed not in entries]
    if entries:
        tell(f"{law.name}: {len(entries)} of {count} cases were tried before, going on")
    if left:
        told_s = time.monotonic()
        with law.open(work) as case:
            for entry in _try_all(law, case, left):
                seed = entry.seed
                entries[seed] = entry
                book.add(entry)
                if entry.failure:
                    tell(f"{law.name}: seed {seed} failed: {entry.failure}")
                    tell(f"{law.name}: again: ./run soak {law.name} --count 1 --seed {seed}")
                if time.monotonic() - told_s > _TELL_EVERY_S:
                    told_s = time.monotonic()
                    tell(f"{law.name}: {len(entries)} of {count}")
    return [entries[seed] for seed in range(first, first + count)]


def _try_all(law: Law, case: Case, seeds: Sequence[int]) -> Iterator[Entry]:
    """Give the entry of each seed as soon as it is tried; what was begun is ended when nobody asks for more."""
    if isinstance(case, Crowd):
        yield from _try_together(case, seeds)
        return
    if law.at_once == 1:
        # In this thread, for a case that forks.
        yield from (_try(case, seed) for seed in seeds)
        return
    with ThreadPoolExecutor(law.at_once) as pool:
        trials = [pool.submit(_try, case, seed) for seed in seeds]
        try:
            for trial in as_completed(trials):
                yield trial.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _try_together(crowd: Crowd, seeds: Sequence[int]) -> Iterator[Entry]:
    """Try the members of a crowd; what breaks while they are gathered breaks the law for each of them."""

    def gather(_first: int) -> Figures:
        crowd.gather(seeds)
        return {}

    gathered = _try(gather, seeds[0])
    first, *others = (
        replace(gathered, seed=seed, seconds=0.0) if gathered.failure else _try(crowd, seed) for seed in seeds
    )
    # What all did together is counted once, or the evidence would tell of no time at all.
    yield replace(first, seconds=first.seconds + gathered.seconds)
    yield from others


def _try(case: Case, seed: int) -> Entry:
    started_s = time.monotonic()
    try:
        figures, failure = case(seed), ""
    except Exception as fault:  # noqa: BLE001 - whatever a case raises, its law did not hold; the others still run
        figures, failure = {}, f"{type(fault).__name__}: {fault}"
    return Entry(seed, round(time.monotonic() - started_s, 6), figures, failure)
