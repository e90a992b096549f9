"""The peers of a sender: nodes with a receiver, at their speed and with their losses, and others that mean harm."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from cloner_core.multicast.gathering import Gathering
from cloner_core.multicast.receiver import Receiver
from cloner_core.multicast.sealing import Opener, ReportSealer
from cloner_core.multicast.session import Leaving
from cloner_core.multicast.wire import REPAIRS_MOST, Flag, Kind, Report, Run, Sync
from multicastsim.losses import Loss, Losses

if TYPE_CHECKING:
    from multicastsim.world import World

_SERVER_S = 0.05  # that an answer of the server takes
_ASK_S = 1.0  # between two questions to the server
_MANY = 30  # reports, where one is due


@dataclass(frozen=True, slots=True)
class Traits:
    """How one node is."""

    loss: Loss = field(default=Loss(0.0))
    report_loss: float = 0.0
    delay_s: float = 0.0002
    jitter_s: float = 0.0  # some runs come later than others that were sent after them
    duplicates: float = 0.0  # part of the runs that come twice
    rate: float = inf  # datagrams a second it can take; what is beyond its buffer is lost
    buffer: int = 20_000  # datagrams
    write_s: float = 0.0  # for one parcel; the next waits for it
    stands_s: float = inf  # from then on it does nothing, and what comes is lost, until it wakes
    wakes_s: float = 0.0
    joins_s: float = 0.0
    dies_s: float = inf
    returns_s: float = inf  # after it died, with the parcels it had written

    @property
    def is_ordinary(self) -> bool:
        """Whether it must get everything by multicast alone."""
        is_steady = self.rate == inf and self.dies_s == inf and self.stands_s == inf
        return is_steady and self.loss.part <= 0.15 and self.write_s < 0.02


class Peer:
    """A node: a receiver, and what a driver does for it."""

    def __init__(self, world: World, traits: Traits, seed: int) -> None:
        self.traits = traits
        self.left: Leaving | None = None
        self.finished_s = inf
        self.written: set[int] = set()
        self.over_https = 0
        self.receiver: Receiver | None = None
        self.most_held = 0
        self.poisoned = 0
        self.rejected = 0
        self._world = world
        self._chance = random.Random(seed)
        self._losses = Losses(traits.loss, self._chance)
        self._opener: Opener | None = None
        self._sealer: ReportSealer | None = None
        self._tick_s = inf
        self._backlog = self._backlog_s = 0.0
        self._disk_free_s = 0.0
        self._asked_s = 0.0
        self._life = 0  # how often it died

    @property
    def is_alive(self) -> bool:
        return self.receiver is not None

    @property
    def is_still(self) -> bool:
        return self.traits.stands_s <= self._world.events.now_s < self.traits.wakes_s

    @property
    def is_finished(self) -> bool:
        return len(self.written) == len(self._world.truth)

    def join(self) -> None:
        """Check in at the server and begin to listen."""
        now_s = self._world.events.now_s
        seat = self._world.check_in()
        if seat is None:
            if self._world.is_over:
                self._leave(Leaving.OVER)
            else:
                self._world.events.at(now_s + _ASK_S, self.join)
            return
        session, number = seat
        if self.receiver is None:
            self.receiver = Receiver(session, number, self._chance.random, now_s)
            for parcel in self.written:
                self.receiver.note(parcel)
            self._watch()
        else:
            self.receiver.enter(session.stream, number, now_s)
        if self._world.is_sealed:
            self._opener = Opener(self._world.group_key, session.stream)
            self._sealer = ReportSealer(self._world.receiver_key(number), session.stream)

    def die(self) -> None:
        """Lose power: what was not written is lost."""
        self.receiver = None
        self._life += 1

    def hear(self, message: Run | Sync) -> None:
        """Have what the sender sent arrive here, or not, now or later."""
        if self.receiver is None or self.left is not None or self.is_still:
            return
        if isinstance(message, Sync):
            if any(True for _ in self._losses.arrive(1, self._world.events.now_s)):
                self._pass(message)
            return
        for first, count in self._losses.arrive(message.count, self._world.events.now_s):
            self._pass(message if count == message.count else self._world.cut(message, first, count))

    def _pass(self, message: Run | Sync) -> None:
        traits, world = self.traits, self._world
        delay_s = 0.0
        if traits.rate != inf:
            count = message.count if isinstance(message, Run) else 1
            now_s = world.events.now_s
            self._backlog = max(0.0, self._backlog - (now_s - self._backlog_s) * traits.rate)
            self._backlog_s = now_s
            if self._backlog + count > traits.buffer:
                return
            self._backlog += count
            delay_s = self._backlog / traits.rate
        if traits.jitter_s and self._chance.random() < 0.1:
            delay_s += self._chance.random() * traits.jitter_s
        if delay_s:
            life, epoch = self._life, world.epoch
            world.events.at(
                world.events.now_s + delay_s,
                lambda: self._take(message) if (life, epoch) == (self._life, world.epoch) else None,
            )
        else:
            self._take(message)
        if traits.duplicates and self._chance.random() < traits.duplicates:
            self._take(message)

    def _take(self, message: Run | Sync) -> None:
        if self.receiver is None or self.receiver.session.stream != self._world.epoch:
            return  # of an epoch whose key it has not yet
        messages: list[Run | Sync] = [message]
        if self._opener is not None:
            messages = self._world.seal_and_open(message, self._opener)
        self.receiver.accept(messages, self._world.events.now_s)
        self._work()

    def hear_bytes(self, data: bytes, segment_bytes: int, *, is_altered: bool) -> None:
        """Have datagrams of a stranger arrive: `is_altered`, the sender's heads are above other bytes."""
        if self.receiver is None or self._opener is None:
            return
        was_strict = self._opener.is_strict
        messages = self._opener.open(data, segment_bytes)
        rejects = self._opener.rejects
        self.rejected = rejects.foreign + rejects.forged
        if was_strict or not is_altered:
            self._world.wrong += len(messages)  # nothing of a stranger is ever opened
        self.receiver.accept(messages, self._world.events.now_s)
        self._work()

    def _work(self) -> None:
        """Do what a driver does after each datagram and timer."""
        receiver, world = self.receiver, self._world
        assert receiver is not None
        while receiver.ready:
            self._write(receiver.ready.popleft())
        if receiver.reports:
            for report in receiver.reports:
                if self._chance.random() >= self.traits.report_loss:
                    world.report(report, self._sealer, self.traits.delay_s)
            receiver.reports.clear()
        self.most_held = max(self.most_held, world.session.window_parcels - receiver.room)
        if receiver.left is not None and self.left is None and not self.is_finished:
            self._leave(receiver.left)
            return
        due_s = receiver.due_s
        if due_s < self._tick_s:
            self._tick_s = due_s
            world.events.at(due_s, self._tick)

    def _tick(self) -> None:
        self._tick_s = inf
        if self.is_still:
            self._tick_s = self.traits.wakes_s
            self._world.events.at(self._tick_s, self._tick)
        elif self.receiver is not None:
            self.receiver.tick(self._world.events.now_s)
            self._work()

    def _write(self, gathering: Gathering) -> None:
        world, parcel = self._world, gathering.parcel
        data = gathering.finish(world.session.parcels[parcel].digest, world.content, world.bench)
        if data is None:
            self.poisoned += 1
            assert self.receiver is not None
            self.receiver.settle(parcel, is_good=False)
            return
        if bytes(data) != world.truth[parcel]:
            world.wrong += 1
        if not self.traits.write_s:
            self._written(parcel)
            return
        life = self._life
        self._disk_free_s = max(self._disk_free_s, world.events.now_s) + self.traits.write_s
        world.events.at(self._disk_free_s, lambda: self._written(parcel) if life == self._life else None)

    def _written(self, parcel: int) -> None:
        assert self.receiver is not None
        self.receiver.settle(parcel, is_good=True)
        self.written.add(parcel)
        if self.is_finished:
            self.finished_s = self._world.events.now_s
            self._world.finished(self)

    def _watch(self) -> None:
        """Ask the server for a seat when the sender is silent, as every agent does."""
        receiver, events, world = self.receiver, self._world.events, self._world
        if receiver is None or self.left is not None or self.is_finished:
            return
        is_other = world.is_over or (world.is_up and receiver.session.stream != world.epoch)
        if is_other and receiver.is_stale(events.now_s) and not self.is_still:
            self.join()
        life = self._life
        events.at(events.now_s + _ASK_S, lambda: self._watch() if life == self._life else None)

    def _leave(self, reason: Leaving) -> None:
        """Fetch the rest over HTTPS."""
        self.left = reason
        world = self._world
        missing = [parcel for parcel in range(len(world.truth)) if parcel not in self.written]
        self.over_https = len(missing)
        self.written.update(missing)
        self.finished_s = world.events.now_s + _SERVER_S
        if self.receiver is not None:
            for parcel in missing:
                self.receiver.note(parcel)
        world.finished(self)


