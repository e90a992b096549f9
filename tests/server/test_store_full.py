"""A disk that is full, of bytes or of inodes, ends the work with a word, and what was published stays readable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import torture
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import StoreFullError
from clones import capture_into, restore_from
from store_images import Key

pytestmark = pytest.mark.root


def _fill_bytes(filler: Path) -> None:
    status = os.statvfs(filler)
    (filler / "bytes").write_bytes(bytes(status.f_bavail * status.f_frsize - (5 << 20)))


def _fill_inodes(filler: Path) -> None:
    for number in range(os.statvfs(filler).f_favail - 5):
        (filler / f"{number}").touch()


@pytest.mark.parametrize("fill", [_fill_bytes, _fill_inodes], ids=["bytes", "inodes"])
def test_a_capture_into_a_full_store_publishes_nothing_and_spoils_nothing(
    tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    golden = tmp_path / "golden"
    golden.mkdir()
    (golden / "first").write_bytes(os.urandom(100_000))
    with torture.small_disk(tmp_path / "disk", "64m", inodes=2000) as disk:
        store = LocalStore(disk / "store", Key())
        record = capture_into(store, golden).record
        (disk / "filler").mkdir()
        fill(disk / "filler")
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
