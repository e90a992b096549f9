"""A real server and a real client killed in a capture, and a full disk: the version is the old or the new."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from soak.laws import capture_kill

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="the server needs root")]


def test_a_capture_that_is_killed_anywhere_leaves_the_old_version_or_the_new(tmp_path: Path) -> None:
    """At length: `./run soak capture-kill`."""
    with capture_kill.LAW.open(tmp_path) as case:
        kinds = [case(seed)["kind"] for seed in (4, 6, 8, 9)]
    assert kinds == ["client", "disk", "server", "server"]
