"""What a capture would take, found without reading content."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from cloner_agent.capture.job import CaptureOptions, capture
from cloner_agent.capture.records import CaptureError
from cloner_agent.capture.source import closed_paths
from cloner_agent.capture.survey import DirectoryShare, Survey, survey
from cloner_core.image.linting.linter import SecretsError
from cloner_server.store.local import LocalSink, LocalStore
from store_images import Key


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, size in {"usr/lib/a": 5000, "usr/lib/deep/down/b": 7000, "usr/c": 10, "d": 3, "srv/x/e": 9000}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.urandom(size))
    return root


def look(tree: Path, *excludes: str) -> Survey:
    return survey(tree, excludes, None, allow_secrets=False)


def test_directories_are_weighed_two_deep_and_told_by_weight(tree: Path) -> None:
    told = look(tree)
    assert told.largest == (
        DirectoryShare("/usr/lib", 12000),
        DirectoryShare("/srv/x", 9000),
        DirectoryShare("/usr", 10),
        DirectoryShare("/", 3),
    )
    assert (told.data_bytes, told.unknown_bytes) == (21013, 21013)
    assert told.entries == 12  # five files, six directories and the root


def test_links_count_once_holes_not_and_sockets_are_no_part_of_it(tree: Path) -> None:
    before = look(tree)
    os.link(tree / "usr/lib/a", tree / "usr/lib/again")
    with (tree / "hole").open("wb") as file:
        file.truncate(1 << 30)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tree / "socket"))
        told = look(tree)
    assert told.data_bytes == before.data_bytes
    assert told.entries == before.entries + 2


def test_a_directory_that_is_closed_is_empty_in_the_survey_and_in_the_image(tree: Path, tmp_path: Path) -> None:
    closed = closed_paths(["/srv/x"])
    told = survey(tree, (), None, allow_secrets=False, closed=closed)
    assert (told.data_bytes, told.closed) == (12013, ("/srv/x",))
    sink = LocalSink(LocalStore(tmp_path / "store", Key()))
    assert capture(tree, sink, CaptureOptions("golden", closed=closed)).data_bytes == 12013


def test_other_mounts_than_those_that_were_shown_end_a_capture(tree: Path, tmp_path: Path) -> None:
    sink = LocalSink(LocalStore(tmp_path / "store", Key()))
    with pytest.raises(CaptureError, match="not what was shown before: /data is no longer mounted"):
        capture(tree, sink, CaptureOptions("golden", mounts=("/", "/data")))


def test_a_swap_file_weighs_nothing_by_any_of_its_names(tree: Path) -> None:
    before = look(tree)
    swap = bytes(4086) + b"SWAPSPACE2" + bytes(1 << 20)
    (tree / "swapfile").write_bytes(swap)
    os.link(tree / "swapfile", tree / "usr/second-name")
    (tree / "small").write_bytes(swap[:8192])  # mkswap takes ten pages at least
    told = look(tree)
    assert told.entries == before.entries + 1
    assert (told.data_bytes, told.unknown_bytes) == (before.data_bytes + 8192, before.unknown_bytes + 8192)


def test_what_is_left_out_weighs_nothing_and_what_names_nothing_is_told(tree: Path) -> None:
    told = look(tree, "/srv/*", "/nothing/there")
    assert told.data_bytes == 12013
    assert told.unmatched_excludes == ("/nothing/there",)


def test_what_was_sent_before_is_not_new(tree: Path, tmp_path: Path) -> None:
    indexes = tmp_path / "indexes"
    store = LocalStore(tmp_path / "store", Key())
    options = CaptureOptions("debian", indexes=indexes)
    capture(tree, LocalSink(store), options, clock_ns=lambda: time.time_ns() + 10**11)
    (tree / "new").write_bytes(bytes(500))
    told = survey(tree, (), None, allow_secrets=False, image="debian", indexes=indexes)
    assert (told.data_bytes, told.unknown_bytes) == (21513, 500)
    assert survey(tree, (), None, allow_secrets=False, image="other", indexes=indexes).unknown_bytes == 21513


def test_secrets_are_found_before_anything_is_read(tree: Path) -> None:
    (tree / "etc/munge").mkdir(parents=True)
    (tree / "etc/munge/munge.key").write_text("hunter2")
    with pytest.raises(SecretsError, match="munge"):
        look(tree)
