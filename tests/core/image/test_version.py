"""What the server signed, and nothing else, is accepted."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_core.errors import IntegrityError, InvalidError
from cloner_core.image.digest import digest, parse_digest
from cloner_core.image.packmap import PackMap, encode_map, map_digest
from cloner_core.image.version import (
    check_image_name,
    map_statement,
    verify_map,
    verify_version,
    version_statement,
)

VERSION = digest(b"a version")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
MAP = encode_map(PackMap(1, VERSION, digest(b""), ()))


def test_a_version_signed_by_the_server_is_accepted() -> None:
    verify_version(VERSION, KEY.sign(version_statement(VERSION)), PUBLIC)


@pytest.mark.parametrize(
    "signature",
    [
        OTHER.sign(version_statement(VERSION)),
        KEY.sign(version_statement(digest(b"another"))),
        KEY.sign(map_statement(VERSION, map_digest(MAP))),
        KEY.sign(VERSION),
        bytes(64),
        b"",
    ],
    ids=["other key", "other version", "a map's", "no statement", "zeros", "empty"],
)
def test_a_wrong_signature_of_a_version_is_refused(signature: bytes) -> None:
    with pytest.raises(IntegrityError, match="not signed"):
        verify_version(VERSION, signature, PUBLIC)


def test_a_map_is_bound_to_its_version_and_bytes() -> None:
    signature = KEY.sign(map_statement(VERSION, map_digest(MAP)))
    assert verify_map(MAP, signature, VERSION, PUBLIC).version == VERSION
    flipped = bytearray(MAP)
    flipped[-1] ^= 1
    with pytest.raises(IntegrityError, match="not signed"):
        verify_map(bytes(flipped), signature, VERSION, PUBLIC)
    with pytest.raises(IntegrityError, match="not signed"):
        verify_map(MAP, signature, digest(b"another"), PUBLIC)
    with pytest.raises(IntegrityError, match="not signed"):
        verify_map(MAP, signature, VERSION, OTHER.public_key().public_bytes_raw())


@pytest.mark.parametrize("name", ["a", "debian-12", "a.b_c", "x" * 64])
def test_plain_names_name_images(name: str) -> None:
    assert check_image_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a-", "A", "a..b", "x" * 65, "a\n", "\u00e4"])
def test_names_that_could_be_more_than_a_directory_are_refused(name: str) -> None:
    with pytest.raises(InvalidError):
        check_image_name(name)


def test_a_digest_is_read_from_64_digits_only() -> None:
    assert parse_digest("0f" * 32) == b"\x0f" * 32
    for wrong in ("", "0f" * 31, "0F" * 32, "0f" * 33, "0f" * 32 + "\n"):
        with pytest.raises(InvalidError):
            parse_digest(wrong)
