"""A fleet of simulated machines cloned at once, some of them ill: what the admin is told, and what mends it."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from agentbench import faults
from agentbench.ground import Ground
from agentbench.honesty import require_honest
from agentbench.simulated import Spoil
from agentbench.wire import Mode
from agentbench.yard import Running
from cloner_agent.efivars import EfiVars
from cloner_core.messages import Cause, Stage


@dataclass(frozen=True)
class Illness:
    """One way to fail: how a machine gets it, and what it is to be called."""

    name: str
    cause: Cause
    stage: Stage
    spoil: Spoil | None = None
    prepare: Callable[[Running], object] = lambda one: None
    mend: Callable[[Running], object] = lambda one: None
    has_wire: bool = False


def _cut(one: Running) -> None:
    assert one.wire is not None
    one.at[Stage.RESTORE] = lambda one: one.wire.set(Mode.CUT) if one.wire else None


def _have_patience(one: Running) -> None:
    one.machine.patience_s = 600.0


def _heal_disk(one: Running) -> None:
    one.machine.disks[0] = replace(one.machine.disk, size_bytes=8 << 30)


ILLNESSES = (
    Illness(
        "disk too small",
        Cause.DISK_TOO_SMALL,
        Stage.PLAN,
        prepare=lambda one: faults.tight_disk(one.machine),
        mend=_heal_disk,
    ),
    Illness(
        "two disks alike",
        Cause.AMBIGUOUS_DISK,
        Stage.PLAN,
        prepare=lambda one: faults.second_disk(one.machine),
        mend=lambda one: one.machine.disks.pop(),
    ),
    Illness(
        "disk error",
        Cause.DISK_IO,
        Stage.MKFS,
        spoil=faults.program_fails("mkfs.ext4", "mkfs.ext4: Input/output error while writing out and closing"),
    ),
    Illness("other bytes read back", Cause.READBACK, Stage.READBACK, spoil=faults.flips_a_byte()),
    Illness("network gone", Cause.NETWORK, Stage.RESTORE, prepare=_cut, mend=_have_patience, has_wire=True),
    Illness("firmware forgets", Cause.NVRAM, Stage.NVRAM),
)


_MANY = 100
_PATIENCE_S, _PATIENCE_OF_MANY_S = 2.0, 120.0
"""Of a machine whose cable is going to be cut; not so little that it gives up a server that is only busy."""


@dataclass
class Fleet:
    """The machines of one run and what became of them."""

    ground: Ground
    count: int
    seed: int
    ill_count: int = 12
    ill: dict[str, Illness] = field(default_factory=dict)  # by name of the machine
    former: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # phases

    def add(self) -> None:
        """Put all machines into the yard; chance chooses the ill ones, the same number of each kind."""
        chosen = random.Random(self.seed).sample(range(self.count), self.ill_count)
        kinds = {number: ILLNESSES[index % len(ILLNESSES)] for index, number in enumerate(chosen)}
        started_s = time.monotonic()
        for number in range(self.count):
            illness = kinds.get(number)
            one = self.ground.add(has_wire=illness is not None and illness.has_wire)
            if illness is not None:
                self.ill[one.machine.name] = illness
                one.machine.spoil = illness.spoil
                if illness.cause is Cause.NVRAM:
                    one.machine.variables = faults.ForgetfulVariables
                illness.prepare(one)
                if illness.has_wire:
                    one.machine.patience_s = _PATIENCE_S if self.count < _MANY else _PATIENCE_OF_MANY_S
            self.former[one.machine.name] = one.machine.disk.digest()
        self.seconds["add"] = time.monotonic() - started_s

    def deploy(self, deadline_s: float) -> None:
        """Arm all as a person would, switch all on at once, and wait until each has come to something."""
        nodes = f"n[001-{self.count:03d}]"
        with self._timed("arm"):
            self.ground.cloner("deploy", "--nodes", nodes, "--max", str(self.count), "--yes")
        with self._timed("first pass"):
            self.ground.yard.run(deadline_s=deadline_s)
            for one in self.ground.yard.machines:
                if one.wire is not None:
                    one.wire.set(Mode.OPEN)  # somebody plugs the cable in again, and the agent can say what it met
            self.ground.settle()

    def retry(self, deadline_s: float) -> None:
        """Mend what was ill, queue the failed again by the one command, restart the machines."""
        again = [one for one in self.ground.yard.machines if one.machine.name in self.ill]
        for one in again:
            self.ill[one.machine.name].mend(one)
            one.machine.spoil, one.machine.variables = None, EfiVars
        with self._timed("retry"):
            self.ground.cloner("task", "retry", "--failed", "--max", str(len(again)), "--yes")
            self.ground.yard.again(*again)
            self.ground.yard.run(deadline_s=deadline_s)

    def states(self) -> Counter[str]:
        """Return how many tasks are in which state."""
        return Counter(task["state"] for task in self.ground.tasks())

    def misnamed(self, groups: Sequence[dict[str, object]]) -> list[str]:
        """Return what `cloner failures` says otherwise than the illnesses were: one group each, and its very nodes."""
        wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
        for name, illness in self.ill.items():
            wanted[illness.cause.value, illness.stage.value].add(name)
        told = {(str(group["cause"]), ",".join(map(str, _list(group["stages"])))): _names(group) for group in groups}
        both = told.keys() | wanted.keys()
        return [
            f"{key}: {sorted(told.get(key, set()))} told, {sorted(wanted.get(key, set()))} ill"
            for key in sorted(both)
            if told.get(key) != wanted.get(key)
        ]

    def require_honest(self) -> None:
        """Hold every machine to the law of all failures."""
        for one in self.ground.yard.machines:
            require_honest(self.ground, one, former=self.former[one.machine.name])

    def _timed(self, what: str) -> _Timed:
        return _Timed(self.seconds, what)


@dataclass
class _Timed:
    seconds: dict[str, float]
    what: str
    started_s: float = 0.0

    def __enter__(self) -> None:
        self.started_s = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.what] = time.monotonic() - self.started_s


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _names(group: dict[str, object]) -> set[str]:
    from ClusterShell.NodeSet import NodeSet

    return set(NodeSet(str(group["nodes"])))
