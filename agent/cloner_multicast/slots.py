"""Memory for parcels that several processes see, used again and again: new pages cost more than what is put there."""

from __future__ import annotations

import mmap

NONE = 255
"""In the table of parcels: in no slot."""
_PAGE_BYTES = 4096


class Slots:
    """Places of one size, and a table that says which parcel is in which; made before a fork, shared by all after it.

    One process gives and takes places; the others read.
    """

    def __init__(self, count: int, slot_bytes: int, parcels: int) -> None:
        """Make `count` places, 1 to 254, for parcels of at most `slot_bytes`."""
        self._size = -(-slot_bytes // _PAGE_BYTES) * _PAGE_BYTES
        self._memory = mmap.mmap(-1, count * self._size)
        self._view = memoryview(self._memory)
        self._table = mmap.mmap(-1, parcels)
        self._table.write(bytes([NONE]) * parcels)
        self._free = list(range(count))
        self._taken: dict[int, tuple[memoryview, int]] = {}  # by id of the view that was given

    def allocate(self, size: int) -> memoryview:
        """Return a place for a parcel of so many bytes. Raises IndexError when all are taken."""
        slot = self._free.pop()  # freed last: the one that caches still hold
        view = self._view[slot * self._size : slot * self._size + size]
        self._taken[id(view)] = view, slot
        return view

    def free(self, view: object) -> None:
        """Take back what `allocate` gave."""
        _, slot = self._taken.pop(id(view))
        self._free.append(slot)

    def publish(self, parcel: int, view: object) -> None:
        """Have the other processes find a parcel."""
        self._table[parcel] = self._taken[id(view)][1]

    def withdraw(self, parcel: int) -> None:
        """Have the other processes find a parcel no more."""
        self._table[parcel] = NONE

    def find(self, parcel: int, size: int) -> memoryview | None:
        """Return a parcel of so many bytes, None when it is in no slot; it stays until it is withdrawn."""
        slot = self._table[parcel]
        return None if slot == NONE else self._view[slot * self._size : slot * self._size + size]
