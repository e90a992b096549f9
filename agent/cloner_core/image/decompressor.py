"""Zstandard for whoever decompresses one pack after another: into memory that stays, by zstd's C library.

`compression.decompress` has zstd's Python module gather the content in pieces and put those together, so that each
byte is copied twice more than needed. libzstd writes it where it is used (adr/0231).
"""

from __future__ import annotations

import ctypes
from functools import cache

from cloner_core.errors import IntegrityError
from cloner_core.image.compression import decompress
from cloner_core.image.digest import Bytes
from cloner_core.image.limits import ZSTD_WINDOW_LOG

_LIBRARY = "libzstd.so.1"
_SINGLE_SEGMENT = 0x20  # RFC 8878, 3.1.1.1.1: the window is the content; else a byte tells it, 3.1.1.1.2
_MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1; a library may know older formats, and frames that are skipped


class Decompressor:
    """Decompresses frame after frame into memory of its own, for one thread at a time.

    Without libzstd it is as slow as `compression.decompress`, and otherwise the same.
    """

    def __init__(self, most_bytes: int) -> None:
        """Take memory for contents of up to `most_bytes`."""
        self._library = _library()
        self._context: int | None = None
        if self._library is not None:
            self._memory = bytearray(most_bytes)
            self._context = self._library.ZSTD_createDCtx()

    def __del__(self) -> None:
        """Give zstd's own memory back."""
        if self._library is not None and self._context:
            self._library.ZSTD_freeDCtx(self._context)

    def decompress(self, stored: Bytes, raw_bytes: int, what: str) -> Bytes:
        """Return the `raw_bytes` bytes in `stored`, which must be exactly one zstd frame of exactly that content.

        They are there until the next call. Raises IntegrityError for anything else. Releases the GIL.
        """
        library = self._library
        if library is None or not self._context or not 0 < raw_bytes <= len(self._memory):
            return decompress(stored, raw_bytes, what)
        if stored[:4] != _MAGIC:
            raise IntegrityError(f"{what} is not a zstd frame: it begins with {bytes(stored[:4]).hex()}")
        _check_window(stored, what)
        source = _address(stored)
        _require(library, library.ZSTD_findFrameCompressedSize(source, len(stored)), len(stored), what, "stored")
        content = library.ZSTD_decompressDCtx(self._context, _address(self._memory), raw_bytes, source, len(stored))
        _require(library, content, raw_bytes, what, "raw")
        return memoryview(self._memory)[:raw_bytes]


def _check_window(stored: Bytes, what: str) -> None:
    """Raise IntegrityError for a frame with a window above the limit; libzstd needs none here, others do."""
    if len(stored) > 5 and not stored[4] & _SINGLE_SEGMENT:
        exponent, mantissa = stored[5] >> 3, stored[5] & 7
        window_bytes = (8 + mantissa) << (10 + exponent - 3)
        if window_bytes > 1 << ZSTD_WINDOW_LOG:
            raise IntegrityError(f"{what} is a zstd frame that asks for a window of {window_bytes} bytes")


def _require(library: ctypes.CDLL, seen: int, wanted: int, what: str, which: str) -> None:
    """Raise IntegrityError unless a call gave the size `wanted`."""
    if library.ZSTD_isError(seen):
        raise IntegrityError(f"{what} is not a zstd frame: {library.ZSTD_getErrorName(seen).decode()}")
    if seen != wanted:
        raise IntegrityError(f"{what} does not hold exactly one zstd frame: {seen} {which} bytes, wanted {wanted}")


def _address(data: Bytes) -> bytes | ctypes.Array[ctypes.c_char]:
    """Return what ctypes hands to C as the address of `data`; of what can only be read, a copy's."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, memoryview) and data.readonly:
        return bytes(data)
    return (ctypes.c_char * 1).from_buffer(data)


@cache
def _library() -> ctypes.CDLL | None:
    """Return libzstd with what is used of it (zstd.h, stable since 1.4); None where there is none."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        library.ZSTD_createDCtx.restype = ctypes.c_void_p
        library.ZSTD_freeDCtx.argtypes = (ctypes.c_void_p,)
        library.ZSTD_decompressDCtx.restype = ctypes.c_size_t
        library.ZSTD_decompressDCtx.argtypes = (ctypes.c_void_p,) + (
            ctypes.c_void_p,
            ctypes.c_size_t,
        ) * 2  # context, where to, room there, where from, bytes there
        library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
        library.ZSTD_findFrameCompressedSize.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        library.ZSTD_isError.argtypes = library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
        library.ZSTD_getErrorName.restype = ctypes.c_char_p
    except (OSError, AttributeError):  # no such library, or one older than these
        return None
    return library
