"""A disk with a sector that cannot be read back: the task fails and names disk and byte, in a real machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import disk_errors

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

SEED = 20


def test_a_sector_that_cannot_be_read_fails_the_task_and_is_named(tmp_path: Path) -> None:
    """At length: `./run soak disk-errors`."""
    with disk_errors.LAW.open(tmp_path) as case:
        figures = case(SEED)
    print(figures)
    assert figures["operation"] == "read"
