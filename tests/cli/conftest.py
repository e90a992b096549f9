"""The desk, anew for each test: the command line before a server with one image and one layout."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clibench.desk import Desk
from serverbench.apps import one_loop
from serverbench.scene import make_template, open_scene


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the state every test begins with once: keys, database, store."""
    state = tmp_path_factory.mktemp("template") / "state"
    make_template(state)
    return state


@pytest.fixture(scope="session", autouse=True)
def requests_on_one_loop() -> Iterator[None]:
    with one_loop():
        yield


@pytest.fixture
def desk(template: Path, tmp_path: Path) -> Iterator[Desk]:
    shutil.copytree(template, tmp_path / "state")
    scene = open_scene(tmp_path / "state")
    yield Desk(scene)
    scene.core.database.close()
