"""Who may try a password, and when: guesses are slowed by address and in all, and the tables stay small.

Pure: the clock comes from the caller. The delay lies before the look at a password, so a guesser who hangs up early
has learned nothing.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

MAX_CONNECTIONS = 16
MAX_OF_ADDRESS = 4
MAX_WAITING = 8
"""Connections that have not shown a right password."""
TRIES_OF_CONNECTION = 3
_FIRST_S, _LONGEST_S = 1.0, 60.0
_FORGIVEN_S = 900.0  # without a guess, and an address begins anew
_ADDRESSES = 1024
_ALL_EVERY_S = 0.5  # between two looks at passwords, whoever asks
_ALL_AHEAD_S = 30.0


@dataclass(slots=True)
class _Address:
    guesses: int = 0
    free_s: float = 0.0  # when the next look at a password may be
    seen_s: float = 0.0
    connections: int = 0


class Throttle:
    """Counts connections and guesses of one console."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Address] = OrderedDict()
        self._free_s = 0.0
        self._connections = 0
        self._waiting = 0
        self.guesses = 0
        self.last_from = ""

    def admit(self, address: str, now_s: float) -> bool:
        """Take a connection of `address`, or say no: too many, or it has to wait because of its guesses."""
        one = self._of(address, now_s)
        is_full = self._connections >= MAX_CONNECTIONS or self._waiting >= MAX_WAITING
        if is_full or one.connections >= MAX_OF_ADDRESS:
            return False
        if one.guesses >= TRIES_OF_CONNECTION and now_s < one.free_s:
            self._guessed(one, address)
            return False
        one.connections += 1
        self._connections += 1
        self._waiting += 1
        return True

    def leave(self, address: str, *, is_waiting: bool) -> None:
        """Forget a connection that `admit` took."""
        one = self._known.get(group(address))
        if one is not None:
            one.connections = max(0, one.connections - 1)
        self._connections -= 1
        self._waiting -= is_waiting

    def delay_s(self, address: str, now_s: float) -> float | None:
        """Return how long to wait before the next look at a password of `address`; None: not at all, hang up."""
        one = self._of(address, now_s)
        begin_s = max(now_s, one.free_s, self._free_s)
        if begin_s - now_s > _ALL_AHEAD_S:
            return None
        one.free_s = begin_s + _penalty_s(one.guesses)
        self._free_s = begin_s + _ALL_EVERY_S
        return begin_s - now_s

    def wrong(self, address: str, now_s: float) -> None:
        """Count a wrong password; the next look comes later by twice as much."""
        one = self._of(address, now_s)
        self._guessed(one, address)
        one.free_s = max(one.free_s, now_s + _penalty_s(one.guesses))

    def right(self, address: str, now_s: float) -> None:
        """Forgive an address that knows the password; its connection waits no more."""
        one = self._of(address, now_s)
        one.guesses, one.free_s = 0, now_s
        self._waiting -= 1

    def _guessed(self, one: _Address, address: str) -> None:
        one.guesses += 1
        self.guesses += 1
        self.last_from = address[:64]

    def _of(self, address: str, now_s: float) -> _Address:
        key = group(address)
        one = self._known.setdefault(key, _Address(seen_s=now_s))
        if now_s - one.seen_s > _FORGIVEN_S:
            one.guesses = 0
        one.seen_s = now_s
        self._known.move_to_end(key)
        while len(self._known) > _ADDRESSES:
            oldest = next((name for name, other in self._known.items() if not other.connections), None)
            if oldest is None:
                break
            del self._known[oldest]
        return one


def _penalty_s(guesses: int) -> float:
    return min(_FIRST_S * 2.0 ** min(guesses - 1, 10), _LONGEST_S) if guesses else 0.0


def group(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 an IPv6 host chooses its addresses from."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Budget:
    """How many bytes one connection may still send: a viewer types a key now and then, whatever more is no viewer."""

    BURST_BYTES = 128 << 10
    REFILL_BPS = 2048.0

    def __init__(self, now_s: float) -> None:
        self._left = float(self.BURST_BYTES)
        self._seen_s = now_s

    def take(self, count: int, now_s: float) -> bool:
        """Take `count` bytes; False when there are not so many."""
        self._left = min(self.BURST_BYTES, self._left + (now_s - self._seen_s) * self.REFILL_BPS) - count
        self._seen_s = now_s
        return self._left >= 0
