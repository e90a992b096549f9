"""The store is checked and collected from the command line; what is wrong has the status of bytes that are wrong."""

from __future__ import annotations

import os

import msgspec
import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_core.image.compression import compress
from cloner_core.image.digest import digest
from store_images import make_image


def leave_a_stray(desk: Desk, age_s: float) -> bytes:
    stray = os.urandom(1000)
    store = desk.scene.core.catalog.store
    store.put_pack(digest(stray), stray)
    path = store.pack_path(digest(stray))
    old = path.stat().st_mtime - age_s
    os.utime(path, (old, old))
    return stray


def test_a_whole_store_has_no_faults(desk: Desk) -> None:
    shown = desk.run("store", "check")
    assert (shown.exit_code, "faults    none" in shown.stdout) == (0, True)
    told = desk.json("store", "check", "--read-data")
    assert (told["faults"], told["versions"]) == ([], 1)


def test_a_damaged_pack_is_named_and_only_reading_finds_it(desk: Desk) -> None:
    pack = desk.scene.image.packs[0].digest
    path = desk.scene.core.catalog.store.pack_path(pack)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert desk.run("store", "check").exit_code == 0
    result = desk.run("store", "check", "--read-data")
    assert result.exit_code == ExitStatus.INTEGRITY
    assert pack.hex() in result.stderr
    assert "hint: " in result.stderr
    assert pack.hex() in desk.run("store", "check", "--read-data", "--json").stdout


def test_gc_removes_what_is_old_and_needed_by_none(desk: Desk) -> None:
    leave_a_stray(desk, 2 * 86400)
    before = desk.stored()
    assert desk.run("store", "gc", "--dry-run").stdout == "would remove 1 files, 1000 B\n"
    assert desk.stored() == before
    assert desk.json("store", "gc", "--grace", "7d", "--yes") == {"files": 0, "stored_bytes": 0}
    assert desk.json("store", "gc") == {"files": 1, "stored_bytes": 1000}
    assert desk.json("store", "check", "--read-data")["faults"] == []
    assert "collected" in desk.run("events").stdout


def test_a_short_grace_wants_a_yes_since_it_may_break_a_capture(desk: Desk) -> None:
    leave_a_stray(desk, 100)
    result = desk.refused("store", "gc", "--grace", "1min")
    assert result.exit_code == ExitStatus.REFUSED
    assert desk.json("store", "gc", "--grace", "1min", "--yes")["files"] == 1


@pytest.mark.parametrize("grace", ["1", "-1h", "soon", "nan", "1e9d", ""])
def test_a_grace_that_is_no_time_is_refused(desk: Desk, grace: str) -> None:
    result = desk.refused("store", "gc", "--yes", "--grace", grace)
    assert result.exit_code == ExitStatus.USAGE
    assert "30min" in result.stderr


def test_stats_tell_what_images_and_versions_weigh(desk: Desk) -> None:
    told = desk.json("store", "stats")
    lines = desk.run("store", "stats").stdout.splitlines()
    assert lines[0].split() == ["IMAGE", "VERSIONS", "LOGICAL", "UNIQUE", "STORED", "ONLY"]
    assert [line.split()[:2] for line in lines[1:3]] == [["golden", "1"], ["all", "1"]]
    assert told["images"][0]["only_bytes"] == told["stored_bytes"] > 0
    assert desk.run("store", "stats", "--image", "golden").stdout.splitlines()[1].startswith("golden:1")
    assert desk.refused("store", "stats", "--image", "nosuch").exit_code == ExitStatus.NOT_FOUND


def test_repack_tells_what_it_would_write_anew_and_then_does(desk: Desk) -> None:
    store = desk.scene.core.catalog.store
    contents = {b"%02d" % number: os.urandom(5000) for number in range(40)}
    whole = make_image(contents, "thin", pack_every=40)
    whole.put(store)
    store.publish(whole.draft)
    few = make_image({b"02": contents[b"02"]}, "thin")
    for segment in few.segments:
        store.put_segment(segment.ref.digest, len(segment.raw), compress(segment.raw))
    store.publish(msgspec.structs.replace(few.draft, packs=(), base=whole.version))
    store.remove_version("thin", 1)
    before = desk.stored()
    shown = desk.run("store", "repack", "--dry-run")
    assert (shown.exit_code, "would write anew 1 packs" in shown.stdout) == (0, True)
    assert desk.stored() == before
    told = desk.json("store", "repack", "--below", "60")
    assert (told["packs"], told["new_packs"], told["live_bytes"], told["versions"]) == (1, 1, 5000, 1)
    assert "repacked" in desk.run("events").stdout
    assert desk.json("store", "check", "--read-data")["faults"] == []
    assert desk.json("store", "repack")["packs"] == 0
    assert desk.refused("store", "repack", "--below", "0").exit_code == ExitStatus.USAGE
