"""Zstandard with a bound: what a frame claims about its own size is never believed."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from cloner_core.errors import IntegrityError
from cloner_core.image.digest import Bytes
from cloner_core.image.limits import ZSTD_LEVEL, ZSTD_WINDOW_LOG

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_DECODING: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}


def compress(data: Bytes, level: int = ZSTD_LEVEL) -> bytes:
    """Return one zstd frame that holds `data`; releases the GIL."""
    return zstd.compress(data, level)


def decompress(stored: Bytes, raw_bytes: int, what: str) -> bytes:
    """Return the `raw_bytes` bytes in `stored`, which must be exactly one zstd frame of exactly that content.

    Raises IntegrityError for anything else, having allocated little more than `raw_bytes`. Releases the GIL.
    """
    decoder = zstd.ZstdDecompressor(options=_DECODING)
    try:
        raw = decoder.decompress(stored, max_length=raw_bytes + 1)
    except zstd.ZstdError as error:
        raise IntegrityError(f"{what} is not a zstd frame: {error}") from error
    if len(raw) != raw_bytes or not decoder.eof or decoder.unused_data:
        raise IntegrityError(f"{what} does not hold exactly one zstd frame of {raw_bytes} bytes")
    return raw
