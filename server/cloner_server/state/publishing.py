"""Making a version that the store has visible, with what it brings: all of it in one transaction."""

from __future__ import annotations

from sqlalchemy import Connection

from cloner_core.image.version import VersionRecord
from cloner_server.state import imageoptions, images
from cloner_server.state.database import Act


def show(connection: Connection, act: Act, record: VersionRecord) -> None:
    """Show the version of `record`, whose options become those of its image; doing it twice changes nothing.

    Raises ConflictError when the options of the image are no more those that the capture began with.
    """
    if images.is_known(connection, record.image, record.number):
        return
    if record.options is not None:
        imageoptions.keep(connection, act, record.image, record.options, revision=record.options_revision)
    images.add_version(connection, act, record.image, record.number, record.version)
