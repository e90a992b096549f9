"""A record has one form, and nothing else is one."""

from __future__ import annotations

from dataclasses import dataclass

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import IntegrityError
from cloner_core.image.inode import Inode, Kind, decode_inode, encode_inode
from cloner_core.image.spans import encode_holes
from core.image.trees import inodes


@given(inodes())
def test_what_is_encoded_is_read_back_the_same(inode: Inode) -> None:
    assert decode_inode(encode_inode(inode)) == inode


@given(inodes())
def test_another_reader_of_messagepack_reads_the_same_values(inode: Inode) -> None:
    values = msgpack.unpackb(encode_inode(inode), use_list=False)
    assert len(values) == 15
    assert values[:3] == (inode.number, int(inode.kind), inode.path)
    assert values[3:] == (
        inode.mode,
        inode.uid,
        inode.gid,
        inode.mtime_ns,
        inode.size,
        inode.device,
        inode.target,
        inode.leader,
        inode.xattrs,
        inode.flags,
        inode.holes,
        inode.chunks,
    )


@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_inode(data)


@given(inodes(), st.data())
def test_a_changed_record_is_refused_or_is_another_record(inode: Inode, data: st.DataObject) -> None:
    record = bytearray(encode_inode(inode))
    position = data.draw(st.integers(0, len(record) - 1))
    record[position] ^= data.draw(st.integers(1, 255))
    try:
        seen = decode_inode(bytes(record))
    except IntegrityError:
        return
    assert seen != inode
    assert encode_inode(seen) == record


@given(inodes())
def test_a_record_in_a_longer_form_is_refused(inode: Inode) -> None:
    # The same values, the array's length in 32 bits instead of four.
    record = encode_inode(inode)
    assert record[0] == 0x9F
    with pytest.raises(IntegrityError, match="canonical"):
        decode_inode(b"\xdd\x00\x00\x00\x0f" + record[1:])


@dataclass(frozen=True)
class Wrong:
    name: str
    inode: Inode


FILE = Inode(2, Kind.FILE, b"f", size=3, chunks=bytes(32))
WRONG = [
    Wrong("absolute path", msgspec.structs.replace(FILE, path=b"/f")),
    Wrong("NUL in the path", msgspec.structs.replace(FILE, path=b"f\0g")),
    Wrong("path too long", msgspec.structs.replace(FILE, path=b"f" * 4096)),
    Wrong("number 0", msgspec.structs.replace(FILE, number=0)),
    Wrong("mode of 13 bits", msgspec.structs.replace(FILE, mode=0o10000)),
    Wrong("uid -1", msgspec.structs.replace(FILE, uid=(1 << 32) - 1)),
    Wrong("chunk missing", msgspec.structs.replace(FILE, chunks=b"")),
    Wrong("chunk too many", msgspec.structs.replace(FILE, chunks=bytes(64))),
    Wrong("half a digest", msgspec.structs.replace(FILE, chunks=bytes(16))),
    Wrong("file of 17 TiB", msgspec.structs.replace(FILE, size=17 << 40, chunks=b"")),
    Wrong("hole outside", msgspec.structs.replace(FILE, holes=encode_holes([(2, 2)]))),
    Wrong("file with a target", msgspec.structs.replace(FILE, target=b"x")),
    Wrong("file with a leader", msgspec.structs.replace(FILE, leader=1)),
    Wrong("file with a device number", msgspec.structs.replace(FILE, device=(1, 3))),
    Wrong("flag nobody can set", msgspec.structs.replace(FILE, flags=0x80000)),
    Wrong("xattrs unsorted", msgspec.structs.replace(FILE, xattrs=((b"user.b", b""), (b"user.a", b"")))),
    Wrong("xattr twice", msgspec.structs.replace(FILE, xattrs=((b"user.a", b""), (b"user.a", b"")))),
    Wrong("xattr without a name", msgspec.structs.replace(FILE, xattrs=((b"", b""),))),
    Wrong("xattr name with a NUL", msgspec.structs.replace(FILE, xattrs=((b"a\0", b""),))),
    Wrong("xattr value too long", msgspec.structs.replace(FILE, xattrs=((b"a", bytes(65537)),))),
    Wrong(
        "xattrs too long together",
        msgspec.structs.replace(FILE, xattrs=tuple((b"user.%02d" % n, bytes(65536)) for n in range(17))),
    ),
    Wrong("directory with content", Inode(2, Kind.DIRECTORY, b"d", size=1)),
    Wrong("link to nothing", Inode(2, Kind.SYMLINK, b"l", 0o777)),
    Wrong("symbolic link with a mode", Inode(2, Kind.SYMLINK, b"l", 0o644, target=b"x")),
    Wrong("symbolic link with flags", Inode(2, Kind.SYMLINK, b"l", 0o777, target=b"x", flags=0x10)),
    Wrong("hard link with a mode", Inode(2, Kind.LINK, b"l", 0o644, leader=1)),
    Wrong("fifo with a device number", Inode(2, Kind.FIFO, b"p", device=(1, 3))),
    Wrong("device of 21 bits", Inode(2, Kind.BLOCK, b"b", device=(1, 1 << 20))),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_record_with_values_that_do_not_fit_is_refused(wrong: Wrong) -> None:
    with pytest.raises(IntegrityError):
        decode_inode(encode_inode(wrong.inode))


def test_an_array_that_claims_to_be_huge_costs_nothing() -> None:
    head = encode_inode(FILE)[:12]
    for claim in (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
        with pytest.raises(IntegrityError):
            decode_inode(head + claim)
