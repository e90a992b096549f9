"""A rate that several threads keep to together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloner_cli.pacing import PIECE_BYTES, Pacer
from cloner_core.sizes import format_rate, parse_rate


class Clock:
    """A clock on which waiting takes no time of ours."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now_s += seconds


def test_what_is_sent_is_whole_and_takes_its_time() -> None:
    clock = Clock()
    pacer = Pacer(PIECE_BYTES, monotonic=lambda: clock.now_s, sleep=clock.sleep)
    content = bytes(range(256)) * (PIECE_BYTES * 5 // 512)  # two pieces and a half
    assert b"".join(pacer.pieces(content)) == content
    assert clock.now_s == pytest.approx(2.0)  # the first goes at once, the third begins after two
    assert b"".join(pacer.pieces(b"")) == b""


def test_threads_share_one_rate() -> None:
    """Each waits for its turn: together they take as long as one that sends all of it."""
    waits: list[float] = []
    pacer = Pacer(PIECE_BYTES, monotonic=lambda: 0.0, sleep=waits.append)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: list(pacer.pieces(bytes(PIECE_BYTES * 3))), range(4)))
    assert sorted(waits) == [float(turn) for turn in range(1, 12)]


def test_a_pause_is_not_made_up_for() -> None:
    clock = Clock()
    pacer = Pacer(PIECE_BYTES, monotonic=lambda: clock.now_s, sleep=clock.sleep)
    list(pacer.pieces(bytes(PIECE_BYTES)))
    clock.now_s = 100.0
    list(pacer.pieces(bytes(PIECE_BYTES * 3)))
    assert clock.now_s == pytest.approx(102.0)


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [("100Mbit", 12_500_000), ("1.5 Gbit/s", 187_500_000), ("64kbit", 8000), ("12MiB", 12 << 20), ("10MB/s", 10**7)],
)
def test_rates_are_read_in_bits_and_bytes(text: str, bytes_per_s: int) -> None:
    assert parse_rate(text) == bytes_per_s


@pytest.mark.parametrize("text", ["", "100", "fast", "0Mbit", "-1MiB", "0.000001kbit", "1e3Mbit", "100mbit"])
def test_what_is_no_rate_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("rate_bps", "text"),
    [(0, "0 bit/s"), (999.4, "999 bit/s"), (64e3, "64 kbit/s"), (700e6, "700 Mbit/s"), (1.5e9, "1.5 Gbit/s")],
)
def test_a_rate_is_told_as_links_are(rate_bps: float, text: str) -> None:
    assert format_rate(rate_bps) == text
