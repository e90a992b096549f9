"""Makes a sealed export, beside a server that runs or without one: the file is there whole, or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import socket
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from cloner_core.errors import ClonerError, ConflictError, IntegrityError, InvalidError, NotFoundError, RefusedError
from cloner_core.sizes import format_bytes
from cloner_server import VERSION
from cloner_server.durable import sync_directory
from cloner_server.export.manifest import (
    CONFIG,
    CONTENT,
    DATABASE,
    INSTALLERS,
    MANIFEST,
    SITE,
    STORE,
    Exported,
    Manifest,
)
from cloner_server.export.sealing import DEFAULT_COST, SALT_BYTES, Cost, SealedWriter, open_writer
from cloner_server.publishing import NO_RECORD
from cloner_server.reserve import reserve_of
from cloner_server.site import SITE_FILES, open_site
from cloner_server.statedir import refuse_unfinished
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import VersionNumber
from cloner_server.store.upkeep import Published, published

_SLACK_BYTES = 4 << 20  # headers of members, and what the database grows meanwhile
_COPY_BYTES = 1 << 20
_NOTE_HINT = "is its disk full, or does another program hold it?"

Progress = Callable[[int, int], None]
"""Called with the bytes done and all of them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export, and where to."""

    state: Path
    config: Path  # settings; absent is fine
    target: Path
    author: str
    has_packs: bool = False
    is_forced: bool = False  # replace the target
    is_dry: bool = False
    reserve_bytes: int = 0  # of the state's filesystem, left free for the server


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    path: Path
    mode: int
    size: int


def export_state(
    wanted: Wanted,
    passphrase: bytes,
    *,
    cost: Cost = DEFAULT_COST,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Seal the state into the target file.

    Raises NotFoundError when there is no state, ConflictError when the target exists, InvalidError when it is no
    regular file, RefusedError when it has no room, IntegrityError when the database is damaged.
    """
    site_directory = wanted.state / SITE
    if not site_directory.is_dir() or not (wanted.state / DATABASE).is_file():
        raise NotFoundError(f"{wanted.state} holds no state of a server", hint="--state DIR names another directory")
    refuse_unfinished(wanted.state)
    site, _ = open_site(wanted.state, time.time())
    _refuse_target(wanted.target, is_forced=wanted.is_forced)
    store = LocalStore(wanted.state / STORE)
    with _workspace(wanted.state) as work, store.files.locked():  # keeps gc away
        if not wanted.is_dry:
            # Before the copy, so that the copy knows of it too.
            _note(wanted)
        database, schema = _copy_database(wanted.state / DATABASE, work / DATABASE)
        named = _named(database)
        still = _still(store, work / STORE, named)  # after the copy of the database: whatever that names is there
        found = published(still)
        lost = sorted(named.difference(still.listed()))
        members = list(_members(wanted, site_directory, database, still, found))
        manifest = Manifest(
            content=CONTENT,
            cloner=VERSION,
            host=socket.gethostname(),
            made_s=time.time(),
            schema=schema,
            server_key=site.public_key.hex(),
            has_packs=wanted.has_packs,
            size_bytes=sum(member.size for member in members),
        )
        _require_room(wanted, manifest.size_bytes)
        size_bytes = manifest.size_bytes
        if not wanted.is_dry:

            def seal(file: BinaryIO) -> None:
                sealed = open_writer(file, passphrase, secrets.token_bytes(SALT_BYTES), cost)
                _fill(sealed, manifest, members, progress)
                sealed.close()

            size_bytes = _write(wanted.target, seal)
    return Exported(
        path=str(wanted.target),
        size_bytes=size_bytes,
        has_packs=wanted.has_packs,
        versions=found.versions + len(lost),
        packs=found.packs,
        packs_bytes=found.packs_bytes,
        missing=(*(f"version {image}/{number}: {NO_RECORD}" for image, number in lost), *found.missing),
        server_key=manifest.server_key,
        schema=schema,
        dry_run=wanted.is_dry,
    )


