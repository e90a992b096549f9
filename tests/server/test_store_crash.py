"""Writers that race or die leave a store that is clean."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

import torture
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import StoreFullError
from soak.book import Entry
from soak.laws import flipped_bytes, store_beside, store_kill
from store_images import Image, Key, files_from, make_image, some_contents

pytestmark = pytest.mark.root  # starts processes, mounts a small filesystem

CONTEXT = multiprocessing.get_context("fork")


def _publish(root: Path, image: Image, start: float) -> None:
    time.sleep(max(0.0, start - time.monotonic()))
    store = LocalStore(root, Key())
    image.put(store)
    store.publish(image.draft)


def test_publishers_at_once_get_a_number_each(tmp_path: Path) -> None:
    images = [make_image(some_contents(seed)) for seed in range(6)]
    start = time.monotonic() + 0.5
    writers = [CONTEXT.Process(target=_publish, args=(tmp_path, image, start)) for image in images]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    store = LocalStore(tmp_path, Key())
    assert store.numbers("golden") == [1, 2, 3, 4, 5, 6]
    assert {store.version("golden", number).version for number in range(1, 7)} == {
        image.version.hex() for image in images
    }
    assert store.check(read_data=True).faults == ()
    assert os.listdir(store.files.temporary) == []


def test_a_writer_killed_anywhere_leaves_the_old_version_or_the_new(tmp_path: Path) -> None:
    """At length: `./run soak store-kill`."""
    with store_kill.LAW.open(tmp_path) as case:
        tried = [case(seed) for seed in range(5, 20)]
    assert store_kill.LAW.enough([Entry(seed, 0.0, figures) for seed, figures in enumerate(tried)]) == ""
    assert {"publish", "repack", "gc"} <= {str(figures["writing"]) for figures in tried}


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with torture.ext4(tmp_path / "small", 6 << 20) as mount:
        store = LocalStore(mount / "store", Key())
        first = make_image(some_contents(0))
        first.put(store)
        store.publish(first.draft)
        with (mount / "ballast").open("wb", buffering=0) as file:
            while os.statvfs(mount).f_bavail * 4096 > 700 << 10:
                file.write(bytes(65536))
                os.fsync(file.fileno())
        with pytest.raises(StoreFullError, match=r"no room for packs .* free") as told:
            make_image(some_contents(1)).put(store)
        assert "gc" in told.value.hint
        assert os.listdir(store.files.temporary) == []
        assert store.check(read_data=True).faults == ()
        assert files_from(store, first.version) == some_contents(0)
        (mount / "ballast").unlink()
        second = make_image(some_contents(1))
        second.put(store)
        assert store.publish(second.draft).number == 2


def test_a_byte_changed_anywhere_is_found_by_every_check(tmp_path: Path) -> None:
    """At length: `./run soak flipped-bytes`."""
    with flipped_bytes.LAW.open(tmp_path) as case:
        tried = [case(seed) for seed in range(1000, 1008)]
    assert len({figures["in"] for figures in tried}) == 8


def test_captures_and_deploys_beside_all_upkeep_are_whole_or_told_why_not(tmp_path: Path) -> None:
    """At length: `./run soak store-beside`."""
    with store_beside.LAW.open(tmp_path) as case:
        tried = [case(seed) for seed in (1000, 1001)]
    for word in ("published", "deployed"):
        assert all(float(figures.get(word, 0)) > 0 for figures in tried), word