class Greedy(Peer):
    """A member that asks for everything, again and again."""

    def _work(self) -> None:
        receiver, world = self.receiver, self._world
        assert receiver is not None
        if receiver.reports:
            last = receiver.reports[-1]
            parcels = len(world.truth)
            needs = tuple((self._chance.randrange(parcels), 0xFFFF) for _ in range(16))
            receiver.reports[-1] = replace(last, flags=Flag(0), needs=needs, wants=((0, parcels),))
        super()._work()


class Insatiable(Peer):
    """A member that says at each sync that it has everything, and asks for everything."""

    _said = 0

    def hear(self, message: Run | Sync) -> None:
        super().hear(message)
        receiver, world = self.receiver, self._world
        if receiver is None or self.left is not None or not isinstance(message, Sync):
            return
        self._said += 1
        parcels = len(world.truth)
        open_parcels = [parcel for parcel, _, _ in message.repairs] or list(range(min(parcels, REPAIRS_MOST)))
        needs = tuple((parcel, 0xFFFF) for parcel in open_parcels)
        clock_ms, acked = message.clock_ms, message.sequence
        report = Report(
            receiver.number, self._said, clock_ms, acked, Flag.DONE, 0.0, 16, parcels, needs, ((0, parcels),)
        )
        world.report(report, self._sealer, self.traits.delay_s)

    def _work(self) -> None:
        assert self.receiver is not None
        self.receiver.reports.clear()
        super()._work()


