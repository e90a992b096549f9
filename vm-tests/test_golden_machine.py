"""A golden machine captured and updated by what is typed on it, and a clone that has what it got later."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import golden_machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(3000)]


def test_packages_of_a_golden_machine_are_in_its_clone_after_an_update(tmp_path: Path) -> None:
    """Cloned before the update as well: `./run soak golden-machine`."""
    with golden_machine.LAW.open(tmp_path) as case:
        figures = case(1)
    assert float(figures["update_stored_bytes"]) < float(figures["captured_stored_bytes"]) / 10
