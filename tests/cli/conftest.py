"""The desk, anew for each test: the command line before a server with one image and one layout."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_server.config import ServerConfig
from cloner_server.serve import open_core
from serverbench.scene import Clock, Scene, make_scene
from store_images import Image


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Image]:
    """Make the state every test begins with once: keys, database, store."""
    state = tmp_path_factory.mktemp("server") / "state"
    scene = make_scene(state)
    scene.core.database.close()
    return state, scene.image


@pytest.fixture
def desk(furnished: tuple[Path, Image], tmp_path: Path) -> Iterator[Desk]:
    template, image = furnished
    state = tmp_path / "state"
    shutil.copytree(template, state)
    clock = Clock()
    core = dataclasses.replace(open_core(ServerConfig(state=str(state), tftp_port=0), "10.77.0.1"), clock=clock)
    yield Desk(Scene(core, clock, image))
    core.database.close()
