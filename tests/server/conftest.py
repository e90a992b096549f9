"""The scene, anew for each test; the database and keys it starts from are made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serverbench.scene import Scene, make_scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = make_scene(tmp_path / "state")
    yield made
    made.core.database.close()
