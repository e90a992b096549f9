"""What sender and receivers of a session agree on beforehand, over TLS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from typing import NamedTuple

import blake3

from cloner_core.errors import InvalidError, RefusedError

VERSIONS = (2,)
"""Versions of the protocol this side speaks, the best first."""
BLOCK_BYTES = 1440
"""1500 − IPv4 (20) − UDP (8) − proof (16) − header (16): no fragments on Ethernet."""
BLOCK6_BYTES = BLOCK_BYTES - 20
"""The same over IPv6, whose header has 40 bytes (RFC 8200 §3)."""
BLOCKS_MOST = 65535  # of a parcel
PARCELS_MOST = 1 << 24
KEY_BYTES = 16
MASTER_BYTES = 32


class Leaving(IntEnum):
    """Why a receiver is no longer served by multicast; it fetches what it misses over HTTPS."""

    SLOW = 1  # it was waited for while the others could have gone on
    LOSS = 2  # it misses far more than the others
    GREEDY = 3  # it asked for more repair than any loss explains
    SILENT = 4  # it answered no poll
    OVER = 5  # the session ended
    STUCK = 6  # it is heard, has everything to write, and writes nothing


class Parcel(NamedTuple):
    """What a session sends as one: a pack with its placement record before it."""

    digest: bytes  # BLAKE3 of its bytes
    size: int


@dataclass(frozen=True, slots=True)
class Session:
    """What is sent and how; the same for every epoch of a session but for `stream`."""

    stream: int  # u32, another for every epoch
    parcels: Sequence[Parcel]
    block_bytes: int = BLOCK_BYTES
    window_parcels: int = 16  # that a receiver holds at once, incomplete or not yet written

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.stream < 1 << 32:
            faults.append(f"stream {self.stream} is no number of 32 bits")
        if not 0 < len(self.parcels) <= PARCELS_MOST:
            faults.append(f"{len(self.parcels)} parcels, wanted 1 to {PARCELS_MOST}")
        if not 2 <= self.block_bytes <= BLOCK_BYTES:
            faults.append(f"blocks of {self.block_bytes} bytes, wanted 2 to {BLOCK_BYTES}")
        elif not all(0 < parcel.size <= BLOCKS_MOST * self.block_bytes for parcel in self.parcels):
            faults.append(f"a parcel of no byte or of more than {BLOCKS_MOST} blocks")
        if not 4 <= self.window_parcels <= 60:
            faults.append(f"a window of {self.window_parcels} parcels, wanted 4 to 60")
        if faults:
            raise InvalidError("a multicast session cannot be so", faults=faults)

    def blocks(self, parcel: int) -> int:
        """Return how many blocks the parcel has; the last may be shorter than the others."""
        return -(-self.parcels[parcel].size // self.block_bytes)


def fitting_block_bytes(group: str) -> int:
    """Return how long blocks may be that are sent to the address of a group; raises ValueError when it is none."""
    return BLOCK6_BYTES if ip_address(group).version == 6 else BLOCK_BYTES


def choose_version(theirs: Sequence[int]) -> int:
    """Return the version both sides speak; raises RefusedError when there is none."""
    for version in VERSIONS:
        if version in theirs:
            return version
    raise RefusedError(
        f"the node speaks versions {sorted(theirs)} of the multicast protocol, the server {sorted(VERSIONS)}",
        hint="build the installer again with this server's release: cloner make-installer",
    )


def group_key(master: bytes) -> bytes:
    """Return the key of what the sender says, from the `master` (bytes of length 32) of an epoch; see `derived_key`."""
    return blake3.blake3(b"cloner 2 multicast group", key=master).digest(KEY_BYTES)


def derived_key(group: bytes, use: str) -> bytes:
    """Return the key for one `use` of what the key of a group is for."""
    return blake3.blake3(group, derive_key_context=f"cloner 2 multicast {use}").digest(KEY_BYTES)


def receiver_key(master: bytes, receiver: int) -> bytes:
    """Return the key of what one receiver says; the sender makes it from its number, so it keeps none."""
    return blake3.blake3(b"cloner 2 multicast receiver" + receiver.to_bytes(4, "big"), key=master).digest(KEY_BYTES)
