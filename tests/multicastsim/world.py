"""One session from its first datagram to the last node that has everything, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from cloner_core.image.digest import digest
from cloner_core.multicast.combining import Workbench
from cloner_core.multicast.content import Content
from cloner_core.multicast.sealing import Opener, ReportOpener, ReportSealer, Sealer
from cloner_core.multicast.sender import WAIT_S, Pace, Sender, Sent
from cloner_core.multicast.session import Parcel, Session, group_key, receiver_key
from cloner_core.multicast.wire import OVERHEAD_BYTES, Phase, Report, Run, Sync
from multicastsim.events import Events
from multicastsim.losses import Loss, Losses
from multicastsim.peers import Alarmist, Greedy, Insatiable, Liar, Peer, Poisoner, Silent, Staller, Traits

WIRE_BLOCK_BYTES = 1440
"""What a block counts on the wire of this world, however few bytes stand for it."""
_UP_S = 0.2  # that a server needs to begin an epoch anew

PEERS: dict[str, type[Peer]] = {
    "node": Peer,
    "greedy": Greedy,
    "insatiable": Insatiable,
    "silent": Silent,
    "alarmist": Alarmist,
    "staller": Staller,
    "liar": Liar,
    "poisoner": Poisoner,
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that is so in one run; chance within it follows from `seed`."""

    seed: int
    parcel_blocks: tuple[int, ...]
    peers: tuple[tuple[str, Traits], ...]  # what kind of peer (PEERS), and how it is
    rate_bps: float = 1e9
    shared_loss: Loss = field(default=Loss(0.0))
    block_bytes: int = 16
    window_parcels: int = 16
    is_sealed: bool = False
    forged: float = 0.0  # datagrams of a stranger for each burst of the sender's
    restarts_s: tuple[float, ...] = ()
    floor: float = 0.05  # of the rate
    gathers_s: float = 0.0  # that each epoch polls its receivers before it sends
    limit_s: float = 60.0  # beyond the time the parcels take three times


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    seconds: float
    faults: list[str] = field(default_factory=list)
    overhead: float = 0.0  # wire bytes beyond those of each block once, headers and syncs apart
    reports_per_s: float = 0.0  # at the sender
    unasked: int = 0
    sent: Sent = field(default_factory=Sent)
    left: dict[str, int] = field(default_factory=dict)
    over_https: int = 0  # parcels
    receivers: int = 0
    epochs: int = 0
    poisoned: int = 0  # parcels that were whole and not what they should be
    forged: int = 0  # datagrams of strangers that receivers dropped
    altered: int = 0  # reports that bytes were altered
    done_s: float = 0.0  # when the last ordinary node had everything


