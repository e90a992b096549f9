"""A writer killed at any of its effects leaves a store that is clean, old or new, and that the next writer can use.

Most of the writers are killed right before their n-th system call that changes something, which a seed repeats
exactly; the others by the clock, which also hits the middle of a call.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cloner_server.store.local import LocalStore
from soak.law import Case, Figures, Law, require
from store_images import Image, Key, files_from, make_image, some_contents

_EFFECTS = frozenset(
    {"open", "write", "fsync", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "utime"}
)
_CONTEXT = multiprocessing.get_context("fork")
_IMAGE = "golden"
_LAST_EFFECTS = 20


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
    first = bytes.fromhex(_publish(directory / "store", images[1]))
    writing = chance.choice(
        (
            _Writing("publish", _publishing(images[2]), 1),
            _Writing("publish", _publishing(images[2]), 1),
            _Writing("publish again", _publishing(images[1]), 1),
            _Writing("repack", lambda store: store.repack(first)),
            _Writing("repack", lambda store: store.repack(first)),
            _Writing("gc", lambda store: store.gc(-60)),
        )
    )
    if writing.name == "gc":
        images[2].put(LocalStore(directory / "store", Key()))  # what it is to remove
    shutil.copytree(directory / "store", directory / "trial")
    started_s = time.monotonic()
    effects = _count_effects(writing, LocalStore(directory / "trial", Key()))
    took_s = time.monotonic() - started_s
    if chance.random() < 0.75:
        # The last effects make the difference between old and new: they are tried more often.
        first_effect = 1 if chance.random() < 0.4 else max(1, effects - _LAST_EFFECTS)
        how, at = "at a call", chance.randint(first_effect, effects + 1)
        writer = _CONTEXT.Process(target=_write_until, args=(directory / "store", writing, at))
        writer.start()
    else:
        how, after_s = "by the clock", chance.uniform(0, took_s)
        writer = _CONTEXT.Process(target=_write_until, args=(directory / "store", writing, 0))
        writer.start()
        time.sleep(after_s)
        writer.kill()
    writer.join()
    require(writer.exitcode in (0, -signal.SIGKILL), f"the writer ended with {writer.exitcode}")
    is_new = _check(directory / "store", writing, contents, images)
    return {"writing": writing.name, "killed": how, "outcome": "new" if is_new else "old", "effects": effects}


def _publish(root: Path, image: Image) -> str:
    store = LocalStore(root, Key())
    image.put(store)
    return store.publish(image.draft).version


def _write_until(root: Path, writing: _Writing, at: int) -> None:
    """Do the writing and be killed before effect `at`; with 0 never."""
    seen = 0

    def on_call(frame: FrameType, event: str, called: object) -> None:
        nonlocal seen
        if _is_effect(event, called):
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    store = LocalStore(root, Key())
    sys.setprofile(on_call if at else None)
    writing.do(store)
    sys.setprofile(None)


def _count_effects(writing: _Writing, store: LocalStore) -> int:
    seen = 0

    def on_call(frame: FrameType, event: str, called: object) -> None:
        nonlocal seen
        seen += _is_effect(event, called)

    former = sys.getprofile()
    sys.setprofile(on_call)
    try:
        writing.do(store)
    finally:
        sys.setprofile(former)
    return seen


def _is_effect(event: str, called: object) -> bool:
    is_system_call = event == "c_call" and getattr(called, "__module__", "") == "posix"
    return is_system_call and getattr(called, "__name__", "") in _EFFECTS


def _check(root: Path, writing: _Writing, contents: dict[int, dict[bytes, bytes]], images: dict[int, Image]) -> bool:
    """Hold the store to its laws, finish what was begun, and hold it to them again; return whether it was done."""
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
    return bool(writing.adds) and numbers > 1


def _check_versions(store: LocalStore, contents: dict[int, dict[bytes, bytes]], images: dict[int, Image]) -> int:
    faults = store.check(read_data=True).faults
    require(faults == (), f"the store has faults: {faults}")
    known = {image.version: contents[number] for number, image in images.items()}
    numbers = store.numbers(_IMAGE)
    for number in numbers:
        version = bytes.fromhex(store.version(_IMAGE, number).version)
        require(files_from(store, version) == known[version], f"version {number} gives other files")
    return len(numbers)


LAW = Law(
    "store-kill", "a writer killed anywhere leaves a clean store, with the old version or the new", 200, open_store_kill
)
