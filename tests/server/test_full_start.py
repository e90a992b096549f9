"""A server whose disk is full starts, serves what needs no room, and writes the rest when there is some."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

import torture
from cloner_core.errors import ClonerError
from cloner_pxe.decision import BootPolicy
from cloner_server.boot import BootDesk
from cloner_server.clock import SteadyClock
from cloner_server.config import ServerConfig
from cloner_server.core import Core
from cloner_server.house import House
from cloner_server.serve import open_core
from cloner_server.state import events
from cloner_server.state.database import Act, Database, open_database

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def state(template: Path, tmp_path: Path) -> Iterator[Path]:
    """The state of a server on a small disk of its own."""
    with torture.small_disk(tmp_path / "disk", "24m") as disk:
        yield Path(shutil.copytree(template, disk / "state"))


def fill(state: Path) -> None:
    with (state / "ballast").open("wb", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12):
            while os.statvfs(state).f_bavail * os.statvfs(state).f_frsize >= size:
                ballast.write(bytes(size))


def write_on(database: Database) -> None:
    """Write until nothing goes: the write-ahead log has a little room of its own."""
    for _ in range(1000):
        with database.write() as connection:
            events.record(connection, Act("test", 1.0), "site", "filler")


def starts(core: Core) -> int:
    with core.database.read() as connection:
        return sum(event.what == "started" for event in events.list_events(connection))


def test_a_start_on_a_full_disk_serves_and_is_written_when_there_is_room(state: Path) -> None:
    with contextlib.ExitStack() as stack:
        killed = opened(state, stack)
        fill(state)
        with pytest.raises(OperationalError, match="full"):
            write_on(killed.database)
        before = starts(killed)
        clock = SteadyClock()
        core = dataclasses.replace(opened(state, stack), clock=clock)
        assert (starts(core), core.catalog.store.numbers("golden")) == (before, [1])
        policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080")
        desk = BootDesk(core, policy, None, "https://10.77.0.1:8443")
        with pytest.raises(OperationalError, match="full"):
            House(core, desk, clock).turn()
        (state / "ballast").unlink()
        house = House(core, desk, clock)
        house.turn()
        house.turn()
        assert starts(core) == before + 1


def opened(state: Path, stack: contextlib.ExitStack) -> Core:
    core = open_core(ServerConfig(state=str(state)), "10.77.0.1")
    stack.callback(core.database.close)
    return core


def test_a_disk_too_full_to_read_the_database_is_to_be_given_room(state: Path) -> None:
    fill(state)
    with pytest.raises(ClonerError) as told:
        open_database(state / "cloner.db")
    assert told.value.hint.startswith(f"make room on {state} ")
    (state / "ballast").unlink()
    open_database(state / "cloner.db").close()
