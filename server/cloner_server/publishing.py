"""A version is in the store before it is in the database: what the database does not take must not stay there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from cloner_core.errors import ClonerError, IntegrityError, NotFoundError
from cloner_core.image.version import Draft, VersionRecord
from cloner_server.state import imageoptions, images
from cloner_server.state.database import Database, is_undone
from cloner_server.store.protocol import Store, VersionNumber

NO_RECORD = "its record is missing"
_SHOWN = 20


def require_options(connection: Connection, store: Store, draft: Draft) -> None:
    """Raise ConflictError when the options that `draft` brings were changed meanwhile: to check all of it takes long.

    Not when another version was published since it began: the store tells which, and keeps what was sent.
    """
    if draft.options is not None and draft.after in (None, store.last_number(draft.image)):
        imageoptions.require_revision(imageoptions.view(connection, draft.image), draft.options_revision)


@contextmanager
def shown_or_taken_back(store: Store, record: VersionRecord) -> Iterator[None]:
    """Show a version that was just published; when that surely came to nothing the store gives it up again.

    Not shown, so not published: sent again, it would be there twice after the next start.
    """
    try:
        yield
    except (DBAPIError, ClonerError) as fault:
        if isinstance(fault, ClonerError) or is_undone(fault):
            store.take_back(record.image, record.number)
        raise


def without_record(database: Database, store: Store) -> list[VersionNumber]:
    """Return the published versions whose record the store does not have: by a fault alone.

    A record is there before its row and goes after it: a version that is shown before and after the look had one.
    """
    before = _shown(database)
    lost = before.difference(store.listed())
    return sorted(lost & _shown(database)) if lost else []


def require_records(database: Database, store: Store) -> None:
    """Raise IntegrityError when a published version has no record: what it needs would count as unused."""
    if lost := without_record(database, store):
        named = ", ".join(f"version {image}/{number}" for image, number in lost[:_SHOWN])
        raise IntegrityError(
            f"{named}: {NO_RECORD}", hint="put it back from a copy of the store, or: cloner image-remove"
        )


def take_away(store: Store, image: str, number: int) -> None:
    """Take a version that was removed out of the store, though that may have lost its record."""
    try:
        store.remove_version(image, number)
    except NotFoundError:
        store.spend_number(image, number)


def _shown(database: Database) -> set[VersionNumber]:
    with database.read() as connection:
        return set(images.version_numbers(connection))
