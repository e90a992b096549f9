"""Passwords of the console: the hash tells them apart, holds none, and a silly one is refused with every reason."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.errors import InvalidError
from cloner_core.messages import PasswordHash
from cloner_core.passwords import DEFAULT_PASSWORD, hash_password, is_password, require_password

KEPT = hash_password(DEFAULT_PASSWORD, bytes(range(16)))


@pytest.mark.parametrize(
    ("tried", "is_right"),
    [
        (DEFAULT_PASSWORD, True),
        ("", False),
        ("Breakin", False),
        ("breakin\0", False),
        (DEFAULT_PASSWORD * 1000, False),
        ("\udcff", False),
    ],
)
def test_only_the_password_itself_is_right(tried: str, is_right: bool) -> None:
    assert is_password(tried, KEPT) is is_right


def test_a_long_password_does_not_stand_for_the_empty_one() -> None:
    assert not is_password("x" * 5000, hash_password("", bytes(16)))


def test_the_salt_makes_hashes_differ_and_neither_shows_in_a_log() -> None:
    other = hash_password(DEFAULT_PASSWORD, bytes(16))
    assert other.digest != KEPT.digest
    assert repr(KEPT) == str(KEPT) == "***"
    assert DEFAULT_PASSWORD not in msgspec.json.encode(KEPT).decode()


@pytest.mark.parametrize("salt", ["", "00" * 15, "zz" * 16, "00" * 17])
def test_a_hash_of_another_form_is_not_read(salt: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"salt": salt, "digest": "00" * 32}, PasswordHash)


@pytest.mark.parametrize(("password", "faults"), [("", 1), ("abc\n", 2), ("x" * 300, 1), ("caf\u00e9 au lait", 0)])
def test_a_password_that_cannot_be_used_is_refused_with_every_reason(password: str, faults: int) -> None:
    if not faults:
        require_password(password)
        return
    with pytest.raises(InvalidError) as caught:
        require_password(password)
    assert len(caught.value.faults) == faults
