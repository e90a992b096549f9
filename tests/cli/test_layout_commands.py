"""Layouts: YAML or JSON in, the same document out; a number is made only by a change."""

from __future__ import annotations

from pathlib import Path

import msgspec

from clibench.desk import Desk
from serverbench.scene import LAYOUT

DOCS = Path(__file__).parents[2] / "docs"
YAML = """
disks:
  - id: system
    select: {size_min: 1GiB}
    partitions:
      - {role: esp, size: 512MiB, content: {type: filesystem, kind: vfat, mount: /boot/efi}}
      - {role: swap, size: 256MiB, content: {type: swap}}
      - {role: root, size: rest, content: {type: filesystem, kind: ext4, mount: /}}
"""


def test_yaml_and_json_are_the_same_layout(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "simple.yaml"
    path.write_text(YAML)
    assert desk.json("disklayout-upload", "-l", "simple", "-f", str(path))["number"] == 1
    path.write_text(LAYOUT)
    assert desk.json("disklayout-upload", "-l", "simple", "-f", str(path))["number"] == 1


def test_a_changed_layout_gets_the_next_number_and_the_old_one_stays(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "simple.yaml"
    path.write_text(YAML.replace("256MiB", "1GiB"))
    before = desk.scene.state_dump()
    desk.run("disklayout-upload", "-l", "simple", "-f", str(path), "--dry-run")
    assert desk.scene.state_dump() == before
    assert desk.run("disklayout-upload", "-l", "simple", "-f", str(path)).stdout == "layout simple:2\n"
    assert '"256MiB"' in desk.run("disklayout", "-l", "simple:1").stdout
    assert '"1GiB"' in desk.run("disklayout", "-l", "simple").stdout


def test_what_is_printed_can_be_uploaded(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "printed.json"
    path.write_text(desk.run("disklayout", "-l", "simple").stdout)
    assert desk.json("disklayout-upload", "-l", "simple", "-f", str(path))["number"] == 1


def test_a_layout_may_come_from_standard_input(desk: Desk) -> None:
    result = desk.run("disklayout-upload", "-l", "fresh", "-f", "-", "--json", typed=YAML)
    assert result.exit_code == 0, result.stderr
    assert msgspec.json.decode(result.stdout)["name"] == "fresh"
    assert [view["name"] for view in desk.json("disklayout-list")] == ["fresh", "simple"]


def test_a_layout_is_shown_as_a_picture_from_the_server_and_from_a_file(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "simple.json"
    path.write_text(desk.run("disklayout", "-l", "simple").stdout)
    shown = desk.run("disklayout", "-l", "simple", "--picture").stdout
    assert "│ 3 root" in shown
    assert desk.run("layout", "picture", str(path)).stdout == shown


def test_a_picture_is_written_as_svg(desk: Desk, tmp_path: Path) -> None:
    path, other = tmp_path / "simple.svg", tmp_path / "simple.json"
    assert desk.run("disklayout", "-l", "simple", "--svg", str(path)).stdout == ""
    assert path.read_text().startswith("<svg ")
    other.write_text(desk.run("disklayout", "-l", "simple").stdout)
    assert desk.run("layout", "picture", str(other), "--svg", "-").stdout == path.read_text()


def test_what_cannot_be_written_is_said_and_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    refused = desk.refused("disklayout", "-l", "simple", "--output", str(tmp_path / "nowhere/out.json"))
    assert "cannot be written" in refused.stderr


def test_the_schema_is_printed_as_it_is_published(desk: Desk) -> None:
    desk.transport.is_away = True
    assert desk.run("layout", "schema").stdout == (DOCS / "layout.schema.json").read_text()
