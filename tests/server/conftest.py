"""The scene, anew for each test; the state it starts from is made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serverbench.apps import one_loop
from serverbench.scene import Scene, make_template, open_scene
from serverbench.sessions import Sessions


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("template") / "state"
    make_template(state)
    return state


@pytest.fixture(scope="session", autouse=True)
def requests_on_one_loop() -> Iterator[None]:
    with one_loop():
        yield


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Iterator[Scene]:
    shutil.copytree(template, tmp_path / "state")
    made = open_scene(tmp_path / "state")
    yield made
    made.core.database.close()


@pytest.fixture
def held(scene: Scene) -> Sessions:
    """Two nodes, n01 and n02, and a desk that can hold sessions of them."""
    for number in (1, 2):
        scene.add_node(f"n0{number}", f"52:54:00:00:00:0{number}")
    return Sessions(scene)
