"""A disk that is full, of bytes or of inodes, ends the work with a word, and what was published stays readable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import torture
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import StoreFullError
from clones import capture_into, restore_from
from store_images import Key

pytestmark = pytest.mark.root


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    torture.run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path))
    try:
        yield path
    finally:
        torture.run("umount", str(path))


@pytest.mark.parametrize("options", ["size=4m", "size=64m,nr_inodes=64"], ids=["bytes", "inodes"])
def test_a_capture_into_a_full_store_publishes_nothing_and_spoils_nothing(tmp_path: Path, options: str) -> None:
    golden = tmp_path / "golden"
    golden.mkdir()
    (golden / "first").write_bytes(os.urandom(100_000))
    with tmpfs(tmp_path / "disk", options) as disk:
        store = LocalStore(disk / "store", Key())
        record = capture_into(store, golden).record
        for number in range(40):
            (golden / f"{number}").write_bytes(os.urandom(1 << 20))
        with pytest.raises(StoreFullError) as caught:
            capture_into(store, golden)
        assert caught.value.hint
        assert list(store.files.temporary.iterdir()) == [], "what was begun is removed"
        assert store.numbers("golden") == [1]
        assert store.check(read_data=True).faults == ()
        target = tmp_path / "target"
        target.mkdir()
        restore_from(store, bytes.fromhex(record.version), target)
        assert (target / "first").read_bytes() == (golden / "first").read_bytes()
        shutil.rmtree(disk / "filler")
        assert capture_into(store, golden).record.number == 2
