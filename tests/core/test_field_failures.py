"""The table of field failures speaks of tests that exist, and leaves out none that we promised to answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from soak.__main__ import LAWS

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| ([CF]\d+) \| (.*) \| (.*) \| (.*) \|$", (ROOT / "docs/field-failures.md").read_text(), re.M)
PROMISED = ["C2", "C3", "C13", "C14", "C22", "F6", "F7", "F8", "F9", "F10", "F11", "F22", "F29", "F31", "F32", "F33"]


def test_every_failure_we_promised_to_answer_has_a_row() -> None:
    assert [row[0] for row in ROWS] == PROMISED


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_shows_it_exists(row: tuple[str, str, str, str]) -> None:
    named = re.findall(r"`([^`]+)`", row[3])
    assert named
    for one in named:
        if one.startswith("./run soak "):
            assert one.removeprefix("./run soak ") in LAWS
            continue
        path, _, name = one.partition("::")
        text = (ROOT / path).read_text()
        assert re.search(rf"^def {name or 'test_'}", text, re.M), one
