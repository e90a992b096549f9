"""The database: opening, migrating, and the two kinds of transaction.

SQLite in WAL mode by default. A writer begins with BEGIN IMMEDIATE, so it never finds out at its first write that
another was faster; writers of this process queue on a lock instead of spinning on SQLITE_BUSY.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

from cloner_core.errors import ClonerError

_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something, and when: goes into every event."""

    author: str  # "root", "agent:n01", "server"
    now_s: float


@dataclass(frozen=True, slots=True)
class Database:
    """An open database; safe to use from several threads."""

    engine: Engine
    writer: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; anything written is rolled back."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed and on disk when the block ends, undone when it raises."""
        with (
            self.writer,
            self.engine.connect().execution_options(cloner_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def trial(self, is_dry: bool) -> Iterator[Connection]:
        """One transaction as `write`, undone at its end when `is_dry`: a dry run meets every rule of the real one."""
        with (
            self.writer,
            self.engine.connect().execution_options(cloner_write=True) as connection,
            connection.begin() as transaction,
        ):
            yield connection
            if is_dry:
                transaction.rollback()

    def close(self) -> None:
        """Close every connection; the write-ahead log is folded into the file."""
        self.engine.dispose()


def open_database(path: Path) -> Database:
    """Open the SQLite file at `path`, made when absent, and bring its tables to the present form.

    Raises ClonerError when the file is no database of ours or is newer than this program.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False, "timeout": _BUSY_S})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        _migrate(engine)
    except DatabaseError as fault:
        raise ClonerError(f"{path} cannot be used: {fault.orig}", hint="restore it from a backup") from fault
    return Database(engine)


def _prepare(raw: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    raw.isolation_level = None  # we say BEGIN ourselves; the module's own is deferred and would fail at a later write
    raw.execute("PRAGMA journal_mode = WAL")
    # FULL: a receipt acknowledged to a node must survive a power cut, not only a kill.
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("cloner_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect().execution_options(cloner_write=True) as connection, connection.begin():
        attributes: dict[str, Any] = config.attributes
        attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as fault:
            raise ClonerError(
                f"the database has a form this program does not know: {fault}",
                hint="start the newer version of Cloner that wrote it",
            ) from fault
