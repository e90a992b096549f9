"""A version is in the store before it is in the database: what the database does not take must not stay there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from cloner_core.errors import ClonerError
from cloner_core.image.version import Draft, VersionRecord
from cloner_server.state import imageoptions
from cloner_server.state.database import is_undone
from cloner_server.store.protocol import Store


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
