"""Zstandard with a bound: what a frame claims about its own size is never believed."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from cloner_core.errors import IntegrityError
from cloner_core.image.digest import Bytes
from cloner_core.image.limits import PACK_RAW_BYTES, ZSTD_LEVEL, ZSTD_ONTO_WINDOW_LOG, ZSTD_WINDOW_LOG

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_DECODING: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
_DECODING_ONTO: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_ONTO_WINDOW_LOG}

# A window of the whole pack: level 3 by itself looks back over half of it.
_ENCODING: Mapping[int, int] = {
    zstd.CompressionParameter.compression_level: ZSTD_LEVEL,
    zstd.CompressionParameter.window_log: PACK_RAW_BYTES.bit_length() - 1,
}

# What differs is little, so the search may take its time: level 3 finds but half of what is alike.
_ENCODING_ONTO: Mapping[int, int] = {
    zstd.CompressionParameter.compression_level: 9,
    zstd.CompressionParameter.window_log: ZSTD_ONTO_WINDOW_LOG,
}


class Compressor:
    """Makes frames one after the other with the same memory; for one thread at a time."""

    def __init__(self) -> None:
        """Take the memory."""
        self._compressor = zstd.ZstdCompressor(options=_ENCODING)

    def compress(self, data: Bytes) -> bytes:
        """Return one zstd frame that holds `data`; releases the GIL."""
        self._compressor.set_pledged_input_size(len(data))
        return self._compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def compress(data: Bytes) -> bytes:
    """Return one zstd frame that holds `data`; releases the GIL."""
    return Compressor().compress(data)


def compress_onto(data: Bytes, onto: bytes) -> bytes:
    """Return one zstd frame of what `data` has and `onto` has not; together at most 16 MiB. Releases the GIL."""
    prefix = zstd.ZstdDict(onto, is_raw=True).as_prefix
    compressor = zstd.ZstdCompressor(options=_ENCODING_ONTO, zstd_dict=prefix)
    return compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def decompress(stored: Bytes, raw_bytes: int, what: str, onto: bytes = b"") -> bytes:
    """Return the `raw_bytes` bytes in `stored`, which must be exactly one zstd frame of exactly that content.

    `onto` is what `compress_onto` was given, if that made the frame. Raises IntegrityError for anything else, having
    allocated little more than `raw_bytes`. Releases the GIL.
    """
    if onto:
        prefix = zstd.ZstdDict(onto, is_raw=True).as_prefix
        decoder = zstd.ZstdDecompressor(zstd_dict=prefix, options=_DECODING_ONTO)
    else:
        decoder = zstd.ZstdDecompressor(options=_DECODING)
    try:
        raw = decoder.decompress(stored, max_length=raw_bytes + 1)
    except zstd.ZstdError as error:
        raise IntegrityError(f"{what} is not a zstd frame: {error}") from error
    if len(raw) != raw_bytes or not decoder.eof or decoder.unused_data:
        raise IntegrityError(f"{what} does not hold exactly one zstd frame of {raw_bytes} bytes")
    return raw
