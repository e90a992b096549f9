"""Very many small files need little memory; at length: `./run soak restore-million`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner_server.store.local import LocalStore
from soak.law import LawBrokenError
from soak.laws.many_files import put_many
from soak.laws.restore_million import restore_many
from soak.memory_box import memory_box
from store_images import Key

pytestmark = pytest.mark.root

MIB = 1 << 20


def test_twenty_thousand_files_are_restored_in_little_memory(tmp_path: Path) -> None:
    many = put_many(LocalStore(tmp_path / "store", Key()), 20_000)
    figures = restore_many(tmp_path, many, limit_bytes=128 * MIB, seed=1)
    assert (figures["inodes"], figures["killed"]) == (20_021, 0)


def test_a_restore_that_does_not_fit_is_no_success(tmp_path: Path) -> None:
    with memory_box(MIB * 16) as box:
        if box.group is None:
            pytest.skip("no control group of memory can be made here")
    many = put_many(LocalStore(tmp_path / "store", Key()), 2_000)
    with pytest.raises(LawBrokenError, match="killed"):
        restore_many(tmp_path, many, limit_bytes=16 * MIB, seed=1)
