"""Verification of the version before anything is planned: signatures, tree root, pack map, every pack on the server.

Must not touch a disk; what it returns is all that later stages trust.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from cloner_agent.failures import StageError
from cloner_agent.protocol import Server, ServerFault
from cloner_core.errors import ClonerError, ExitStatus, IntegrityError
from cloner_core.image.digest import parse_digest
from cloner_core.image.packmap import PackMap, map_digest
from cloner_core.image.tree import TreeRoot, decode_root
from cloner_core.image.version import verify_map
from cloner_core.image.version import verify_version as verify_signature
from cloner_core.messages import Cause, VersionRef


@dataclass(frozen=True, slots=True)
class VerifiedVersion:
    """A version whose signature, root and pack map were checked with the key of the site."""

    digest: bytes
    root_bytes: bytes
    root: TreeRoot
    packs: PackMap


def verify_version(server: Server, ref: VersionRef, server_key: bytes) -> VerifiedVersion:
    """Check everything about a version that can be checked without its packs, then have the server check those.

    Raises StageError: SIGNATURE, CORRUPT or MISSING_PACK.
    """
    try:
        digest, wanted_map = parse_digest(ref.digest), parse_digest(ref.pack_map)
        signature, map_signature = bytes.fromhex(ref.signature), bytes.fromhex(ref.pack_map_signature)
    except (ClonerError, ValueError) as error:
        raise StageError(Cause.SIGNATURE, f"the version of the task is not well-formed: {error}") from error
    try:
        verify_signature(digest, signature, server_key)
    except IntegrityError as error:
        raise StageError(Cause.SIGNATURE, error.message, hint=error.hint) from error
    root_bytes = _fetched(lambda: server.root(ref.digest), f"the tree root of version {ref.digest}")
    root = decode_root(root_bytes, digest)
    map_bytes = _fetched(lambda: server.pack_map(ref.pack_map), f"pack map {ref.pack_map}")
    if map_digest(map_bytes) != wanted_map:
        raise StageError(Cause.CORRUPT, f"pack map {ref.pack_map} has digest {map_digest(map_bytes).hex()}")
    try:
        packs = verify_map(map_bytes, map_signature, digest, server_key)
    except IntegrityError as error:
        raise StageError(Cause.SIGNATURE, error.message, hint=error.hint) from error
    _have_verified(server, ref)
    return VerifiedVersion(digest, root_bytes, root, packs)


def _have_verified(server: Server, ref: VersionRef) -> None:
    try:
        server.verify(ref.digest)
    except ServerFault as error:
        by_status = {ExitStatus.INTEGRITY: Cause.CORRUPT, ExitStatus.NOT_FOUND: Cause.MISSING_PACK}
        cause = by_status.get(ExitStatus(error.fault.status)) if error.fault.status in list(ExitStatus) else None
        if cause is None:
            raise
        raise StageError(cause, error.message, hint=error.hint) from error


def _fetched(fetch: Callable[[], bytes], what: str) -> bytes:
    try:
        return fetch()
    except ServerFault as error:
        if error.http_status == HTTPStatus.NOT_FOUND:
            raise StageError(Cause.MISSING_PACK, f"the server does not have {what}") from error
        raise
