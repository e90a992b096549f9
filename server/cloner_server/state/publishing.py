"""Making a version that the store has visible, with what it brings: all of it in one transaction."""

from __future__ import annotations

from sqlalchemy import Connection

from cloner_core.errors import IntegrityError
from cloner_core.image.version import VersionRecord
from cloner_server.state import imageoptions, images
from cloner_server.state.database import Act


def show(connection: Connection, act: Act, record: VersionRecord) -> None:
    """Show the version of `record`, whose options become those of its image; doing it twice changes nothing.

    Raises ConflictError when the options of the image are no more those that the capture began with, IntegrityError
    when its number was given to another tree: the store gives numbers, and has lost the record of that one.
    """
    known = images.known_digest(connection, record.image, record.number)
    if known not in (None, record.version):
        name = f"{record.image}:{record.number}"
        raise IntegrityError(
            f"{name} was published before, and the store has lost its record",
            hint=f"put the record back from a copy of the store, or: cloner image-remove --image {name}",
        )
    if known:
        return
    if record.options is not None:
        imageoptions.keep(connection, act, record.image, record.options, revision=record.options_revision)
    images.add_version(connection, act, record.image, record.number, record.version)
