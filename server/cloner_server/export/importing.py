"""Takes an export in on a blank machine: everything is verified before anything has its place, then placed at once.

It is unpacked beneath `.import` in the state directory. While that is there no server starts; another import takes away
what is left of it. So an import that is killed at any moment is either not there or done again, never half used.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from sqlalchemy import Connection, select

from cloner_core.admin.images import StoreFault
from cloner_core.admin.sessions import SessionState
from cloner_core.admin.tasks import TaskState
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError, InvalidError, RefusedError
from cloner_core.sizes import format_bytes
from cloner_server import recoverykeys, vault
from cloner_server.durable import replace_file, sync_directory
from cloner_server.export.manifest import (
    CONFIG,
    CONTENT,
    DATABASE,
    INSTALLERS,
    MANIFEST,
    SITE,
    STORE,
    Imported,
    Manifest,
    is_member,
)
from cloner_server.export.sealing import SealedReader, open_reader
from cloner_server.publishing import NO_RECORD
from cloner_server.site import Site, open_site
from cloner_server.state import events, images, machines, nodes, sessions
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act, known_schemas, open_database
from cloner_server.state.tables import vault as identities
from cloner_server.statedir import IMPORTING, LOCK, locked
from cloner_server.store.local import LocalStore
from cloner_server.tasks import multicasting
from cloner_server.tasks.states import LIVE, Happening, can_happen

_COPY_BYTES = 1 << 20
_SLACK_BYTES = 16 << 20
_DAMAGED = "take another copy of it, or export again"
_KEPT_CONFIG = f"{CONFIG}.imported"
_PACK = re.compile(r"(?:\A|, )pack [0-9a-f]{64}\Z")  # how a check of the store calls one that is wrong
_WHY = "imported: the work may have ended since the export, and would destroy what it made"

Progress = Callable[[int, int], None]
"""Called with the bytes done and all of them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to import, and where."""

    source: Path
    state: Path
    config: Path  # where settings go when there are none
    author: str
    is_resuming: bool = False  # work goes on as it stood: only right when the old server did nothing after the export
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class _Counts:
    nodes: int = 0
    identities: int = 0
    versions: int = 0
    faults: tuple[str, ...] = ()
    damages: tuple[StoreFault, ...] = ()
    frozen: tuple[str, ...] = ()


def import_state(wanted: Wanted, passphrase: bytes, *, progress: Progress = lambda done, total: None) -> Imported:
    """Unseal the export into a blank state directory; a dry run only reads it to its end.

    Raises RefusedError for a directory that is not blank, a wrong passphrase, an export of a newer program and want of
    room, IntegrityError for a file that is damaged or cut off, InvalidError for one that is no export or cannot
    be opened.
    """
    try:
        source = wanted.source.open("rb")
    except OSError as fault:
        raise InvalidError(f"{wanted.source} cannot be read: {fault.strerror}") from fault
    with source as file:
        sealed = open_reader(file, passphrase)
        with _tar(sealed) as tar:
            manifest = _manifest(tar)
            counts, config = _Counts(), "not looked at"
            if wanted.is_dry:
                _require_blank(wanted.state)
                _require_room(wanted.state, manifest)
                for _ in _contents(tar, manifest, progress):
                    pass
                sealed.finish()
            else:
                counts, config = _take(wanted, sealed, tar, manifest, progress)
    return Imported(
        state=str(wanted.state),
        host=manifest.host,
        made_s=manifest.made_s,
        server_key=manifest.server_key,
        nodes=counts.nodes,
        identities=counts.identities,
        versions=counts.versions,
        faults=counts.faults,
        damages=counts.damages,
        frozen=counts.frozen,
        config=config,
        dry_run=wanted.is_dry,
    )


def _take(
    wanted: Wanted, sealed: SealedReader, tar: tarfile.TarFile, manifest: Manifest, progress: Progress
) -> tuple[_Counts, str]:
    is_new = not wanted.state.exists()
    with _nothing_left(wanted.state, is_new), locked(wanted.state):
        _require_blank(wanted.state)
        _require_room(wanted.state, manifest)
        _clear(wanted.state)
        work = wanted.state / IMPORTING
        work.mkdir(mode=0o700)
        try:
            for entry, content in _contents(tar, manifest, progress):
                _unpack(work / entry.name, entry, content)
            sealed.finish()
            counts = _verify(work, wanted, manifest)
            os.sync()  # every file, before any has its place
        except BaseException:
            shutil.rmtree(work)
            raise
        return counts, _place(work, wanted)


@contextlib.contextmanager
def _nothing_left(state: Path, is_new: bool) -> Iterator[None]:
    """Take a directory made for an import that failed away again."""
    try:
        yield
    except BaseException:
        if is_new and state.is_dir() and [path.name for path in state.iterdir()] in ([], [LOCK]):
            (state / LOCK).unlink(missing_ok=True)
            state.rmdir()
        raise


def _require_blank(state: Path) -> None:
    """Raise RefusedError unless `state` is blank; what an unfinished import left counts for nothing."""
    found = sorted(path.name for path in state.iterdir()) if state.is_dir() else []
    if IMPORTING in found:
        return  # it was blank when that import began, and no server has started there since
    there = [name for name in found if name not in (LOCK, "lost+found")]
    if there:
        raise RefusedError(
            f"{state} is not blank: it has {', '.join(there[:5])}",
            hint="an import makes a whole server; move what is there away, or name another directory with --state",
        )


def _require_room(state: Path, manifest: Manifest) -> None:
    there = state
    while not there.exists():
        there = there.parent
    status = os.statvfs(there)
    free, needed = status.f_bavail * status.f_frsize, manifest.size_bytes + _SLACK_BYTES
    if needed > free:
        raise RefusedError(f"{there} has {format_bytes(free)} free, the import needs {format_bytes(needed)}")


def _clear(state: Path) -> None:
    """Remove what an unfinished import had placed already."""
    if (state / IMPORTING).exists():
        for path in (state / SITE, state / STORE, state / INSTALLERS):
            shutil.rmtree(path, ignore_errors=True)
        for path in [*state.glob(f"{DATABASE}*"), state / _KEPT_CONFIG]:
            path.unlink(missing_ok=True)
        shutil.rmtree(state / IMPORTING)


@contextlib.contextmanager
def _tar(sealed: SealedReader) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=sealed, mode="r|", bufsize=_COPY_BYTES) as tar:  # type: ignore[call-overload]
            yield tar
    except tarfile.TarError as fault:
        raise IntegrityError(f"what the export holds cannot be read: {fault}", hint=_DAMAGED) from fault


def _manifest(tar: tarfile.TarFile) -> Manifest:
    """Return the first member; raises RefusedError when only a newer program can use the export."""
    first = tar.next()
    content = tar.extractfile(first) if first is not None and first.name == MANIFEST else None
    if content is None:
        raise IntegrityError(f"the export does not begin with {MANIFEST}", hint=_DAMAGED)
    try:
        manifest = msgspec.json.decode(content.read(_COPY_BYTES), type=Manifest)
    except UNREADABLE as fault:
        raise IntegrityError(f"{MANIFEST} of the export cannot be read: {fault}", hint=_DAMAGED) from fault
    if manifest.content > CONTENT or manifest.schema not in known_schemas():
        raise RefusedError(
            f"the export was made by a newer Cloner, {manifest.cloner} (database {manifest.schema})",
            hint="install that version or a newer one here, then import",
        )
    return manifest


def _contents(
    tar: tarfile.TarFile, manifest: Manifest, progress: Progress
) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    """Give every member after the manifest; raises IntegrityError for what an export does not hold."""
    done = 0
    while (entry := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep every one to the end
        content = tar.extractfile(entry) if entry.isreg() and is_member(entry.name) else None
        if content is None:
            raise IntegrityError(f"the export holds '{entry.name}', which no export does", hint=_DAMAGED)
        yield entry, content  # type: ignore[misc]  # typeshed says IO[bytes]
        done += entry.size
        progress(done, manifest.size_bytes)


def _unpack(path: Path, entry: tarfile.TarInfo, content: BinaryIO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, entry.mode & 0o700 | 0o600)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(content, file, _COPY_BYTES)


def _verify(work: Path, wanted: Wanted, manifest: Manifest) -> _Counts:
    """Open all of it as a server would; raises when a part of it does not fit the others."""
    if not (work / SITE).is_dir() or not (work / DATABASE).is_file():
        raise IntegrityError("the export lacks keys or database", hint=_DAMAGED)
    site, _ = open_site(work, time.time())
    if site.public_key.hex() != manifest.server_key:
        raise IntegrityError("the export's keys are not those it names", hint=_DAMAGED)
    database = open_database(work / DATABASE)
    try:
        with database.write() as connection:
            act = Act(wanted.author, time.time())
            told: dict[str, Any] = {"made_s": manifest.made_s, "host": manifest.host, "resumed": wanted.is_resuming}
            events.record(connection, act, "site", "state imported", **told)
            frozen = () if wanted.is_resuming else _stop_work(connection, act)
            names = list(connection.execute(select(identities.c.node).order_by(identities.c.node)).scalars())
            for name in names:
                vault.machine_id(connection, name, site.vault_key)  # IntegrityError unless the seal opens
            for name in recoverykeys.nodes_with_keys(connection):
                recoverykeys.list_keys(connection, name, site.vault_key)
            count = len(nodes.list_nodes(connection))
            named = images.version_numbers(connection)
    finally:
        database.close()
    store = LocalStore(work / STORE, _Verifying(site))
    report, lost = store.check(), set(named).difference(store.listed())
    found = [StoreFault(f"version {image}/{number}", NO_RECORD) for image, number in sorted(lost)] + [*report.faults]
    damages = tuple(fault for fault in found if manifest.has_packs or not _PACK.search(fault.what))
    faults = tuple(f"{fault.what}: {fault.why}" for fault in found if fault not in damages)
    return _Counts(count, len(names), report.versions + len(lost), faults, damages, frozen)


@dataclass(frozen=True, slots=True)
class _Verifying:
    """A signer that lends its public key to a check."""

    site: Site

    @property
    def public_key(self) -> bytes:
        return self.site.public_key

    def sign(self, data: bytes) -> bytes:
        raise RefusedError("an import signs nothing")


def _stop_work(connection: Connection, act: Act) -> tuple[str, ...]:
    """Freeze what was going on and let every node boot from its disk, until a person has looked."""
    stopped = []
    for view in rows.list_tasks(connection, live_only=True, limit=1_000_000):
        state = TaskState(view.state)
        if state not in LIVE or state in (TaskState.FROZEN, TaskState.UNCONFIRMED):
            continue
        happening = Happening.FREEZE if can_happen(state, Happening.FREEZE) else Happening.ABORT
        task = rows.get_task(connection, view.id)
        rows.happen(connection, act, task, happening, alarm=True, why=_WHY)
        stopped.append(view.node)
    for session in sessions.live(connection):
        multicasting.end_session(connection, act, session, SessionState.STOPPED, _WHY)
    for node in nodes.list_nodes(connection):
        nodes.set_netboot(connection, act, node.name, "local", why="imported")
    for machine in machines.list_machines(connection):
        machines.set_netboot(connection, act, machine.mac, "local", why="imported")
    return tuple(sorted(set(stopped)))


def _place(work: Path, wanted: Wanted) -> str:
    """Give everything its place; `.import` goes last."""
    config = _place_config(work / CONFIG, wanted)
    for name in (INSTALLERS, STORE, DATABASE, SITE):
        if (work / name).exists():
            (work / name).rename(wanted.state / name)
    sync_directory(wanted.state)
    shutil.rmtree(work)
    sync_directory(wanted.state)
    return config


def _place_config(exported: Path, wanted: Wanted) -> str:
    if not exported.is_file():
        return "the export has none"
    text = exported.read_bytes()
    if not wanted.config.exists():
        wanted.config.parent.mkdir(parents=True, exist_ok=True)
        replace_file(wanted.config, text, 0o644)
        return f"written to {wanted.config}"
    if wanted.config.read_bytes() == text:
        return f"the same as {wanted.config}"
    exported.rename(wanted.state / _KEPT_CONFIG)
    return f"{wanted.config} stays; the exported one is {wanted.state / _KEPT_CONFIG}"
