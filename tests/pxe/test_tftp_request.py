"""TFTP's first datagram: read, refused or ignored, whatever the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tftpy.TftpPacketFactory import TftpPacketFactory

from cloner_pxe.tftp_request import ErrorCode, ReadRequest, error, read_request

names = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60).filter(
    lambda name: not name.startswith("/")
)
requests = st.builds(ReadRequest, name=names, block_bytes=st.none() | st.integers(8, 1468), wants_size=st.booleans())


@given(requests)
def test_what_tftpy_is_handed_reads_as_meant(request: ReadRequest) -> None:
    assert read_request(request.encode()) == request
    seen = TftpPacketFactory().parse(request.encode())
    assert seen.filename == request.name
    assert seen.mode == "octet"
    assert ("blksize" in seen.options, "tsize" in seen.options) == (
        request.block_bytes is not None,
        request.wants_size,
    )


@given(st.binary(max_size=600), st.binary(max_size=300))
def test_no_bytes_raise_and_what_is_granted_is_plain(junk: bytes, name: bytes) -> None:
    for datagram in (junk, b"\0\1" + junk, b"\0\1" + name + b"\0octet\0" + junk):
        request = read_request(datagram)
        if isinstance(request, ReadRequest):
            assert request.name.isascii()
            assert request.name.isprintable()
            assert request.block_bytes is None or 8 <= request.block_bytes <= 1468
            assert len(request.encode()) <= len(datagram) + 20


ROWS = [
    pytest.param(b"\0\1a\0octet\0", ReadRequest("a"), id="plain"),
    pytest.param(b"\0\1//a\0OCTET\0", ReadRequest("a"), id="leading slashes, upper case"),
    pytest.param(b"\0\1a\0netascii\0", ReadRequest("a"), id="netascii is served as it is"),
    pytest.param(b"\0\1a\0octet\0blksize\x001432\0tsize\x000\0", ReadRequest("a", 1432, True), id="options"),
    pytest.param(b"\0\1a\0octet\0blksize\x0065464\0", ReadRequest("a", 1468), id="block beyond Ethernet"),
    pytest.param(b"\0\1a\0octet\0blksize\x007\0", ReadRequest("a"), id="block too small"),
    pytest.param(b"\0\1a\0octet\0blksize\0abc\0", ReadRequest("a"), id="block not a number"),
    pytest.param(b"\0\1a\0octet\0windowsize\x0016\0", ReadRequest("a"), id="option not granted"),
    pytest.param(b"\0\1a\0octet\0blksize\0", ReadRequest("a"), id="option without value"),
    pytest.param(b"\0\1a b\0octet\0", ErrorCode.NOT_FOUND, id="blank in the name"),
    pytest.param(b"\0\1\xff\0octet\0", ErrorCode.NOT_FOUND, id="name not ASCII"),
    pytest.param(b"\0\2a\0octet\0", ErrorCode.ACCESS, id="write"),
    pytest.param(b"\0\1a\0mail\0", None, id="mail"),
    pytest.param(b"\0\1a", None, id="cut off"),
    pytest.param(b"\0\4\0\1", None, id="acknowledgement"),
    pytest.param(b"\0\1" + b"a" * 600 + b"\0octet\0", None, id="too long"),
    pytest.param(b"", None, id="empty"),
]


@pytest.mark.parametrize(("datagram", "wanted"), ROWS)
def test_a_datagram_is_read_as(datagram: bytes, wanted: ReadRequest | ErrorCode | None) -> None:
    assert read_request(datagram) == wanted


@pytest.mark.parametrize("code", ErrorCode)
def test_an_error_is_well_formed_and_no_lever(code: ErrorCode) -> None:
    seen = TftpPacketFactory().parse(error(code))
    assert seen.errorcode == code
    assert len(error(code)) <= 16
