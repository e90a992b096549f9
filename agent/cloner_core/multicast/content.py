"""Parcels as they go over the wire: each encrypted as one stream, so that a sum of blocks is a sum of what was sent.

Nothing is proven by it: that is the digest's part, when a parcel is whole.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from cloner_core.image.digest import Bytes
from cloner_core.multicast.session import derived_key

Buffer = bytearray | memoryview

SPARE_BYTES = 15
"""What the room of a parcel has beyond its bytes: the cipher wants it, and writes nothing there."""


class Content:
    """Encrypts and decrypts the parcels of one epoch (AES-128-CTR).

    The counter begins with the parcel's number, and each epoch has its own key: no part of a stream hides two contents.
    """

    def __init__(self, group_key: bytes) -> None:
        self._cipher = AES(derived_key(group_key, "content"))

    def crypt(self, parcel: int, room: Buffer, size: int) -> None:
        """Encrypt what is plain, decrypt what is not: the first `size` bytes of `room`, which has SPARE_BYTES more."""
        stream = Cipher(self._cipher, CTR(parcel.to_bytes(4, "big") + bytes(12))).encryptor()
        view = memoryview(room)
        stream.update_into(view[:size], view[: size + SPARE_BYTES])

    def encrypted(self, parcel: int, data: Bytes) -> memoryview:
        """Return the bytes of a parcel as they are sent."""
        room = bytearray(len(data) + SPARE_BYTES)
        room[: len(data)] = data
        self.crypt(parcel, room, len(data))
        return memoryview(room)[: len(data)]
