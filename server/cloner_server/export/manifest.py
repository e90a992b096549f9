"""What an export says of itself, and what came of making and taking one."""

from __future__ import annotations

import re

import msgspec

from cloner_core.admin.images import StoreFault
from cloner_server.site import SITE_FILES

CONTENT = 1
"""The number of the form of what is sealed: which members there are and what they mean."""

MANIFEST, DATABASE, CONFIG, SITE, STORE = "export.json", "cloner.db", "server.toml", "site", "store"
INSTALLERS = "installers"
_MEMBER = re.compile(r"(?:store/(?:[A-Za-z0-9][A-Za-z0-9._-]*/)+[A-Za-z0-9][A-Za-z0-9._-]*|installers/[0-9a-f]{64})\Z")


class Manifest(msgspec.Struct, frozen=True):
    """The first member; a reader passes over fields it does not know."""

    content: int
    cloner: str  # version of the program that made it
    host: str
    made_s: float
    schema: str  # revision of the database
    server_key: str  # public, hex: what versions and receipts verify with
    has_packs: bool
    size_bytes: int  # of all other members


class Exported(msgspec.Struct, frozen=True):
    """What an export holds."""

    path: str
    size_bytes: int  # of the file; of its content when it was not written
    has_packs: bool
    versions: int
    packs: int  # that the versions need
    packs_bytes: int
    missing: tuple[str, ...]  # parts of versions that the store does not have
    server_key: str
    schema: str
    dry_run: bool


class Imported(msgspec.Struct, frozen=True):
    """What an import brought."""

    state: str
    host: str
    made_s: float
    server_key: str
    nodes: int
    identities: int  # in the vault, every one opened
    versions: int
    faults: tuple[str, ...]  # of the store: packs that are not in it, as in an export without them
    damages: tuple[StoreFault, ...]  # of the store, all others: no copying of packs mends them
    frozen: tuple[str, ...]  # nodes whose work was stopped
    config: str  # what became of the settings
    dry_run: bool


def is_member(name: str) -> bool:
    """Return whether an export may hold a member of this name: none leads out of the state directory."""
    if name in (MANIFEST, DATABASE, CONFIG):
        return True
    return name in {f"{SITE}/{part}" for part in SITE_FILES} or _MEMBER.match(name) is not None
