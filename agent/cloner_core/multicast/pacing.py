"""How fast a sender sends: never above its cap, never below its floor, and slower where slower loses less."""

from __future__ import annotations

FRAME_BYTES = 42
"""Ethernet, IPv4 and UDP headers of each datagram, which a rate counts."""
FRAME6_BYTES = FRAME_BYTES + 20
"""The same over IPv6."""
_RISE = 1.05
_SMALL_LOSS = 0.02
_HELPED = 0.7


class RateControl:
    """Tells loss of crowding from loss of the wire by trying: one goes away with a slower rate, the other does not."""

    def __init__(self, cap_bps: float, floor_bps: float) -> None:
        self.cap_bps = cap_bps
        self.floor_bps = min(floor_bps, cap_bps)
        self.rate_bps = cap_bps
        self._own_loss = 0.0  # of the wire, whatever the rate
        self._tried: tuple[float, float] | None = None  # rate and loss before it was made slower

    def limit(self, cap_bps: float, floor_bps: float) -> None:
        """Keep between other bounds from now on; a higher cap is reached by and by."""
        self.cap_bps = cap_bps
        self.floor_bps = min(floor_bps, cap_bps)
        self.rate_bps = max(self.floor_bps, min(cap_bps, self.rate_bps))
        self._tried = None

    def observe(self, loss: float) -> None:
        """Take the loss that most receivers had at the present rate; to be called a few times a second."""
        if self._tried is not None:
            rate_bps, before = self._tried
            self._tried = None
            if loss > _HELPED * before:
                self.rate_bps, self._own_loss = rate_bps, before
            return
        if loss > self._own_loss + _SMALL_LOSS and self.rate_bps > self.floor_bps:
            self._tried = self.rate_bps, loss
            self.rate_bps = max(self.floor_bps, self.rate_bps * (1 - loss) * 0.95)
            return
        self._own_loss = min(self._own_loss, max(loss, self._own_loss * 0.95))
        self.rate_bps = min(self.cap_bps, self.rate_bps * _RISE)


class Pacer:
    """Spreads bytes over time; what was not sent for long is not made up for."""

    _BEHIND_S = 0.02  # by how much a sender that was not scheduled, or made combinations, may catch up

    def __init__(self, now_s: float) -> None:
        self.free_s = now_s

    def take(self, count_bytes: int, rate_bps: float, now_s: float) -> None:
        """Account for bytes sent now."""
        self.free_s = max(self.free_s, now_s - self._BEHIND_S) + count_bytes * 8 / rate_bps
