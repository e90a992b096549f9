"""Sessions over real sockets and an unruly wire: every live receiver ends with every parcel, and nothing wrong."""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloner_core.multicast.sender import Pace
from netns.multicast_yard import Ended, Stage, Yard, stage, start, yard
from netns.unruly_wire import Counts, Manners, carry
from soak.book import Entry
from soak.law import Case, Figures, Law, require, share

_MOST_S = 60.0
_GONE_S = 5.0
_RATE_BPS = 40e6  # what a wire in Python carries to six ports without losing more than it is told to
_PARCEL_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What chance chose for one session."""

    manners: tuple[Manners, ...]  # of the sender's port, then of each receiver's
    parcels: int
    killed: tuple[tuple[float, int], ...]  # receivers that are killed and begin anew: after seconds, which
    sender_killed_s: float  # 0: never

    @property
    def receivers(self) -> int:
        return len(self.manners) - 1


def draw(seed: int) -> Scene:
    """Return the scene of a seed."""
    chance = random.Random(seed)
    receivers = chance.randint(2, 6)
    killed = sorted(
        (chance.uniform(0.05, 1.0), number) for number in range(receivers) if receivers > 1 and chance.random() < 0.15
    )
    return Scene(
        tuple(_manners(chance) for _ in range(receivers + 1)),
        chance.randint(8, 30),
        tuple(killed),
        chance.uniform(0.1, 0.8) if chance.random() < 0.25 else 0.0,
    )


def _manners(chance: random.Random) -> Manners:
    """Up to 10 % of loss in all, by single datagrams, by runs of them, or by both."""
    loss = chance.choice((0.0, chance.uniform(0, 0.02), chance.uniform(0.02, 0.05)))
    return Manners(
        loss=loss,
        bursts=chance.choice((0.0, chance.uniform(0, 0.003))),  # 16 datagrams in the mean
        duplicates=chance.choice((0.0, chance.uniform(0, 0.1))),
        late=chance.choice((0.0, chance.uniform(0, 0.2))),
        late_s=chance.uniform(0.001, 0.02),
    )


@contextmanager
def open_wires(work: Path) -> Iterator[Case]:
    """Nothing is shared: each case makes its namespaces, and takes them away."""
    yield lambda seed: _try(work / str(seed), seed)


def _try(directory: Path, seed: int) -> Figures:
    directory.mkdir()
    scene, counts, begun_s = draw(seed), Counts(), time.monotonic()
    with yard(scene.receivers, is_bridged=False) as made:
        with stage(directory, made, scene.parcels, _PARCEL_BYTES, seed) as it:
            it.pace = Pace(_RATE_BPS, _RATE_BPS / 40)
            it.watch(start(carry, made.hub, made.ports, scene.manners, seed, counts))
            played = Played(it, scene)
            played.play()
            ended = played.end()
            combinations = sum(it.total(stream).combinations for stream in played.finished)
        took_s = time.monotonic() - begun_s
        _require_nothing_left(made)
    require_whole(ended, scene.parcels)
    return {
        "receivers": float(scene.receivers),
        "seconds": round(took_s, 2),
        "datagrams carried": float(counts.carried),
        "datagrams lost": float(counts.lost),
        "datagrams doubled": float(counts.doubled),
        "datagrams overtaken": float(counts.delayed),
        "combinations": float(combinations),
        "receivers killed": float(len(scene.killed)),
        "senders killed": float(played.senders_killed),
    }


@dataclass
class Played:
    """A scene as it goes on."""

    stage: Stage
    scene: Scene
    senders_killed: int = 0

    def __post_init__(self) -> None:
        self.finished = [1]  # epochs that told what they sent: those that were not killed
        self._numbers = {place: place for place in range(self.scene.receivers)}  # of who is at a place now
        self._next = self.scene.receivers

    def play(self) -> None:
        """Begin, and have happen what the scene says, when it says."""
        it, scene = self.stage, self.scene
        if scene.killed or scene.sender_killed_s:
            it.show.hold()
        running = [it.receive(place) for place in range(scene.receivers)]
        sender = it.send()
        it.show.wait_seated(1, range(scene.receivers))
        begun_s = time.monotonic()
        for at_s, place in sorted([*scene.killed, *([(scene.sender_killed_s, -1)] if scene.sender_killed_s else [])]):
            time.sleep(max(0.0, begun_s + at_s - time.monotonic()))
            if place >= 0:
                running[place].kill()
                running[place].join()
                it.show.leave(self._numbers[place])
                self._numbers[place], self._next = self._next, self._next + 1
                running[place] = it.receive(self._numbers[place], place=place)
            else:
                sender.kill()
                sender.join()
                self.senders_killed += 1
                self.finished = [2]
                sender = it.send(2, numbers=list(self._numbers.values()), seated=0)
        if scene.killed or scene.sender_killed_s:
            self._await_seats(2 if self.senders_killed else 1)
            it.show.let_go()

    def _await_seats(self, stream: int) -> None:
        """Wait until all have a seat in the epoch that runs, but those who needed none any more."""
        until_s = time.monotonic() + _MOST_S
        while not set(self._numbers.values()) <= self.stage.show.seated(stream) | self.stage.show.gone():
            require(time.monotonic() < until_s, "receivers do not come to the epoch that is sent")
            time.sleep(0.02)

    def end(self) -> list[Ended]:
        """Return what became of those who live."""
        try:
            return self.stage.ended(*self._numbers.values(), within_s=_MOST_S)
        except queue.Empty:
            done = sorted(self.stage.show.gone())
            raise TimeoutError(f"of receivers {sorted(self._numbers.values())} only {done} ended") from None


def require_whole(ended: Sequence[Ended], parcels: int) -> None:
    """Raise LawBrokenError unless each receiver has every parcel, and nothing else."""
    for number, got, left, state in ended:
        lacking = sorted(set(range(parcels)) - set(got))
        require(not lacking, f"receiver {number} lacks {lacking} of {parcels} parcels (left: {left!r}, {state})")
        require(left is None, f"receiver {number} has everything, and left: {left!r}")
        require(not state.poisoned, f"receiver {number} put {state.poisoned} parcels together wrongly")
        require(not state.forged, f"receiver {number} saw {state.forged} forged datagrams, and nobody forged")


def _require_nothing_left(made: Yard) -> None:
    until_s = time.monotonic() + _GONE_S
    while pids := made.pids():
        require(time.monotonic() < until_s, f"processes are left in the namespaces: {pids}")
        time.sleep(0.05)


def _enough(entries: Sequence[Entry]) -> str:
    """Say what hardly any of the sessions had."""
    wanted = ("datagrams lost", "datagrams doubled", "datagrams overtaken", "receivers killed", "senders killed")
    seen = {name: share(entries, lambda figures, name=name: bool(figures.get(name))) for name in wanted}  # type: ignore[misc]
    return ", ".join(f"{name} in {part:.0%} of the sessions" for name, part in seen.items() if part < 0.1)


LAW = Law(
    "multicast-net",
    "over a wire that loses, doubles and swaps, whoever is killed, every live receiver ends with every parcel",
    500,
    open_wires,
    enough=_enough,
)
