"""The layout of a machine that is kept, compared and decided on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from clibench.desk import Desk
from cloner_core.detection import Detected
from cloner_core.errors import ExitStatus, InvalidError
from cloner_core.layout import Layout, layout_document, parse_layout
from serverbench.scene import LAYOUT

SIMPLE = parse_layout(LAYOUT)


def larger(layout: Layout = SIMPLE) -> Layout:
    """Return `layout` with a larger swap partition."""
    document = layout_document(layout)
    swap = next(one for one in document["disks"][0]["partitions"] if one["role"] == "swap")
    swap["size"] = "3GiB"
    return parse_layout(msgspec.json.encode(document))


def found(desk: Desk, layout: Layout, *notes: str) -> None:
    """Have the disks of this machine be as `layout` says."""
    desk.detect = lambda name, _: Detected(msgspec.structs.replace(layout, name=name), notes)


def newest(desk: Desk) -> int:
    number: int = desk.json("disklayout", "-l", "simple")["number"]
    return number


def update(desk: Desk, *more: str, typed: str = "") -> Any:
    return desk.run("update-disklayout", "--disklayout", "simple", *more, typed=typed)


def test_a_new_name_is_stored_without_a_question(desk: Desk) -> None:
    found(desk, SIMPLE, "/dev/vdc is empty")
    told = desk.run("update-disklayout", "--disklayout", "golden")
    assert (told.exit_code, told.stdout) == (0, "layout golden:1 stored\n")
    assert "note: /dev/vdc is empty" in told.stderr
    assert desk.json("disklayout", "-l", "golden")["layout"]["disks"]


def test_the_same_disks_store_nothing(desk: Desk) -> None:
    found(desk, SIMPLE)
    before = desk.scene.state_dump()
    assert update(desk).stdout == "layout simple:1 is kept as it is\n"
    assert desk.scene.state_dump() == before


def test_a_difference_is_shown_and_asked_about(desk: Desk) -> None:
    found(desk, larger())
    desk.has_terminal = True
    refused = desk.refused("update-disklayout", "--disklayout", "simple", typed="n\n")
    assert (refused.exit_code, "becomes 3GiB" in refused.stderr) == (ExitStatus.REFUSED, True)
    told = update(desk, typed="y\n")
    assert told.stdout == "layout simple:2 stored\n"


def test_where_nobody_can_be_asked_a_difference_is_an_error_that_names_the_way(desk: Desk) -> None:
    found(desk, larger())
    refused = desk.refused("update-disklayout", "--disklayout", "simple")
    assert refused.exit_code == ExitStatus.REFUSED
    assert "partitions[1].size" in refused.stderr
    assert "--yes" in refused.stderr
    assert update(desk, "--yes").exit_code == 0
    assert newest(desk) == 2


@pytest.mark.parametrize(("conflict", "number"), [("server", 1), ("commandline", 2)])
def test_a_conflict_is_decided_as_told(desk: Desk, conflict: str, number: int) -> None:
    found(desk, larger())
    told = update(desk, "--update-conflict", conflict)
    assert (told.exit_code, newest(desk)) == (0, number)
    assert "becomes 3GiB" in told.stderr


def test_a_dry_run_shows_the_difference_and_stores_nothing(desk: Desk) -> None:
    found(desk, larger())
    before = desk.scene.state_dump()
    told = update(desk, "--dry-run")
    assert (told.exit_code, told.stdout) == (0, "layout simple:2 would be stored\n")
    assert "becomes 3GiB" in told.stderr
    assert desk.scene.state_dump() == before


def test_what_no_layout_describes_is_told_device_by_device(desk: Desk) -> None:
    def fail(*_: object) -> Detected:
        raise InvalidError("no layout describes the disks of this machine", faults=["/dev/vda1 is ZFS", "/dev/vdb"])

    desk.detect = fail
    refused = desk.refused("update-disklayout", "--disklayout", "golden")
    assert refused.exit_code == ExitStatus.USAGE
    assert "/dev/vda1 is ZFS" in refused.stderr


def test_an_unknown_image_is_refused_before_anything_is_looked_at(desk: Desk) -> None:
    refused = desk.refused("update-disklayout", "--disklayout", "golden", "--image", "nosuch")
    assert refused.exit_code == ExitStatus.NOT_FOUND


def test_a_layout_is_written_to_a_file_and_taken_from_it(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    assert desk.run("disklayout", "-l", "simple", "--image", "golden", "--output", str(path)).stdout == ""
    uploaded = desk.json("disklayout-upload", "-l", "simple", "-f", str(path), "--image", "golden")
    assert uploaded["number"] == 1
    assert list(tmp_path.glob("*out*")) == [path]


def test_a_layout_is_checked_without_a_server(desk: Desk, tmp_path: Path) -> None:
    desk.transport.is_away = True
    path = tmp_path / "simple.json"
    path.write_text(LAYOUT)
    assert "is right: 1 disks, 3 partitions" in desk.run("layout", "check", str(path)).stdout
    path.write_text(LAYOUT.replace("vfat", "ext4").replace("swap", "wsap"))
    wrong = desk.run("layout", "check", str(path))
    assert wrong.exit_code == ExitStatus.USAGE
    assert all(fault in wrong.stderr for fault in ("disks[0].partitions[0]", "disks[0].partitions[1]"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "golden/etc").mkdir(parents=True)
    (tmp_path / "golden/etc/hostname").write_text("golden\n")
    return tmp_path / "golden"


def capture(desk: Desk, tree: Path, tmp_path: Path, layout: Layout, *more: str) -> Any:
    path = tmp_path / "layout.json"
    path.write_bytes(msgspec.json.encode(layout_document(layout)))
    words = ("--root", str(tree), "--image", "debian", "--disklayout", "simple", "--disklayout-file", str(path))
    return desk.run("new-image", *words, *more)


def test_a_capture_reuses_an_equal_layout_and_refuses_another_one(desk: Desk, tree: Path, tmp_path: Path) -> None:
    assert capture(desk, tree, tmp_path, SIMPLE).exit_code == 0
    assert newest(desk) == 1
    before = desk.stored()
    refused = capture(desk, tree, tmp_path, larger())
    assert refused.exit_code == ExitStatus.REFUSED
    assert "becomes 3GiB" in refused.stderr
    assert (newest(desk), desk.stored()) == (1, before)


@pytest.mark.parametrize(("conflict", "number"), [("server", 1), ("commandline", 2)])
def test_a_capture_with_another_layout_is_decided_as_told(
    desk: Desk, tree: Path, tmp_path: Path, conflict: str, number: int
) -> None:
    assert capture(desk, tree, tmp_path, larger(), "--update-conflict", conflict).exit_code == 0
    assert newest(desk) == number


def test_excluded_devices_go_with_the_machine_itself(desk: Desk, tree: Path) -> None:
    words = ("--root", str(tree), "--image", "debian", "--disklayout", "simple", "--exclude-devices", "/dev/sdb")
    assert desk.refused("new-image", *words).exit_code == ExitStatus.USAGE


HERE = ("new-image", "--root", "/", "--image", "debian", "--disklayout")


def test_a_capture_of_this_machine_finds_its_layout_and_refuses_when_the_server_has_another(desk: Desk) -> None:
    found(desk, larger())
    refused = desk.refused(*HERE, "simple")
    assert refused.exit_code == ExitStatus.REFUSED
    assert "layout simple:1 is another one" in refused.stderr
    assert "becomes 3GiB" in refused.stderr


def test_a_capture_of_a_machine_no_layout_describes_wants_one_that_exists(desk: Desk) -> None:
    def fail(*_: object) -> Detected:
        raise InvalidError("no layout describes the disks of this machine", faults=["/dev/vda1 is part of a ZFS pool"])

    desk.detect = fail
    refused = desk.refused(*HERE, "golden")
    assert refused.exit_code == ExitStatus.USAGE
    assert "ZFS" in refused.stderr
