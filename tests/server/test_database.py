"""The database: migrations make the very tables the code knows, a failed transaction leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cloner_core.errors import ClonerError
from cloner_pxe.dhcp_leases import Lease
from cloner_server.state import events
from cloner_server.state.database import Act, Database, open_database
from cloner_server.state.leases import SqlLeases
from cloner_server.state.tables import metadata

ACT = Act("test", 1.0)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "cloner.db")


def test_the_migrations_make_what_the_code_knows(database: Database) -> None:
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_again_keeps_what_was_written(tmp_path: Path, database: Database) -> None:
    with database.write() as connection:
        events.record(connection, ACT, "site", "made")
    database.close()
    with open_database(tmp_path / "cloner.db").read() as connection:
        assert [event.what for event in events.list_events(connection)] == ["made"]


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def half() -> None:
        with database.write() as connection:
            events.record(connection, ACT, "site", "half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with database.read() as connection:
        assert events.list_events(connection) == []
    with database.write() as connection:
        events.record(connection, ACT, "site", "after")


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path, database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(ClonerError, match="newer"):
        open_database(tmp_path / "cloner.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cloner.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ClonerError, match="cannot be used") as told:
        open_database(tmp_path / "cloner.db")
    assert told.value.hint == "restore it from a backup"


def test_what_the_disk_refuses_is_no_reason_for_a_backup(tmp_path: Path) -> None:
    with pytest.raises(ClonerError, match="cannot be used") as told:
        open_database(tmp_path / "none" / "cloner.db")
    assert told.value.hint.startswith(f"make room on {tmp_path / 'none'} ")


def test_a_lease_replaces_those_of_its_address_and_of_its_machine(database: Database) -> None:
    leases = SqlLeases(database)
    leases.put(Lease(address="10.0.0.5", mac="a", expires_at=1.0))
    leases.put(Lease(address="10.0.0.6", mac="b", expires_at=1.0))
    leases.put(Lease(address="10.0.0.6", mac="a", expires_at=2.0))
    assert leases.of_address("10.0.0.5") is None
    assert leases.of_mac("b") is None
    assert leases.of_mac("a") == Lease(address="10.0.0.6", mac="a", expires_at=2.0)
    leases.put(Lease(address="10.0.0.7", mac="", expires_at=3.0))
    leases.put(Lease(address="10.0.0.8", mac="", expires_at=3.0))
    assert leases.of_mac("") is None
    leases.drop("10.0.0.6")
    assert leases.of_mac("a") is None
