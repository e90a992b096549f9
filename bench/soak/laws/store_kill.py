"""A writer killed at any of its effects leaves a store that is clean, old or new, and that the next writer can use.

Most of the writers are killed right before their n-th system call that changes something, which a seed repeats
exactly; the others by the clock, which also hits the middle of a call. A writer that was done before the clock killed
it is no case: another one writes into a fresh copy of the store, and is killed sooner.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloner_server.store.local import LocalStore
from soak.book import Entry
from soak.effects import count_effects, killed_before
from soak.law import Case, Figures, Law, LawBrokenError, require, share
from store_images import Image, Key, files_from, make_image, some_contents

_CONTEXT = multiprocessing.get_context("fork")
_IMAGE = "golden"
_LAST_EFFECTS = 10
_MOST_TRIES = 20
_LEAST = 0.02  # of the cases, of each kind that must have come


@dataclass(frozen=True)
class _Writing:
    """Something that changes a store, and what the store may hold afterwards."""

    name: str
    do: Callable[[LocalStore], object]
    adds: int = 0  # versions


def _publishing(image: Image) -> Callable[[LocalStore], object]:
    def do(store: LocalStore) -> object:
        image.put(store)
        return store.publish(image.draft)

    return do


@contextmanager
def open_store_kill(work: Path) -> Iterator[Case]:
    """Every case has a store of its own."""

    def case(seed: int) -> Figures:
        with tempfile.TemporaryDirectory(dir=work) as directory:
            return _case(Path(directory), seed)

    yield case


def _case(directory: Path, seed: int) -> Figures:
    chance = random.Random(seed)
    contents = {1: some_contents(seed), 2: some_contents(seed + 1_000_000)}
    images = {number: make_image(kept) for number, kept in contents.items()}
    store = directory / "store"
    first = bytes.fromhex(_publish(store, images[1]))
    writing = chance.choice(_writings(first, images))
    if writing.name == "gc":
        images[2].put(LocalStore(store, Key()))  # what it is to remove
    with _copy_of(store) as trial:
        store_to_count = LocalStore(trial, Key())
        effects = count_effects(lambda: writing.do(store_to_count))
    # The last effects of publishing make the difference between old and new: they are tried more often.
    is_counted, is_late = chance.random() < 0.75, chance.random() < 0.6
    first_effect = max(1, effects - _LAST_EFFECTS) if is_late else 1
    after_s = 0.0 if is_counted else _time(store, writing)
    for _ in range(_MOST_TRIES):
        after_s = chance.uniform(0, after_s)
        with _copy_of(store) as trial:
            call = chance.randint(first_effect, effects) if is_counted else 0
            ended = _write(trial, writing, call=call, after_s=after_s)
            if ended == 0 and not is_counted:
                continue
            require(ended == -signal.SIGKILL, f"the writer ended with {ended}")
            numbers = _check(trial, writing, contents, images)
            # What repack and gc had done by then, nobody can tell from the versions.
            outcome: Figures = {"outcome": "new" if numbers > 1 else "old"} if writing.adds else {}
            killed = "at a call" if is_counted else "by the clock"
            return {"writing": writing.name, "killed": killed, "effects": effects, **outcome}
    raise LawBrokenError(f"none of {_MOST_TRIES} writers was killed before it was done")


@contextmanager
def _copy_of(store: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=store.parent) as directory:
        yield shutil.copytree(store, Path(directory) / "store")


def _writings(first: bytes, images: dict[int, Image]) -> tuple[_Writing, ...]:
    """Return what may be done to a store that holds the first image, each as often as its weight."""
    return (
        _Writing("publish", _publishing(images[2]), 1),
        _Writing("publish", _publishing(images[2]), 1),
        _Writing("publish again", _publishing(images[1]), 1),
        _Writing("repack", lambda store: store.repack(first)),
        _Writing("repack", lambda store: store.repack(first)),
        _Writing("gc", lambda store: store.gc(-60)),
    )


def _time(store: Path, writing: _Writing) -> float:
    """Return how many seconds a writer takes whose effects nobody counts: that makes it far slower."""
    with _copy_of(store) as trial:
        started_s = time.monotonic()
        require(_write(trial, writing) == 0, "a writer nobody killed did not end well")
        return time.monotonic() - started_s


def _write(root: Path, writing: _Writing, *, call: int = 0, after_s: float = 0.0) -> int | None:
    """Have a process do the writing, killed right before a call or after some seconds; return its exit status."""
    writer = _CONTEXT.Process(target=_write_until, args=(root, writing, call))
    writer.start()
    if after_s:
        time.sleep(after_s)
        writer.kill()
    writer.join()
    return writer.exitcode


def _publish(root: Path, image: Image) -> str:
    store = LocalStore(root, Key())
    image.put(store)
    return store.publish(image.draft).version


def _write_until(root: Path, writing: _Writing, at: int) -> None:
    """Do the writing and be killed before effect `at`; with 0 never."""
    store = LocalStore(root, Key())
    with killed_before(at):
        writing.do(store)


def _check(root: Path, writing: _Writing, contents: dict[int, dict[bytes, bytes]], images: dict[int, Image]) -> int:
    """Hold the store to its laws, finish what was begun, hold it to them again; return how many versions it had."""
    store = LocalStore(root, Key())
    numbers = _check_versions(store, contents, images)
    require(numbers in (1, 1 + writing.adds), f"{numbers} versions after {writing.name}")
    writing.do(store)
    after = _check_versions(store, contents, images)
    require(after == numbers + writing.adds, f"the next writer made {after - numbers} versions")
    store.gc(-60)  # everything not needed, however young
    require(os.listdir(store.files.temporary) == [], "gc left temporary files")
    require(store.check(read_data=True).unused_bytes == 0, "gc left what nobody needs")
    _check_versions(store, contents, images)
    return numbers


def _check_versions(store: LocalStore, contents: dict[int, dict[bytes, bytes]], images: dict[int, Image]) -> int:
    faults = store.check(read_data=True).faults
    require(faults == (), f"the store has faults: {faults}")
    known = {image.version: contents[number] for number, image in images.items()}
    numbers = store.numbers(_IMAGE)
    for number in numbers:
        version = bytes.fromhex(store.version(_IMAGE, number).version)
        require(files_from(store, version) == known[version], f"version {number} gives other files")
    return len(numbers)


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: writers die in both ways, and on both sides of the moment that makes a version."""
    kinds = (("killed", "at a call"), ("killed", "by the clock"), ("outcome", "old"), ("outcome", "new"))
    rare = [f"{name}: {value}" for name, value in kinds if share(entries, _has(name, value)) < _LEAST]
    return f"under {_LEAST:.0%} of the cases have {', '.join(rare)}" if rare else ""


def _has(name: str, value: str) -> Callable[[Figures], bool]:
    return lambda figures: figures.get(name) == value


LAW = Law(
    "store-kill",
    "a writer killed anywhere leaves a clean store, with the old version or the new",
    200,
    open_store_kill,
    enough=enough,
)