class World:
    """Runs a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.events = Events()
        self.wrong = 0
        self.is_hasty = False  # data was sent before it was to begin
        self.is_over = False
        self.is_sealed = scenario.is_sealed
        self._chance = random.Random(scenario.seed)
        self.truth = [self._make_parcel(blocks) for blocks in scenario.parcel_blocks]
        parcels = tuple(Parcel(digest(data), len(data)) for data in self.truth)
        self.session = Session(1, parcels, scenario.block_bytes, scenario.window_parcels)
        self.sents: list[Sent] = []
        self.is_up = False
        self._numbers = 0
        self._unfinished = len(scenario.peers)
        self._finished: set[Peer] = set()
        self._shared = Losses(scenario.shared_loss, self._chance)
        self._wire_free_s = 0.0
        self._next_s = inf
        self._first_parcel = 0
        # Until then somebody may still come, so the server ends no session.
        self._last_s = max([*scenario.restarts_s, *(_latest(traits) for _, traits in scenario.peers)], default=0.0)
        self._begin_epoch()
        self.peers = [PEERS[kind](self, traits, self._chance.getrandbits(32)) for kind, traits in scenario.peers]

    def _make_parcel(self, blocks: int) -> bytes:
        size = blocks * self.scenario.block_bytes
        return self._chance.randbytes(size - self._chance.randrange(self.scenario.block_bytes))

    # The server

    @property
    def epoch(self) -> int:
        """The stream of the present epoch."""
        return self.session.stream

    def _begin_epoch(self) -> None:
        if self.is_over:
            return
        scenario = self.scenario
        if self.sents:
            self.session = replace(self.session, stream=self.session.stream + 1)
        self._master = self._chance.randbytes(32)
        self.group_key = group_key(self._master)
        self.content = Content(self.group_key)
        self.bench = Workbench()
        self._sealer = Sealer(self.group_key, self.session.stream, scenario.block_bytes)
        self._given: set[int] = set()
        self._report_opener = ReportOpener(
            lambda number: self.receiver_key(number) if number in self._given else None, self.session.stream
        )
        # Rates count what datagrams of the wire have; the sender here sends smaller ones.
        small = scenario.block_bytes + OVERHEAD_BYTES + 42
        scale = small / (WIRE_BLOCK_BYTES + OVERHEAD_BYTES + 42)
        self.sender = Sender(
            self.session,
            self._sent,
            Pace(scenario.rate_bps * scale, scenario.rate_bps * scale * scenario.floor),
            self.events.now_s,
            first_combination=self._chance.getrandbits(16),
            parcels=range(self._first_parcel, len(self.truth)),
            is_gathering=scenario.gathers_s > 0,
        )
        if scenario.gathers_s:
            self.events.at(self.events.now_s + scenario.gathers_s, self._beginner(self.sender))
        self.sents.append(self.sender.sent)
        self.is_up = True
        self._send_at(self.events.now_s)

    def _beginner(self, sender: Sender) -> Callable[[], None]:
        def begin() -> None:
            if sender.sent.blocks or sender.sent.combinations:
                self.is_hasty = True
            sender.begin(self.events.now_s)
            self._send_at(self.events.now_s)

        return begin

    def _sent(self, parcel: int) -> memoryview:
        return self.content.encrypted(parcel, self.truth[parcel])

    def receiver_key(self, number: int) -> bytes:
        """Return what a receiver with this number seals by."""
        return receiver_key(self._master, number)

    def check_in(self) -> tuple[Session, int] | None:
        """Give a node a seat in the present epoch; None when there is none."""
        if not self.is_up or self.is_over:
            return None
        self._numbers += 1
        self._given.add(self._numbers)
        self.sender.admit(self._numbers, self.events.now_s)
        self._send_at(self.events.now_s)
        return self.session, self._numbers

    def kill_sender(self) -> None:
        """Kill the sender; a while later another goes on from the parcel that was noted last."""
        if self.is_over or not self.is_up:
            return
        self.is_up = False
        begun = len(self.truth) - self.sender.progress
        self._first_parcel = self._chance.randint(0, max(0, begun))
        self.events.at(self.events.now_s + _UP_S, self._begin_epoch)

    def finished(self, peer: Peer) -> None:
        """Take that a peer has everything."""
        if peer not in self._finished:
            self._finished.add(peer)
            self._unfinished -= 1

    # The wire

    def _send_at(self, when_s: float) -> None:
        if when_s < self._next_s:
            self._next_s = when_s
            self.events.at(when_s, self._send)

    def _send(self) -> None:
        now_s = self.events.now_s
        if now_s < self._next_s:
            return
        self._next_s = inf
        if not self.is_up:
            return
        message = self.sender.next(now_s)
        if message is None:
            if self.sender.is_over:
                self.is_up = False
                self.is_over = True
                return
            # A server also hears over HTTPS that nodes have everything, or are gone.
            if (self.sender.is_finished or not self._unfinished) and now_s > self._last_s:
                self.sender.close()
            self._send_at(max(self.sender.due_s(), now_s + WAIT_S))
            return
        self._hostile(message)
        count = message.count if isinstance(message, Run) else 1
        self._wire_free_s = max(self._wire_free_s, now_s) + count * 1514 * 8 / self.scenario.rate_bps
        epoch = self.epoch
        self.events.at(self._wire_free_s + 0.0001, lambda: self._arrive(message) if epoch == self.epoch else None)
        self._send_at(self._wire_free_s)

    def _arrive(self, message: Run | Sync) -> None:
        count = message.count if isinstance(message, Run) else 1
        for first, many in list(self._shared.arrive(count, self.events.now_s)):
            piece = message if isinstance(message, Sync) or many == count else self.cut(message, first, many)
            for peer in self.peers:
                peer.hear(piece)

    def cut(self, run: Run, first: int, count: int) -> Run:
        """Return a part of a run."""
        size = self.scenario.block_bytes
        payload = run.payload[first * size : (first + count) * size]
        return Run(run.kind, run.parcel, run.first + first, count, run.sequence + first, payload)

    def seal_and_open(self, message: Run | Sync, opener: Opener) -> list[Run | Sync]:
        """Return what a receiver makes of the datagrams of `message`."""
        segment_bytes = self._sealer.segment_bytes
        data = self._sealer.seal(message)
        return opener.open(data, segment_bytes if isinstance(message, Run) else len(data))

    def report(self, report: Report, sealer: ReportSealer | None, delay_s: float) -> None:
        """Have a report arrive at the sender."""
        sender, opener, data = self.sender, self._report_opener, sealer.seal(report) if sealer else b""

        def arrive() -> None:
            if not self.is_up:
                return
            opened = opener.open(data) if sealer else report if sender is self.sender else None
            if opened is not None:
                sender.receive(opened, self.events.now_s)
                self._send_at(max(self.sender.due_s(), self.events.now_s))

        self.events.at(self.events.now_s + delay_s, arrive)

    # Strangers

    def _hostile(self, message: Run | Sync) -> None:
        """Have a stranger send what needs no key: garbage, changed datagrams, those of an epoch that is over.

        Altered bytes below a head that is right are found out when a parcel is whole, and from then on at once.
        """
        if not self.is_sealed or self._chance.random() >= self.scenario.forged:
            return
        data, segment = bytearray(self._sealer.seal(message)), self._sealer.segment_bytes
        is_altered = False
        match self._chance.randrange(5):
            case 0:
                data = bytearray(self._chance.randbytes(self._chance.randrange(100)))
            case 1:
                for at in range(0, len(data), segment):
                    data[min(len(data) - 1, at + self._chance.randrange(OVERHEAD_BYTES))] ^= (
                        1 << self._chance.randrange(8)
                    )
            case 2:
                wrong = Sealer(bytes(16), self.session.stream, self.scenario.block_bytes)
                over = Sync(0xFFFFFFFE, 0, Phase.OVER, 0, 1)
                data = bytearray(wrong.seal(self._chance.choice((message, over))))
            case 3 if isinstance(message, Run):
                is_altered = True
                for at in range(0, len(data), segment):
                    data[at + OVERHEAD_BYTES] ^= 1 << self._chance.randrange(8)
            case _:
                old = Sealer(group_key(bytes(32)), self.session.stream - 1, self.scenario.block_bytes)
                data = bytearray(old.seal(message))
        for peer in self.peers:
            peer.hear_bytes(bytes(data), segment, is_altered=is_altered)
        self._report_opener.open(bytes(data))

    # The whole

    def run(self) -> Outcome:
        """Run to the end, or to the limit, and judge it."""
        scenario = self.scenario
        blocks = sum(scenario.parcel_blocks)
        gathers_s = scenario.gathers_s * (1 + len(scenario.restarts_s))
        limit_s = scenario.limit_s + gathers_s + self._last_s + 3 * blocks * 1514 * 8 / scenario.rate_bps
        for peer in self.peers:
            self.events.at(peer.traits.joins_s, peer.join)
            if peer.traits.dies_s < inf:
                self.events.at(peer.traits.dies_s, self._killer(peer))
        for when_s in scenario.restarts_s:
            self.events.at(when_s, self.kill_sender)
        while not self.is_over and self.events.now_s < limit_s and self.events.step():
            pass
        ended_s = self.events.now_s
        # Who is behind learns that it is over when it has read what waits for it.
        unread_s = max(peer.traits.buffer / peer.traits.rate for peer in self.peers)
        while self._unfinished and self.events.now_s < ended_s + 10 + unread_s and self.events.step():
            pass
        return self._judge(limit_s, ended_s)

    def _killer(self, peer: Peer) -> Callable[[], None]:
        def kill() -> None:
            if peer.is_finished or peer.left is not None:
                return
            peer.die()
            if peer.traits.returns_s < inf:
                self.events.at(peer.traits.returns_s, peer.join)
            else:
                self.finished(peer)

        return kill

    def _judge(self, limit_s: float, ended_s: float) -> Outcome:
        outcome = Outcome(ended_s)
        faults = outcome.faults
        if not self.is_over:
            faults.append(f"no end after {limit_s:.1f} s: {self.sender.members.served} are served")
        if self.is_hasty:
            faults.append("data was sent before the sender was to begin")
        if self.wrong:
            faults.append(f"{self.wrong} wrong parcels were handed on")
        scenario = self.scenario
        is_disturbed = bool(scenario.restarts_s) or any(kind == "poisoner" for kind, _ in scenario.peers)
        for peer, (kind, traits) in zip(self.peers, scenario.peers, strict=True):
            if peer.left is not None:
                outcome.left[peer.left.name] = outcome.left.get(peer.left.name, 0) + 1
                outcome.over_https += peer.over_https
            if peer.most_held > scenario.window_parcels:
                faults.append(f"{kind} held {peer.most_held} parcels, its window has {scenario.window_parcels}")
            if traits.dies_s < inf and traits.returns_s == inf:
                continue
            if not peer.is_finished:
                faults.append(f"{kind} has {len(peer.written)} of {len(self.truth)} parcels")
            elif kind == "node" and traits.is_ordinary and peer.over_https and not is_disturbed:
                left = peer.left.name if peer.left else ""
                faults.append(f"an ordinary node fetched {peer.over_https} parcels over HTTPS: {left}")
            if kind == "node" and traits.is_ordinary:
                outcome.done_s = max(outcome.done_s, peer.finished_s)
        blocks = sum(scenario.parcel_blocks)
        sent = self.sents
        outcome.receivers, outcome.epochs = len(self.peers), len(sent)
        outcome.poisoned = sum(peer.poisoned for peer in self.peers)
        outcome.forged = sum(peer.rejected for peer in self.peers)
        outcome.altered = sum(sent.altered for sent in self.sents)
        data = sum(one.blocks + one.combinations for one in sent)
        outcome.overhead = data / blocks - 1
        outcome.sent = sent[-1]
        reports = sum(one.reports for one in sent)
        outcome.unasked = sum(one.unasked for one in sent)
        outcome.reports_per_s = reports / max(ended_s, 1e-9)
        return outcome


def _latest(traits: Traits) -> float:
    return max(when for when in (traits.joins_s, traits.dies_s, traits.returns_s, 0.0) if when < inf)
