"""What a clone says of where it came from: one file that people and programs can read without asking the server."""

from __future__ import annotations

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError
from cloner_core.identity.values import IdentityFile

ORIGIN_PATH = "/etc/cloner/image.json"


class Origin(msgspec.Struct, frozen=True):
    """Image data of a clone; fields that a newer version wrote are passed over."""

    node: str
    image: str
    number: int  # of the version
    digest: str  # of the version, hex
    layout: str
    task: str  # that deployed it; "" in a preview, where there is none yet


def origin_file(origin: Origin) -> IdentityFile:
    """Return the file that says it."""
    return IdentityFile(ORIGIN_PATH, msgspec.json.format(msgspec.json.encode(origin), indent=2) + b"\n")


def parse_origin(content: bytes) -> Origin:
    """Return what the file says; raises InvalidError when somebody else wrote it."""
    try:
        return msgspec.json.decode(content, type=Origin)
    except UNREADABLE as fault:
        raise InvalidError(f"{ORIGIN_PATH} does not say which image this is: {fault}") from fault
