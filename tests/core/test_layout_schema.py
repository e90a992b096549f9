"""The published schema of layouts: it takes what is taken, and refuses nothing that is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cloner_core.errors import InvalidError
from cloner_core.facts import Facts
from cloner_core.layout import Layout, layout_document, parse_layout
from cloner_core.layout.schema import layout_schema
from core.drawnlayouts import scenes
from core.test_layout import document, spoil

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft202012Validator(layout_schema())
PARTS = ("disks", 0, "partitions")


def is_valid(raw: object) -> bool:
    return bool(VALIDATOR.is_valid(raw))


def test_the_published_file_is_the_schema() -> None:
    published = (ROOT / "docs/layout.schema.json").read_text()
    assert published == json.dumps(layout_schema(), indent=2) + "\n", "cloner layout schema > docs/layout.schema.json"
    Draft202012Validator.check_schema(json.loads(published))


@pytest.mark.parametrize("path", sorted((ROOT / "tests/core/layouts").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_reviewed_layout_is_taken(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text())["layout"])


@given(scenes())
@settings(max_examples=15, deadline=None)
def test_whatever_is_written_as_a_document_is_taken(scene: tuple[Facts, Layout]) -> None:
    VALIDATOR.validate(layout_document(scene[1]))
    VALIDATOR.validate(msgspec.json.decode(msgspec.json.encode(scene[1])))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param([], id="a list"),
        pytest.param(spoil("disks", value=[]), id="no disks"),
        pytest.param(spoil("format", value=2), id="newer format"),
        pytest.param(spoil("name", value="Debian 12"), id="a name with a blank"),
        pytest.param(spoil("disks", 0, "id", value=7), id="an id that is a number"),
        pytest.param(spoil("disks", 0, "select", value={"serail": "x"}), id="a selector misspelt"),
        pytest.param(spoil("disks", 0, "select", value={"pick": {"nth": 0, "of": 2, "by": "path"}}), id="pick none"),
        pytest.param(spoil("disks", 0, "table", value="gtp"), id="a table misspelt"),
        pytest.param(spoil("disks", 0, "table", value="none"), id="partitions without a table"),
        pytest.param(spoil(*PARTS, 1, "role", value="wsap"), id="a role misspelt"),
        pytest.param(spoil(*PARTS, 1, "size", value="big"), id="no size"),
        pytest.param(spoil(*PARTS, 1, "size", value=-1), id="a negative size"),
        pytest.param(spoil(*PARTS, 1, "size", value={"max": "1GiB"}), id="a share without min"),
        pytest.param(spoil(*PARTS, 1, "size", value={"min": "1GiB", "weight": 1001}), id="too heavy"),
        pytest.param(spoil(*PARTS, 1, "size"), id="size missing"),
        pytest.param(spoil(*PARTS, 1, "content", value={"type": "swapp"}), id="content misspelt"),
        pytest.param(spoil(*PARTS, 1, "content", value={"type": "kept"}), id="kept without a number"),
        pytest.param(spoil(*PARTS, 2, "content", "kind", value="ntfs"), id="another filesystem"),
        pytest.param(spoil(*PARTS, 2, "content", "mount"), id="mount missing"),
        pytest.param(spoil(*PARTS, 2, "content", "mont", value="/"), id="an unknown field"),
        pytest.param(spoil("arrays", value=[{"id": "a", "level": "raid7", "content": {"type": "swap"}}]), id="raid7"),
        pytest.param(spoil("groups", value=[{"name": "vg", "volumes": []}]), id="a group of nothing"),
        pytest.param(spoil("swapfiles", value=[{"path": "/swap"}]), id="a swap file without a size"),
    ],
)
def test_a_mistake_of_form_is_refused_by_the_schema_and_by_the_reader(raw: Any) -> None:
    assert not is_valid(raw)
    with pytest.raises(InvalidError):
        parse_layout(json.dumps(raw))


WORDS = [
    "rest",
    "1GiB",
    "12 apples",
    "",
    "none",
    "mbr",
    "/",
    0,
    -1,
    1.5,
    None,
    True,
    [],
    {},
    {"min": 1},
    {"type": "swap"},
]


def paths_of(raw: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of every value in a document."""
    inside = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    return [path, *(found for key, value in inside for found in paths_of(value, (*path, key)))]


@given(scenes(), st.data())
@settings(max_examples=25, deadline=None)
def test_the_schema_refuses_nothing_that_the_reader_takes(scene: tuple[Facts, Layout], data: st.DataObject) -> None:
    raw = copy.deepcopy(data.draw(st.sampled_from([document(), layout_document(scene[1])])))
    for _ in range(data.draw(st.integers(1, 3))):
        if not (paths := [path for path in paths_of(raw) if path]):
            break  # all of it was taken away
        *way, last = data.draw(st.sampled_from(paths))
        place = raw
        for key in way:
            place = place[key]
        if data.draw(st.booleans()):
            del place[last]
        else:
            place[last] = copy.deepcopy(data.draw(st.sampled_from(WORDS)))  # a later turn may change what is inside
    try:
        parse_layout(json.dumps(raw))
    except InvalidError:
        return
    VALIDATOR.validate(raw)
