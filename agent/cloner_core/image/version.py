"""Signatures over versions and pack maps, and the record that publishes a version under a name and number."""

from __future__ import annotations

import re
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError, InvalidError
from cloner_core.image.digest import digest
from cloner_core.image.linting.finding import FINDINGS_MOST, Finding
from cloner_core.image.options import StoredOptions
from cloner_core.image.packmap import PackMap, decode_map, map_digest
from cloner_core.image.tree import Count, Digest, Text

# Statements begin with what they state, so that no signature can pass for one over something else.
_VERSION_STATEMENT = b"cloner version 1\0"
_MAP_STATEMENT = b"cloner pack map 1\0"
_RECORD_STATEMENT = b"cloner version record 1\0"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")

_RECORD_MARK = b',"record_signature":"'

# In the records people read, in JSON, bytes are hexadecimal.
HexDigest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
HexKey = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
HexSignature = Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]
_HexKeyOrNone = Annotated[str, Meta(pattern="^(?:[0-9a-f]{64})?$")]
_HexSignatureOrNone = Annotated[str, Meta(pattern="^(?:[0-9a-f]{128})?$")]

Findings = Annotated[tuple[Finding, ...], Meta(max_length=FINDINGS_MOST)]


class Signer(Protocol):
    """Who signs for the server; an Ed25519 key."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature, 64 bytes."""

    @property
    def public_key(self) -> bytes:
        """The raw public key, 32 bytes."""


class SignedMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which pack map a version has at present."""

    version: HexDigest
    map: HexDigest
    signature: HexSignature
    public_key: HexKey  # who signed; whether to trust it is the reader's to know


class VersionRecord(msgspec.Struct, frozen=True):
    """One published version: a number under a name. What may differ between captures of the same files is here.

    Readers pass over keys they do not know: a server that is put back reads what a newer one published.
    """

    image: str
    number: Annotated[int, Meta(ge=1)]
    version: HexDigest
    signature: HexSignature
    public_key: HexKey
    inodes: Count
    data_bytes: Count
    published_at: Text  # RFC 3339, by the server's clock
    message: Text = ""
    author: Text = ""
    source: Text = ""  # host name of the machine captured
    inexact: tuple[Text, ...] = ()  # paths that kept changing while they were read
    findings: Findings = ()  # of the lint
    origin_key: _HexKeyOrNone = ""  # whose version it was before it was imported here; "" for our own
    options: StoredOptions | None = None  # those of the image from this version on; None: it left them as they were
    options_revision: Count = 0  # that those before them had
    record_signature: _HexSignatureOrNone = ""  # over all before it, so the last; "" in records of older servers


class PackOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pack a capture made, and what is in it."""

    digest: Digest
    stored_size: Count
    raw_size: Count
    entries: bytes  # pack.ENTRY after pack.ENTRY


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the next capture of an image may refer to: the packs of its newest version, and of captures refused late."""

    version: bytes  # b"" where the image has no version
    packs: tuple[PackOffer, ...]
    number: int = 0  # the last one given, of a version that is there or was removed; 0 for none
    also: tuple[Digest, ...] = ()  # captures that came too late to be published; `packs` has theirs too


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a capture says when it asks to publish; segments and packs were put before."""

    image: str
    root: bytes  # the tree root, encoded
    packs: tuple[PackOffer, ...]
    base: bytes = b""  # version whose packs may be used too, or b""
    also: tuple[Digest, ...] = ()  # more of them
    after: int | None = None  # the last number given when the capture began; None: whatever it was
    message: Text = ""
    author: Text = ""
    source: Text = ""
    inexact: tuple[Text, ...] = ()
    findings: Findings = ()
    origin_key: _HexKeyOrNone = ""  # of an import: who signed it elsewhere
    options: StoredOptions | None = None  # to be kept with the image from now on; None: they stay as they are
    options_revision: Count = 0  # those that are kept must still have it, where `options` are to be


def check_image_name(name: str) -> str:
    """Return `name`; raises InvalidError unless it can name an image (it is also the name of a directory)."""
    if not _NAME.match(name) or ".." in name:
        raise InvalidError(
            f"{name[:80]!r} cannot name an image",
            hint="use 1 to 64 of a-z 0-9 . _ - with a letter or digit at both ends",
        )
    return name


def version_statement(version: bytes) -> bytes:
    """Return the bytes the server signs for a version."""
    return _VERSION_STATEMENT + version


def map_statement(version: bytes, pack_map: bytes) -> bytes:
    """Return the bytes the server signs for the pack map of this digest of a version."""
    return _MAP_STATEMENT + version + pack_map


def seal_record(record: VersionRecord, signer: Signer) -> bytes:
    """Return `record` as it is stored: JSON, with a signature over everything before it."""
    body = msgspec.json.encode(msgspec.structs.replace(record, record_signature=""))[: -len(_RECORD_MARK) - 2]
    signature = signer.sign(_RECORD_STATEMENT + digest(body))
    return body + _RECORD_MARK + signature.hex().encode() + b'"}'


def verify_record(data: bytes, public_key: bytes) -> None:
    """Raise IntegrityError unless the record in `data` is just what the holder of `public_key` wrote.

    A record of an older server has no signature; then no more is seen than that it has no key nobody knows.
    """
    body, mark, rest = data.rpartition(_RECORD_MARK)
    if mark and len(rest) == 130 and rest.endswith(b'"}'):
        try:
            signature = bytes.fromhex(rest[:-2].decode())
        except ValueError as error:
            raise IntegrityError(f"the signature of the record is not well-formed: {error}") from error
        _verify(_RECORD_STATEMENT + digest(body), signature, public_key, "the version record")
        return
    try:
        keys = set(msgspec.json.decode(data, type=dict[str, Any]))
    except UNREADABLE as error:
        raise IntegrityError(f"the version record cannot be read: {error}") from error
    if unknown := keys - set(VersionRecord.__struct_fields__[:-1]):
        raise IntegrityError(f"the version record is not signed, and nobody knows its {', '.join(sorted(unknown))}")


def verify_version(version: bytes, signature: bytes, public_key: bytes) -> None:
    """Raise IntegrityError unless the holder of `public_key` signed the version of this digest."""
    _verify(version_statement(version), signature, public_key, f"version {version.hex()}")


def verify_map(data: bytes, signature: bytes, version: bytes, public_key: bytes) -> PackMap:
    """Return the pack map in `data`; raises IntegrityError unless it was signed for `version` by `public_key`."""
    statement = map_statement(version, map_digest(data))
    _verify(statement, signature, public_key, f"the pack map of version {version.hex()}")
    return decode_map(data, version)


def _verify(statement: bytes, signature: bytes, public_key: bytes, what: str) -> None:
    # Late: the import costs a tenth of a second on a node, and not every command verifies.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, statement)
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError(
            f"{what} is not signed by the server's key {public_key.hex()}",
            hint="the image was altered, or it comes from another server",
        ) from error
