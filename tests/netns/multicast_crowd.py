"""Receivers that harm a session: too slow, too greedy, gone, or babbling; and how the others fare beside them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloner_core.multicast.sealing import Opener, ReportSealer
from cloner_core.multicast.sender import Pace, Sent
from cloner_core.multicast.session import Leaving
from cloner_core.multicast.wire import HEADER, PROOF_BYTES, REPAIRS_MOST, VERSION, Flag, Kind, Report, Sync
from cloner_multicast.receiving import Seat
from cloner_multicast.sockets import ReceiverSocket, SenderSocket
from netns.multicast_yard import FORGED_BYTES, LINGERS_S, Ended, Show, Stage, forged, group, stage, yard

RATE_BPS = 50e6
_SLOW_PARCEL_S = 1.0  # a hundred times what the others take
_VANISHES_S = 0.4
_REPORT_S = 0.01
_HARM_S = 60.0


class Ill(StrEnum):
    """What is wrong with a receiver."""

    SLOW = "slow"  # writes a hundred times slower than the others
    GREEDY = "greedy"  # asks for all combinations, and all parcels again
    VANISHING = "vanishing"  # is gone in the middle
    BABBLING = "babbling"  # says what nobody can read, with and without its keys


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session went."""

    ended: list[Ended]  # of those who are well
    well_s: float  # until all of those had everything
    sent: Sent
    left: Mapping[int, Leaving | None]  # as the sender knows it


def play(directory: Path, receivers: int, parcels: int, ill: Mapping[int, Ill], *, seed: int = 1) -> Outcome:
    """Run one session of so many receivers, some of them ill, over a bridge that loses nothing."""
    well = [number for number in range(receivers) if number not in ill]
    with yard(receivers) as made, stage(directory, made, parcels, 200_000, seed) as it:
        it.pace = Pace(RATE_BPS, RATE_BPS / 40)
        for number in well:
            it.receive(number)
        fallible = {number: _begin(it, number, what) for number, what in ill.items()}
        it.send()
        it.show.wait_seated(1, range(receivers))
        begun_s = time.monotonic()
        if vanishing := [fallible[number] for number, what in ill.items() if what is Ill.VANISHING]:
            time.sleep(_VANISHES_S)
            for process in vanishing:
                process.kill()
        ended = it.ended(*well)
        well_s = time.monotonic() - begun_s - LINGERS_S
        sent, left = it.fates()
    return Outcome(ended, well_s, sent, left)


def _begin(it: Stage, number: int, what: Ill) -> Any:
    if what is Ill.SLOW:
        return it.receive(number, parcel_s=_SLOW_PARCEL_S)
    harm: dict[Ill, Callable[..., None]] = {Ill.GREEDY: crave, Ill.BABBLING: babble}
    if what in harm:
        return it.start(harm[what], number + 1, it.show, number, it.made.address(number + 1))
    return it.receive(number)


def crave(show: Show, number: int, _address: str) -> None:
    """Be a receiver that asks for everything, again and again."""
    opened, seat = _sit(show, number)
    opener, sealer = (
        Opener(seat.group_key, seat.stream),
        ReportSealer(seat.own_key, seat.stream),
    )
    acked = clock = counter = 0
    ends_s = time.monotonic() + _HARM_S
    count = len(show.contents)
    while time.monotonic() < ends_s:
        while (read := opened.receive()) is not None:
            for message in opener.open(*read):
                if isinstance(message, Sync):
                    clock = message.clock_ms
                last = message.sequence if isinstance(message, Sync) else message.sequence + message.count - 1
                acked = max(acked, last)
        counter += 1
        needs = tuple((parcel, 0xFFFF) for parcel in range(min(count, REPAIRS_MOST)))
        report = Report(number, counter, clock, acked, Flag(0), 0.0, 16, 0, needs, ((0, count),))
        opened.answer(sealer.seal(report), seat.sender)
        time.sleep(_REPORT_S)


def babble(show: Show, number: int, address: str) -> None:
    """Be a receiver that says what nobody can read: noise, reports of others, and garbage under its own key."""
    opened, seat = _sit(show, number)
    chance = random.Random(number)
    encrypt = AESGCM(seat.own_key).encrypt
    to_group = SenderSocket(group(), address)
    ends_s = time.monotonic() + _HARM_S
    counter = 0
    while time.monotonic() < ends_s:
        counter += 1
        noise = chance.randbytes(chance.randrange(1, 1400))
        foreign = HEADER.pack(VERSION, Kind.REPORT, 0, seat.stream, counter, chance.randrange(number + 1))
        own = HEADER.pack(VERSION, Kind.REPORT, 0, seat.stream, counter, number)
        sealed = encrypt(own[4:], noise, own[:4])
        for datagram in (
            noise,
            noise[:PROOF_BYTES] + foreign + noise,
            sealed[-PROOF_BYTES:] + own + sealed[:-PROOF_BYTES],
        ):
            opened.answer(datagram, seat.sender)
        to_group.send(forged(chance, seat.stream), FORGED_BYTES)
        time.sleep(0.002)


def _sit(show: Show, number: int) -> tuple[ReceiverSocket, Seat]:
    opened = ReceiverSocket(group())
    seat = show.join(number)
    assert isinstance(seat, Seat), seat
    return opened, seat