class Staller(Peer):
    """A member that has room for one parcel while any is to be sent, and has never seen the one begun last."""

    _seen = 0
    _is_ending = False

    def hear(self, message: Run | Sync) -> None:
        if isinstance(message, Sync):
            self._is_ending = not message.plan
        elif message.kind == Kind.BLOCKS and not message.first:
            self._seen = max(0, message.sequence - 2)
        super().hear(message)

    def _work(self) -> None:
        receiver = self.receiver
        assert receiver is not None
        if not self._is_ending:
            receiver.reports[:] = [
                replace(report, acked=min(report.acked, self._seen), room=1) for report in receiver.reports
            ]
        super()._work()


class Alarmist(Peer):
    """A member that says many times over that it loses nearly everything, and then nothing, in turn."""

    def _work(self) -> None:
        receiver = self.receiver
        assert receiver is not None
        loss = 0.9 * (int(self._world.events.now_s * 4) % 2)
        receiver.reports[:] = [
            replace(report, counter=_MANY * report.counter + at, loss=loss)
            for report in receiver.reports
            for at in range(_MANY)
        ]
        super()._work()


class Silent(Peer):
    """A member that listens and never says a word."""

    def _work(self) -> None:
        assert self.receiver is not None
        self.receiver.reports.clear()
        super()._work()


class Liar(Peer):
    """A member that sends well-sealed reports of nonsense."""

    def _work(self) -> None:
        chance, receiver = self._chance, self.receiver
        assert receiver is not None
        receiver.reports[:] = [
            Report(
                report.receiver,
                report.counter,
                chance.getrandbits(32),
                chance.choice((0, report.acked, 0xFFFFFFFF)),
                Flag(chance.randrange(8)),
                chance.random(),
                chance.choice((0, 1, 0xFFFF)),
                chance.getrandbits(32),
                tuple((chance.getrandbits(chance.choice((3, 32))), chance.getrandbits(16)) for _ in range(20)),
                tuple((chance.getrandbits(chance.choice((3, 32))), chance.getrandbits(32)) for _ in range(16)),
            )
            for report in receiver.reports
        ]
        super()._work()


class Poisoner(Peer):
    """A member that has the group's key, and sends false blocks and combinations in the sender's name."""

    falsehoods = 6

    def hear(self, message: Run | Sync) -> None:
        super().hear(message)
        if self.falsehoods and isinstance(message, Run) and self._chance.random() < 0.1:
            self.falsehoods -= 1
            payload = self._chance.randbytes(len(message.payload))
            kind = self._chance.choice((message.kind, message.kind, Kind.COMBINATIONS))
            false = replace(message, kind=kind, payload=payload)
            for peer in self._world.peers:
                if peer is not self and self._chance.random() < 0.5:
                    peer._take(false)
