"""Counting what versions share: distinct things by digest, per group and per member, in bounded memory.

Digests are uniform, so what does not fit into memory at once is counted in passes, each over one range of digests;
every pass reads the sources again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

AT_ONCE = 1 << 19
"""Distinct things held in memory: about 70 MB."""

_KEY_BYTES = 16  # of a digest: two of a store that agree in 128 bits do not happen
_ENDS = 1 << 64
_SIZE_BITS, _MEMBER_BITS = 24, 28
_SIZE, _MEMBER = (1 << _SIZE_BITS) - 1, (1 << _MEMBER_BITS) - 1
_SHARED_MEMBER = 1 << (_SIZE_BITS + _MEMBER_BITS)  # more than one member has it
_SHARED_GROUP = _SHARED_MEMBER << 1
_GROUP_SHIFT = _SIZE_BITS + _MEMBER_BITS + 2  # above: the group that was counted last, a group's sources being in a row


@dataclass(frozen=True, slots=True)
class Source:
    """What one member has; sources of one group stand in a row, and each is a member of its own."""

    group: int  # from 0, rising
    items: Callable[[], Iterator[tuple[bytes, int]]]  # digest and bytes, each digest once; asked once a pass


@dataclass(slots=True)
class Tally:
    """Bytes of distinct things."""

    total: int = 0
    group: list[int] = field(default_factory=list)  # that the group has
    group_only: list[int] = field(default_factory=list)  # that no other group has
    member: list[int] = field(default_factory=list)
    member_only: list[int] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what another range of digests gave."""
        self.total += other.total
        for name in ("group", "group_only", "member", "member_only"):
            ours, theirs = getattr(self, name), getattr(other, name)
            ours[:] = [one + two for one, two in zip(ours, theirs, strict=True)]


class _TooManyError(Exception):
    """The range of digests holds more than fits."""


def tally(sources: Sequence[Source], at_once: int = AT_ONCE) -> Tally:
    """Return what the sources have and share; at most `at_once` distinct things are held in memory."""
    groups = [source.group for source in sources]
    counted = _empty(groups)
    low, width = 0, _ENDS
    while low < _ENDS:
        high = min(low + width, _ENDS)
        try:
            counted.add(_count(sources, groups, low, high, at_once if width > 1 else _ENDS))
        except _TooManyError:
            width //= 2
            continue
        low = high
    return counted


def _empty(groups: Sequence[int]) -> Tally:
    of_groups, of_members = max(groups, default=-1) + 1, len(groups)
    return Tally(0, [0] * of_groups, [0] * of_groups, [0] * of_members, [0] * of_members)


def _count(sources: Sequence[Source], groups: Sequence[int], low: int, high: int, at_once: int) -> Tally:
    counted = _empty(groups)
    first = low.to_bytes(8, "big")
    end = high.to_bytes(8, "big") if high < _ENDS else b"\xff" * 64
    seen: dict[bytes, int] = {}
    for member, source in enumerate(sources):
        group, of_member, of_group = source.group, 0, 0
        for digest, size in source.items():
            if not first <= digest < end:
                continue
            of_member += size
            key = digest[:_KEY_BYTES]
            state = seen.get(key)
            if state is None:
                if len(seen) >= at_once:
                    raise _TooManyError
                seen[key] = group << _GROUP_SHIFT | member << _SIZE_BITS | size
                of_group += size
            elif state >> _GROUP_SHIFT == group:
                seen[key] = state | _SHARED_MEMBER
            else:
                kept = state & ((1 << _GROUP_SHIFT) - 1)
                seen[key] = group << _GROUP_SHIFT | kept | _SHARED_MEMBER | _SHARED_GROUP
                of_group += size
        counted.member[member] += of_member
        counted.group[group] += of_group
    for state in seen.values():
        size, member = state & _SIZE, state >> _SIZE_BITS & _MEMBER
        counted.total += size
        if not state & _SHARED_MEMBER:
            counted.member_only[member] += size
        if not state & _SHARED_GROUP:
            counted.group_only[groups[member]] += size
    return counted
