"""Decompressors of the formats the kernel takes an initramfs in, each bounded in what it gives at once.

Pure. LZO is left out: nothing has made an initramfs of it for years, and the standard library cannot.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class _Library(Protocol):
    """What the decompressors of the standard library have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Decoder(_Library, Protocol):
    """A decompressor that is fed as long as it needs input, and says whether its input may end there."""

    @property
    def may_end(self) -> bool: ...


class _Plain:
    """One of the standard library, whose end is marked."""

    may_end = False

    def __init__(self, inner: _Library) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return self._inner.needs_input

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(data, max_length)


class _Gzip:
    """zlib's decompressor as the others are."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)
        self._left = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._left and not self.eof

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        raw = self._inner.decompress(self._left + data, max(max_length, 0))
        self._left = self._inner.unconsumed_tail
        return raw


class _Lz4:
    """The legacy frame of LZ4 alone, which the kernel takes: blocks of at most 8 MiB, each for itself.

    Source: lz4, doc/lz4_Frame_format.md ("Legacy frame"), doc/lz4_Block_format.md; kernel, lib/decompress_unlz4.c.
    """

    _BLOCK_BYTES = 8 << 20
    _BOUND_BYTES = _BLOCK_BYTES + _BLOCK_BYTES // 255 + 16

    def __init__(self) -> None:
        self._left = b""
        self._has_begun = False
        self.eof = False
        self.unused_data = b""

    @property
    def needs_input(self) -> bool:
        return not self.eof and not self._next_block()

    @property
    def may_end(self) -> bool:
        return self._has_begun and not self._left  # a legacy frame has no end of its own

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        del max_length  # a block is bounded
        self._left += data
        if not self._has_begun:
            if len(self._left) < 4:
                return b""
            self._left, self._has_begun = self._left[4:], True
        block = self._next_block()
        if not block:
            return b""
        (size,) = struct.unpack_from("<I", self._left)
        if size == 0 or size > self._BOUND_BYTES:  # what follows is no block: the frame has no other end
            self.eof, self.unused_data, self._left = True, self._left, b""
            return b""
        self._left = self._left[4 + size :]
        return _unlz4(block, self._BLOCK_BYTES)

    def _next_block(self) -> bytes:
        """Return the block that is all there, or its bare size when that is no size of a block; else b""."""
        if not self._has_begun or len(self._left) < 4:
            return b""
        (size,) = struct.unpack_from("<I", self._left)
        if size == 0 or size > self._BOUND_BYTES:
            return self._left[:4]
        return self._left[4 : 4 + size] if len(self._left) >= 4 + size else b""


def _unlz4(block: bytes, most: int) -> bytes:
    out = bytearray()
    at, end = 0, len(block)
    try:
        while at < end:
            token = block[at]
            at += 1
            count = token >> 4
            if count == 15:
                while (more := block[at]) == 255:
                    count += 255
                    at += 1
                count += more
                at += 1
            out += block[at : at + count]
            at += count
            if at >= end:
                break
            distance = block[at] | block[at + 1] << 8
            at += 2
            count = token & 15
            if count == 15:
                while (more := block[at]) == 255:
                    count += 255
                    at += 1
                count += more
                at += 1
            count += 4
            start = len(out) - distance
            if not distance or start < 0 or len(out) + count > most:
                raise ValueError("an LZ4 block leads out of itself")
            if distance >= count:
                out += out[start : start + count]
            else:
                pattern = bytes(out[start:])
                out += (pattern * (count // distance + 1))[:count]
    except IndexError as error:
        raise ValueError("an LZ4 block leads out of itself") from error
    return bytes(out)


_XZ_BYTES = 256 << 20  # of memory: `xz -9` wants 65 MiB
_ZSTD_WINDOW_LOG = 27  # what the kernel takes: lib/decompress_unzstd.c

_MAKERS: tuple[tuple[bytes, Callable[[], Decoder]], ...] = (
    (b"\x1f\x8b", lambda: _Plain(_Gzip())),
    (b"\xfd7zXZ\0", lambda: _Plain(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_BYTES))),
    (b"\x28\xb5\x2f\xfd", lambda: _Plain(zstd.ZstdDecompressor(options=_ZSTD_OPTIONS))),
    (b"BZh", lambda: _Plain(bz2.BZ2Decompressor())),
    (b"\x5d\0\0", lambda: _Plain(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_XZ_BYTES))),
    (b"\x02\x21\x4c\x18", _Lz4),
)
_ZSTD_OPTIONS: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}

DAMAGES = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError)
"""What decoders raise for what is no data of theirs."""


def decoder_of(magic: bytes) -> Decoder | None:
    """Return a decompressor for what begins with `magic` (6 bytes); None when its format is not known."""
    return next((make() for beginning, make in _MAKERS if magic.startswith(beginning)), None)
