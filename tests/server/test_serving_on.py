"""The server goes on when its book-keeping cannot: deploys that run need it more than its events do."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from cloner_pxe.decision import BootPolicy
from cloner_server.api.boot import boot_app
from cloner_server.boot import BootDesk
from cloner_server.installer import Installer
from cloner_server.serve import until_stopped
from cloner_server.state.database import Database
from serverbench.scene import Scene

MAC = "52-54-00-00-00-01"


class _Full(Database):
    """Reads, and has no room to write."""

    @contextmanager
    def write(self) -> Iterator[Connection]:
        raise OperationalError("INSERT", None, sqlite3.OperationalError("database or disk is full"))
        yield


@pytest.fixture
def http(scene: Scene, tmp_path: Path) -> TestClient:
    """The boot port of the scene, its database full."""
    core = dataclasses.replace(scene.core, database=_Full(scene.core.database.engine))
    policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080")
    installer = Installer(tmp_path / "kernel", "k1", tmp_path / "initramfs", "i1", 64 << 20)
    return TestClient(boot_app(core, BootDesk(core, policy, installer, "https://10.77.0.1:8443"), {}))


def _script(http: TestClient) -> str:
    answer = http.get("/boot/ipxe", params={"mac": MAC, "platform": "efi"})
    assert answer.status_code == 200
    return str(answer.text)


def test_a_full_disk_does_not_keep_a_node_in_local_from_its_own(scene: Scene, http: TestClient) -> None:
    assert _script(http).endswith("exit 1\n"), "unknown"
    scene.add_node()
    assert _script(http).endswith("exit 1\n"), "known, local"


def test_a_full_disk_makes_an_armed_node_ask_again(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    scene.arm(has_identity=False)
    text = _script(http)
    assert "cloner.claim" not in text
    assert "sleep" in text


def test_a_full_disk_in_a_turn_of_housekeeping_is_logged_and_the_next_turn_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns = 0

    async def serve() -> None:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()

        def keep_house() -> None:
            nonlocal turns
            turns += 1
            if turns < 3:
                raise sqlite3.OperationalError("database or disk is full")
            loop.call_soon_threadsafe(stopping.set)

        await until_stopped(stopping, [], keep_house, turn_s=0.001)

    asyncio.run(serve())
    assert turns == 3
    assert caplog.text.count("database or disk is full") == 2
