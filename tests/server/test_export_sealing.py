"""The seal: what comes out is what went in, or an error; never a part, never something else."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.errors import ClonerError, IntegrityError, InvalidError, RefusedError
from cloner_server.export.sealing import (
    HEADER_BYTES,
    Cost,
    open_reader,
    open_writer,
    passphrase_bytes,
    require_strong,
)

CHEAP = Cost(4, 1, 1)
PIECE, TAG = 32, 16
PASS = b"correct horse battery staple"


def seal(content: bytes, cuts: tuple[int, ...] = ()) -> bytes:
    file = io.BytesIO()
    writer = open_writer(file, PASS, bytes(range(16)), CHEAP, PIECE)
    start = 0
    for cut in (*sorted(cuts), len(content)):
        writer.write(content[start:cut])
        start = cut
    writer.close()
    return file.getvalue()


def unseal(data: bytes, passphrase: bytes = PASS, size: int = 7) -> bytes:
    reader = open_reader(io.BytesIO(data), passphrase)
    parts = []
    while part := reader.read(size):
        parts.append(part)
    reader.finish()
    return b"".join(parts)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 5 * PIECE).map(lambda size: random.Random(size).randbytes(size)),
    st.lists(st.integers(0, 5 * PIECE), max_size=4),
    st.integers(1, 3 * PIECE),
)
def test_what_comes_out_is_what_went_in_however_it_is_cut(content: bytes, cuts: list[int], size: int) -> None:
    sealed = seal(content, tuple(min(cut, len(content)) for cut in cuts))
    assert sealed == seal(content)
    assert unseal(sealed, size=size) == content
    pieces = max(1, -(-len(content) // PIECE))
    assert len(sealed) == HEADER_BYTES + len(content) + pieces * TAG
    assert not content[8:] or content[:8] not in sealed


@pytest.mark.parametrize("size", [0, 5, PIECE, 3 * PIECE, 3 * PIECE + 5])
def test_every_cut_is_found(size: int) -> None:
    sealed = seal(random.Random(1).randbytes(size))
    for end in range(len(sealed)):
        with pytest.raises((IntegrityError, InvalidError)):
            unseal(sealed[:end])


def test_a_cut_between_two_pieces_is_called_a_cut() -> None:
    sealed = seal(bytes(3 * PIECE))
    end = HEADER_BYTES + 2 * (PIECE + TAG)
    with pytest.raises(IntegrityError, match=f"cut off after byte {end}"):
        unseal(sealed[:end])


def test_every_flipped_bit_is_found() -> None:
    sealed = seal(random.Random(2).randbytes(2 * PIECE + 5))
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= 1 << at % 8
        if at in (9, 10, 11):  # what a guess costs: a higher price is another key, and takes its time
            continue
        with pytest.raises(ClonerError):
            unseal(bytes(altered))


def test_pieces_exchanged_doubled_left_out_or_added_are_found() -> None:
    sealed = seal(random.Random(3).randbytes(3 * PIECE))
    head = sealed[:HEADER_BYTES]
    one, two, three = (sealed[HEADER_BYTES + n * (PIECE + TAG) :][: PIECE + TAG] for n in range(3))
    assert unseal(head + one + two + three)
    for wrong in (two + one + three, one + one + two + three, one + three, one + two + three + three, three):
        with pytest.raises(IntegrityError):
            unseal(head + wrong)
    for tail in (b"\0", bytes(1000)):
        with pytest.raises(IntegrityError):
            unseal(sealed + tail)


def test_a_piece_of_another_export_does_not_open() -> None:
    other = io.BytesIO()
    writer = open_writer(other, PASS, bytes(16), CHEAP, PIECE)
    writer.write(bytes(PIECE))
    writer.close()
    with pytest.raises(IntegrityError):
        unseal(seal(bytes(PIECE))[:HEADER_BYTES] + other.getvalue()[HEADER_BYTES:])


def test_a_wrong_passphrase_is_called_so_before_anything_is_read() -> None:
    file = io.BytesIO(seal(bytes(5 * PIECE)))
    with pytest.raises(RefusedError, match="passphrase is wrong"):
        open_reader(file, b"another one, quite wrong")
    assert file.tell() == HEADER_BYTES


def test_something_else_is_no_export_and_a_newer_form_is_refused() -> None:
    for data in (b"", b"CLNSTATE", b"PK\x03\x04" + bytes(100)):
        with pytest.raises(InvalidError, match="not an export"):
            unseal(data)
    newer = bytearray(seal(b""))
    newer[8] = 2
    with pytest.raises(RefusedError, match="form 2"):
        unseal(bytes(newer))


@pytest.mark.parametrize(
    ("at", "values"),
    [(9, [63]), (9, [255]), (9, [0]), (9, [21, 8]), (9, [22, 16]), (9, [4, 0]), (9, [16, 255]), (12, [255])],
)
def test_a_strange_header_does_not_eat_the_machine(at: int, values: list[int]) -> None:
    strange = bytearray(seal(b""))
    strange[at : at + len(values)] = bytes(values)
    with pytest.raises(IntegrityError, match="header is damaged"):
        unseal(bytes(strange))


def test_one_passphrase_in_two_spellings_is_one() -> None:
    assert passphrase_bytes("Schlu\u0308ssel") == passphrase_bytes("Schl\u00fcssel")
    with pytest.raises(InvalidError, match="at least 12"):
        require_strong("elf zeichen")
    require_strong("zwoelf zeich")


def test_the_seal_is_what_the_documentation_says() -> None:
    """Opened by hand, with nothing of ours."""
    import hashlib
    import hmac
    import struct

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed = seal(b"a" * 40)
    magic, form, log_n, r, p, piece, salt = struct.unpack(">8sBBBBI16s", sealed[:32])
    assert (magic, form, piece) == (b"CLNSTATE", 1, PIECE)
    derived = hashlib.scrypt(PASS, salt=salt, n=2**log_n, r=r, p=p, dklen=64)
    assert hmac.new(derived[32:], sealed[:32], "sha256").digest()[:16] == sealed[32:48]
    cipher, header = AESGCM(derived[:32]), sealed[:48]
    assert cipher.decrypt(bytes(12), sealed[48:96], header) == b"a" * 32
    assert cipher.decrypt(bytes(10) + b"\x01\x01", sealed[96:], header) == b"a" * 8
