"""A disk that is full is 507, a database somebody holds 503: the caller is told to come again, nothing is lost."""

from __future__ import annotations

import dataclasses
import errno
import os
import sqlite3
import threading
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from cloner_core.errors import ExitStatus, RefusedError
from cloner_core.image.digest import digest
from cloner_pxe.decision import BootPolicy
from cloner_server.api.boot import boot_app
from cloner_server.api.faults import http_status, trouble_of
from cloner_server.boot import BootDesk
from cloner_server.config import ServerConfig
from cloner_server.core import Core
from cloner_server.serve import open_core
from cloner_server.state.database import Database, DatabaseBusyError, open_database
from cloner_server.statedir import locked
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import StoreFullError
from serverbench.scene import Agent, Scene
from store_images import Key


def sqlite_error(code: int) -> OperationalError:
    cause = sqlite3.OperationalError("some words")
    cause.sqlite_errorcode = code
    return OperationalError("INSERT", None, cause)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 507),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 507),
        (sqlite_error(sqlite3.SQLITE_FULL), 507),
        (sqlite_error(sqlite3.SQLITE_BUSY), 503),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), 503),
        (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), 503),
        (sqlite_error(sqlite3.SQLITE_READONLY), 503),
        (sqlite_error(sqlite3.SQLITE_CORRUPT), None),
        (OSError(errno.EPERM, "Operation not permitted"), None),
        (ZeroDivisionError(), None),
    ],
    ids=str,
)
def test_each_trouble_has_its_status(error: Exception, status: int | None) -> None:
    told = trouble_of(error)
    assert (None if told is None else http_status(told)) == status
    assert told is None or told.hint


@pytest.fixture
def impatient(scene: Scene) -> Scene:
    """The scene with a database that waits for nobody for long."""
    path = scene.core.state_directory / "cloner.db"
    quick = dataclasses.replace(open_database(path, busy_s=0.05), queue_s=0.05)
    return dataclasses.replace(scene, core=dataclasses.replace(scene.core, database=quick))


def test_a_database_that_another_program_holds_is_waited_for_and_then_told(impatient: Scene) -> None:
    impatient.add_node()
    task_id = impatient.arm(has_identity=False)
    agent = Agent(impatient)
    agent.hello()
    holder = sqlite3.connect(impatient.core.state_directory / "cloner.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    answer = agent.post("beat", {"progress": {"stage": "restore"}})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "held by another program" in answer.text
    assert impatient.admin("PATCH", "/nodes/n01", {"kernel_arguments": ["quiet"]}).status_code == 503
    assert impatient.admin("GET", f"/tasks/{task_id}").json()["state"] == "running", "reads go on"
    holder.execute("ROLLBACK")
    agent.beat()
    assert impatient.admin("PATCH", "/nodes/n01", {"kernel_arguments": ["quiet"]}).status_code == 200
    holder.close()


def test_a_writer_does_not_queue_for_ever(scene: Scene) -> None:
    database = Database(scene.core.database.engine, queue_s=0.01)
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write():
            inside.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    try:
        with pytest.raises(DatabaseBusyError), database.write():
            pass
    finally:
        done.set()
        holder.join()
    with database.write():
        pass


def _full_core(scene: Scene) -> Core:
    class Full(LocalStore):
        def put_pack(self, name: bytes, data: bytes) -> bool:
            raise StoreFullError("no room", hint="make some")

    store = Full(scene.core.state_directory / "store", Key())
    return dataclasses.replace(scene.core, catalog=dataclasses.replace(scene.core.catalog, store=store))


def test_an_upload_into_a_full_store_is_507(scene: Scene) -> None:
    full = dataclasses.replace(scene, core=_full_core(scene))
    answer = full.admin("PUT", "/packs/" + "0" * 64, None)
    assert answer.status_code == 507
    assert (answer.json()["hint"], answer.json()["status"]) == ("make some", ExitStatus.FAILED)


def test_a_version_whose_row_has_no_room_is_taken_back(scene: Scene) -> None:
    class Full(Database):
        def write(self) -> object:  # type: ignore[override]
            raise sqlite_error(sqlite3.SQLITE_FULL)

    store, draft = scene.core.catalog.store, msgspec.msgpack.encode(scene.image.draft)
    full = dataclasses.replace(scene, core=dataclasses.replace(scene.core, database=Full(scene.core.database.engine)))
    assert full.admins.post("/v1/publish", content=draft).status_code == 507
    assert store.numbers("golden") == [1], "else the same request sent again makes two of it"
    assert scene.admins.post("/v1/publish", content=draft).json()["number"] == 2
    assert [image["number"] for image in scene.admin("GET", "/images").json()] == [1, 2]


def test_an_upload_stops_where_the_reserve_of_the_deploys_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path, Key(), reserve_bytes=50 << 20)
    free_blocks = 0

    def statvfs(path: object) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1 << 20, free_blocks, free_blocks, 1 << 20, 1000, 1000, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    free_blocks = (50 << 20) // 4096
    with pytest.raises(StoreFullError, match=f"{50 << 20} are reserved for deploys"):
        store.put_pack(digest(b"x"), b"x")
    assert list(store.files.temporary.iterdir()) == []
    free_blocks += 1
    assert store.put_pack(digest(b"x"), b"x")


def test_a_clone_that_calls_while_the_disk_is_full_is_told_to_come_again(scene: Scene) -> None:
    class Full(Database):
        def write(self) -> object:  # type: ignore[override]
            raise sqlite_error(sqlite3.SQLITE_FULL)

    core = dataclasses.replace(scene.core, database=Full(scene.core.database.engine))
    desk = BootDesk(
        core, BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080"), None, "https://10.77.0.1:8443"
    )
    call = {"secret": "s", "machine_id": "m", "boot_id": "b", "root_part_uuid": "p"}
    answer = TestClient(boot_app(core, desk, {})).post("/confirm", json=call)
    assert answer.status_code == 507
    assert "full" in answer.json()["error"]


def test_the_server_of_a_state_names_the_process_that_has_it(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RefusedError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_an_import_that_was_not_finished_is_no_state(tmp_path: Path) -> None:
    (tmp_path / ".import").mkdir()
    with pytest.raises(RefusedError, match="not finished"):
        open_core(ServerConfig(state=str(tmp_path)), "127.0.0.1")
    assert [path.name for path in tmp_path.iterdir()] == [".import"]
