"""Pictures of layouts, as reviewed; and laws that hold for every one."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.facts import Facts
from cloner_core.layout import Layout
from cloner_core.picturing import as_svg, as_text, draw
from core.drawnlayouts import scenes
from core.test_golden_layouts import NAMES, scene

GOLDEN = Path(__file__).parent / "golden/pictures"
DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
REVIEWED = ("raid1-lvm", "luks-swap", "btrfs-subvolumes", "raid5-whole-disks", "many-partitions", "kept-scratch")


@pytest.mark.parametrize("kind", ["txt", "svg"])
@pytest.mark.parametrize("name", REVIEWED)
def test_the_picture_is_the_reviewed_one(name: str, kind: str) -> None:
    picture = draw(scene(name)[1])
    shown = as_svg(picture) if kind == "svg" else f"{as_text(picture)}\n"
    path = GOLDEN / f"{name}.{kind}"
    if os.environ.get("CLONER_WRITE_GOLDEN"):  # then look at the difference before it is committed
        path.write_text(shown)
    assert shown == path.read_text()


def test_the_picture_in_the_documents_is_of_this_version() -> None:
    assert (DOCS / "layout.svg").read_text() == as_svg(draw(scene("raid1-lvm")[1]))


@pytest.mark.parametrize("name", NAMES)
def test_everything_of_a_layout_is_in_its_picture(name: str) -> None:
    layout = scene(name)[1]
    shown = as_text(draw(layout), 400)
    texts = " ".join(ElementTree.fromstring(as_svg(draw(layout))).itertext())
    names = [disk.id for disk in layout.disks] + [array.id for array in layout.arrays]
    names += [group.name for group in layout.groups]
    names += [volume.name for group in layout.groups for volume in group.volumes]
    names += [mount for _, content in layout.filesystems() for mount in (content.mount, content.kind)]
    names += [one.path for one in layout.swapfiles]
    for word in names:
        assert word in shown
        assert word in texts


@given(scenes(), st.integers(60, 200))
@settings(max_examples=15, deadline=None)
def test_bars_are_as_wide_as_they_may_be_and_never_ragged(drawn: tuple[Facts, Layout], width: int) -> None:
    bars = [line for line in as_text(draw(drawn[1]), width).splitlines() if line.startswith(("┌", "│", "└"))]
    assert all(len(line) == len(bars[0]) for line in bars if len(line) <= width)
    assert max(map(len, bars)) <= max(width, 60)


@given(scenes())
@settings(max_examples=15, deadline=None)
def test_no_text_of_an_svg_leaves_its_cell_and_no_cell_the_canvas(drawn: tuple[Facts, Layout]) -> None:
    svg = ElementTree.fromstring(as_svg(draw(drawn[1])))
    width, height = (float(svg.attrib[name]) for name in ("width", "height"))
    for one in svg.iter(f"{SVG}rect"):
        x, y = float(one.get("x", "0")), float(one.get("y", "0"))
        assert x + float(one.attrib["width"]) <= width
        assert y + float(one.attrib["height"]) <= height
    _, *cells = [
        [float(one.get(name, "0")) for name in ("x", "y", "width", "height")] for one in svg.iter(f"{SVG}rect")
    ]
    for text in svg.iter(f"{SVG}text"):
        left, base = float(text.attrib["x"]), float(text.attrib["y"])
        right = left + len("".join(text.itertext())) * 7.3
        around = [x + wide for x, y, wide, high in cells if x <= left <= x + wide and y <= base <= y + high]
        assert base <= height
        assert right <= (around or [width])[0]
