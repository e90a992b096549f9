"""Overwrites a whole disk, from its first byte to its last: random passes, if any, and a last one of zeroes.

Reaches what the disk shows, never what it keeps for itself (spare cells of a flash disk, sectors put aside).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cloner_agent.erase.device import PIECE_BYTES, Device

_ZEROES = bytes(PIECE_BYTES)


def overwrite(path: str, size_bytes: int, passes: int, wrote: Callable[[int], None]) -> None:
    """Write `passes` times over the disk; `wrote` is told of bytes as they go, and raises to end it.

    Raises StageError (DISK_IO) naming the first byte that does not take a write.
    """
    with Device(path, writable=True) as device:
        for number in range(1, passes + 1):
            pieces = _zeroes() if number == passes else _noise()
            for at in range(0, size_bytes, PIECE_BYTES):
                count = min(PIECE_BYTES, size_bytes - at)
                device.write(at, next(pieces)[:count])
                wrote(count)
            device.sync()


def _zeroes() -> Iterator[bytes]:
    while True:
        yield _ZEROES


def _noise() -> Iterator[bytes]:
    """Give pieces of a stream that no disk can compress or share: AES-CTR under a key that is forgotten."""
    stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    while True:
        yield stream.update(_ZEROES)
