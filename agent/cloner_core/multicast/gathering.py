"""One parcel while it is gathered: its blocks and combinations in any order, and how many are still needed."""

from __future__ import annotations

from cloner_core.image.digest import Bytes, digest
from cloner_core.multicast.combining import Workbench
from cloner_core.multicast.content import SPARE_BYTES, Buffer, Content
from cloner_core.multicast.solving import Equations, mend

_SOLVED_MOST = 1024
_SOLVED_LEAST = 64
_SPARE = 64  # combinations held beyond what is missing


class Gathering:
    """Holds at most twice the bytes of its parcel."""

    __slots__ = (
        "_combinations",
        "_equations",
        "_have",
        "block_bytes",
        "blocks",
        "buffer",
        "missing",
        "parcel",
        "room",
        "sent",
        "touched_s",
    )

    def __init__(self, parcel: int, room: Buffer, block_bytes: int, now_s: float) -> None:
        """`room` has SPARE_BYTES more than the parcel; what is in it does not matter."""
        self.parcel = parcel
        self.block_bytes = block_bytes
        self.room = room
        self.buffer = memoryview(room)[: len(room) - SPARE_BYTES]
        """What there is of the parcel, encrypted until it is finished."""
        self.blocks = -(-len(self.buffer) // block_bytes)
        self.missing = self.blocks
        self.sent = 0
        """Combinations the sender says it has sent."""
        self.touched_s = now_s
        self._have = 0  # a bit for each block
        self._combinations: dict[int, bytes] = {}
        self._equations: Equations | None = None

    def add_blocks(self, first: int, count: int, payload: Bytes) -> bool:
        """Take blocks in a row; return False when they do not fit the parcel."""
        size, at = self.block_bytes, first * self.block_bytes
        end = min((first + count) * size, len(self.buffer))
        if not 0 < count <= self.blocks - first or end - at != len(payload):
            return False
        run = ((1 << count) - 1) << first
        known = self._have & run
        if known != run:
            self.buffer[at:end] = payload
            self._have |= run
            self.missing -= count - known.bit_count()
            if self._equations is not None:
                self._count_anew()
        return True

    def add_combinations(self, first: int, count: int, payload: Bytes) -> bool:
        """Take combinations with numbers in a row; return False when they do not fit the parcel."""
        size = self.block_bytes
        if len(payload) != count * size:
            return False
        for number in range(first, first + count):
            if number in self._combinations or len(self._combinations) >= self.missing + _SPARE:
                continue
            at = (number - first) * size
            self._combinations[number] = bytes(payload[at : at + size])
            if self._equations is not None:
                self._equations.add(number)
        if self._equations is None:
            self._count_anew()
        return True

    def _count_anew(self) -> None:
        """Count what the combinations say, once they are enough for the missing blocks."""
        self._equations = None
        if 0 < self.missing <= len(self._combinations) and not self.lacks_blocks:
            self._equations = Equations(self.parcel, self.blocks, self._missing_blocks())
            for number in self._combinations:
                self._equations.add(number)

    def _missing_blocks(self) -> list[int]:
        digits = bin(self._have | 1 << self.blocks)[:2:-1]  # block 0 first, without the mark above the last
        found, at = [], digits.find("0")
        while at >= 0:
            found.append(at)
            at = digits.find("0", at + 1)
        return found

    @property
    def is_whole(self) -> bool:
        """Whether everything is there or follows from what is there."""
        return not self.missing or (self._equations is not None and self._equations.is_solvable)

    @property
    def lacks_blocks(self) -> bool:
        """Whether so much is missing that its blocks are to be sent again.

        Combinations for it would cost others more than they lost, and this one more time than it takes to receive.
        """
        return self.missing > min(_SOLVED_MOST, max(_SOLVED_LEAST, self.blocks // 4))

    @property
    def needed(self) -> int:
        """How many more combinations make it whole, as far as one can say; 0 when it is whole."""
        if self._equations is not None:
            return self.missing - self._equations.rank
        return max(self.missing - len(self._combinations), min(1, self.missing))

    def finish(self, wanted: bytes, content: Content, bench: Workbench) -> memoryview | None:
        """Return the bytes of a whole parcel, decrypted; None when `wanted` is not their digest.

        What combinations stand for is computed now, in some milliseconds: another process may do it.
        """
        if self.missing and self._equations is not None:
            mend(bench, self.buffer, self.block_bytes, self._equations, self._combinations)
        content.crypt(self.parcel, self.room, len(self.buffer))
        return self.buffer if digest(self.buffer) == wanted else None
