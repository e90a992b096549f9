"""The database: opening, migrating, and the two kinds of transaction.

SQLite in WAL mode by default. A writer begins with BEGIN IMMEDIATE, so it never finds out at its first write that
another was faster; writers of this process queue on a lock instead of spinning on SQLITE_BUSY. Somebody else who
holds the database (a backup program, a person with sqlite3) is waited for some seconds; then a request is answered
503 and may be sent again, so that no thread of the server waits for ever.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from cloner_core.errors import ClonerError, UnreachableError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_S = 5.0  # agents read for 60 s
_QUEUE_S = 10.0
# On a full disk reading fails as well: SQLite has a file beside the database, which it makes anew after a clean end.
_OF_THE_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class DatabaseBusyError(UnreachableError):
    """The database cannot be written now; the same request may be sent again: 503."""


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
    queue_s: float = _QUEUE_S  # how long a writer waits for those before it

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; anything written is rolled back."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed and on disk when the block ends, undone when it raises."""
        with (
            self._turn(),
            self.engine.connect().execution_options(cloner_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def trial(self, is_dry: bool) -> Iterator[Connection]:
        """One transaction as `write`, undone at its end when `is_dry`: a dry run meets every rule of the real one."""
        with (
            self._turn(),
            self.engine.connect().execution_options(cloner_write=True) as connection,
            connection.begin() as transaction,
        ):
            yield connection
            if is_dry:
                transaction.rollback()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self.writer.acquire(timeout=self.queue_s):
            raise DatabaseBusyError(
                f"the server's database took no write for {self.queue_s:.0f} s",
                hint="another program holds it, or its disk is slow; the request may be sent again",
            )
        try:
            yield
        finally:
            self.writer.release()

    def close(self) -> None:
        """Close every connection; the write-ahead log is folded into the file."""
        self.engine.dispose()


def open_database(path: Path, *, busy_s: float = _BUSY_S) -> Database:
    """Open the SQLite file at `path`, made when absent, and bring its tables to the present form.

    `busy_s`: how long a transaction waits for another program that holds the file.

    Raises ClonerError when the file is no database of ours or is newer than this program.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False, "timeout": busy_s})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        _migrate(engine)
    except DatabaseError as fault:
        raise ClonerError(f"{path} cannot be used: {fault.orig}", hint=_remedy(path, fault)) from fault
    return Database(engine)


def is_undone(fault: Exception) -> bool:
    """Return whether a transaction that failed has surely left nothing: the disk was full, or it never began."""
    return isinstance(fault, DatabaseBusyError) or _code(fault) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


def _code(fault: Exception) -> int:
    cause = fault.orig if isinstance(fault, DBAPIError) else fault
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte; what is above tells details


def _remedy(path: Path, fault: Exception) -> str:
    if _code(fault) not in _OF_THE_DISK:
        return "restore it from a backup"
    return f"make room on {path.parent} (df, df -i); else look at its filesystem (mount, dmesg)"


def known_schemas() -> frozenset[str]:
    """Return the revisions of databases that this program can bring to the present form."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


def _prepare(raw: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    raw.isolation_level = None  # we say BEGIN ourselves; the module's own is deferred and would fail at a later write
    raw.execute("PRAGMA journal_mode = WAL")
    # FULL: a receipt acknowledged to a node must survive a power cut, not only a kill.
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("cloner_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


@cache
def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(_MIGRATIONS))


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.connect().execution_options(cloner_write=True) as connection, connection.begin():
        if MigrationContext.configure(connection).get_current_heads() == (_scripts().get_current_head(),):
            return
        attributes: dict[str, Any] = config.attributes
        attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as fault:
            raise ClonerError(
                f"the database has a form this program does not know: {fault}",
                hint="start the newer version of Cloner that wrote it",
            ) from fault