def _refuse_target(target: Path, *, is_forced: bool) -> None:
    """Refuse what is there: a file unless forced, anything else always: a device or a link would lose its place."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise InvalidError(f"there is no directory {target.parent}", hint="make it, or name another") from None
        return
    except NotADirectoryError:
        raise InvalidError(f"{target.parent} is no directory", hint="name another") from None
    if not stat.S_ISREG(mode):
        raise InvalidError(f"{target} is no regular file, and only such is replaced", hint="name a file")
    if not is_forced:
        raise ConflictError(f"{target} exists", hint="--force replaces it")


def _still(store: LocalStore, root: Path, named: Collection[VersionNumber]) -> LocalStore:
    """Return the store as it stands, beneath `root`: copies of what others replace or rename, links to all else.

    A repack gives a version another map meanwhile, whose parts were not listed. One of those `named` that was removed
    since has its record as it was.
    """
    root.mkdir()
    for blobs in (store.roots, store.segments, store.maps, store.indexes, store.placement_sets, store.packs):
        (root / blobs.kind).symlink_to(blobs.directory.absolute())

    def keep(path: Path, name: Path | None = None) -> None:
        copy = root / (name or path).relative_to(store.files_root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile, or a damaged store lacks it
            shutil.copy(path, copy)

    for image, number in store.listed():
        keep(store.record_path(image, number))
    again = {store.spent_path(*each): store.record_path(*each) for each in named}
    for path in store.spent_paths():
        keep(path, again.get(path))
    still = LocalStore(root)
    for image, number in still.listed():
        with contextlib.suppress(IntegrityError):
            keep(store.current_path(bytes.fromhex(still.version(image, number).version)))
    return still


def _members(wanted: Wanted, site: Path, database: Path, store: LocalStore, found: Published) -> Iterator[_Member]:
    """Give what is sealed, the small and precious first."""
    for name in SITE_FILES:
        yield _member(f"{SITE}/{name}", site / name)
    if wanted.config.is_file():
        yield _member(CONFIG, wanted.config)
    yield _member(DATABASE, database)
    for path in [*found.files, *(found.pack_files if wanted.has_packs else ())]:
        yield _member(f"{STORE}/{path.relative_to(store.files_root)}", path)
    parts = wanted.state / INSTALLERS
    for path in sorted(parts.glob("[0-9a-f]*")) if wanted.has_packs else ():
        yield _member(f"{INSTALLERS}/{path.name}", path)


def _member(name: str, path: Path) -> _Member:
    status = path.stat()
    return _Member(name, path, status.st_mode & 0o777, status.st_size)


@contextmanager
def _workspace(state: Path) -> Iterator[Path]:
    """Give a directory beside the database: its copy is as secret as itself, and no other disk need have room."""
    for left_over in state.glob(".export-*"):
        if time.time() - left_over.stat().st_mtime > 86400:
            shutil.rmtree(left_over, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".export-", dir=state))
    try:
        yield work
    finally:
        shutil.rmtree(work)


def _note(wanted: Wanted) -> None:
    """Keep in the audit that the keys leave; by the columns of the first form, so that any form will do."""
    detail = msgspec.json.encode({"file": str(wanted.target), "packs": wanted.has_packs}).decode()
    values = {"time_s": time.time(), "author": wanted.author, "what": "state export begun", "detail": detail}
    statement = (
        "INSERT INTO events (time_s, author, object, revision, what, detail, is_alarm)"
        " VALUES (:time_s, :author, 'site', 0, :what, :detail, 0)"
    )
    try:
        with closing(sqlite3.connect(wanted.state / DATABASE, timeout=10)) as database, database:
            database.execute(statement, values)
    except sqlite3.Error as fault:
        raise ClonerError(f"the export cannot be noted in the audit: {fault}", hint=_NOTE_HINT) from fault


def _copy_database(source: Path, target: Path) -> tuple[Path, str]:
    """Copy the database as it stands between two transactions, while others write; return the path and its revision."""
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as one,
            closing(sqlite3.connect(target)) as two,
        ):
            one.backup(two)  # all pages in one read transaction; WAL lets writers go on
            two.execute("PRAGMA journal_mode = DELETE")  # one file
            faults = [row[0] for row in two.execute("PRAGMA quick_check(3)")]
            if faults != ["ok"]:
                raise IntegrityError(f"the database is damaged: {'; '.join(faults)}", hint="restore it from an export")
            return target, str(two.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    except sqlite3.Error as fault:
        raise ClonerError(f"the database {source} cannot be copied: {fault}") from fault


def _named(database: Path) -> set[VersionNumber]:
    """Return the versions that a copy of the database shows; none where a server wrote it that removed none yet."""
    with closing(sqlite3.connect(database)) as copy, contextlib.suppress(sqlite3.OperationalError):
        return {(row[0], row[1]) for row in copy.execute("SELECT image, number FROM versions WHERE removed_s IS NULL")}
    return set()


def _require_room(wanted: Wanted, size_bytes: int) -> None:
    directory = wanted.target.parent
    status = os.statvfs(directory)
    is_beside = directory.stat().st_dev == wanted.state.stat().st_dev
    reserve = reserve_of(status, wanted.reserve_bytes) if is_beside else 0
    free, needed = status.f_bavail * status.f_frsize, size_bytes + _SLACK_BYTES
    if needed + reserve > free:
        kept = f", of which {format_bytes(reserve)} are the server's (reserve_mib)" if reserve else ""
        raise RefusedError(
            f"{directory} has {format_bytes(free)} free{kept}, the export needs {format_bytes(needed)}",
            hint="another directory, or without --images",
        )


def _write(target: Path, seal: Callable[[BinaryIO], None]) -> int:
    """Have the file written under another name, sync it, and give it its own; return its size."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            seal(file)
            file.flush()
            os.fsync(file.fileno())
            size_bytes = file.tell()
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    sync_directory(target.parent)
    return size_bytes


def _fill(into: SealedWriter, manifest: Manifest, members: list[_Member], progress: Progress) -> None:
    done = 0
    # A stream of tar wants nothing of a file but `write`.
    with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_COPY_BYTES) as tar:  # type: ignore[call-overload]
        text = msgspec.json.encode(manifest)
        _add(tar, MANIFEST, 0o600, len(text), io.BytesIO(text))
        for member in members:
            with member.path.open("rb") as content:
                _add(tar, member.name, member.mode, member.size, content)
            done += member.size
            progress(done, manifest.size_bytes)


def _add(tar: tarfile.TarFile, name: str, mode: int, size: int, content: BinaryIO) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, size
    tar.addfile(entry, content)  # raises OSError when the file is shorter than it was
