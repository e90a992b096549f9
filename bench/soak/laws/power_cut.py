"""A machine whose power is cut anywhere in a deploy comes by itself to a clone that is whole and confirmed.

A real server, firmware, network boot, agent and clone; the machine's disk is served by `vmlab.nbd`, so a cut loses what
was not flushed. The restart at the end of a deploy is a power cut too: the plug is pulled when the kernel says that it
restarts, before QEMU can flush anything as it does when it ends well. What is on the disk then is compared with the
golden tree before the clone may boot from it.
"""

from __future__ import annotations

import dataclasses
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak.book import Entry
from soak.law import Case, Figures, Law, require
from soak.machine_room import DISK_BYTES, NODES, MachineRoom
from vmlab import Lab, Machine, Nic, Vm, blank_disk, host
from vmlab.comparison import esp_faults, unexpected_differences
from vmlab.golden_busybox import MARKER
from vmlab.nbd import NbdDisk
from vmlab.offline import esp_files, partitions, repaired
from vmlab.scene import Node
from vmlab.volatile import Loss

MARKER_POLL_S = 0.01  # the firmware's variables are written within a tenth of a second
STAGE_S = 900  # until a stage is reached
AGENT_S = 1200  # a whole attempt, the wait for the former one to be lost included
BOOT_S = 900
CONFIRM_S = 600
MOST_ATTEMPTS = 3
ENDED_BADLY = ("failed", "aborted", "frozen")

# GRUB hands its kernel this word, a loader of the network does not: who has said it booted from the disk.
FROM_DISK = re.compile(r"Command line: \S*BOOT_IMAGE=")
STAGE = re.compile(r"CLONER STAGE (\w+)")
RESTARTS = "reboot: Restarting system"  # of the kernel, its last words


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a deploy in which power may be cut."""

    name: str
    seconds: float  # about what it takes under emulation: the cut comes at a random moment of that, or a little later
    weight: int


SPANS = (
    Span("power-on", 24, 2),  # firmware, loader, kernel, up to the first stage
    Span("hello", 2, 1),
    Span("verify", 0.5, 1),
    Span("plan", 0.2, 1),
    Span("guard", 0.4, 1),
    Span("partition", 1.6, 2),
    Span("mkfs", 1.4, 2),
    Span("mount", 0.8, 1),
    Span("restore", 9, 3),
    Span("readback", 3, 1),
    Span("identity", 0.4, 1),
    Span("bootfiles", 0.7, 1),
    Span("check", 1, 1),
    Span("commit", 1.2, 6),
    Span("nvram", 0.3, 6),
    Span("receipt", 0.1, 4),
    Span("reboot", 0.5, 4),
    Span("clone", 20, 4),  # its first boot
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When the power is cut."""

    span: str
    after_s: float


def choose_moment(chance: random.Random, spans: Sequence[Span] = SPANS) -> Moment:
    """Return a moment anywhere in a deploy, more often where the disk becomes bootable and the server hears of it."""
    (span,) = chance.choices(spans, [span.weight for span in spans])
    return Moment(span.name, round(chance.uniform(0, span.seconds), 3))


class Scene:
    """What all cases share: a room with a server that holds the image, its nodes, and disks that were clones before."""

    def __init__(self, room: MachineRoom, spans: Sequence[Span]) -> None:
        """Power is cut in one of `spans`."""
        self.room, self.spans = room, spans
        self._formers: dict[str, Path] = {}

    def case(self, seed: int) -> Figures:
        """Cut the power of one deploy; what chance decides, the seed does."""
        with self.room.node() as node, _Trial(self, node, seed) as trial:
            return trial.run()

    def keep_former(self, node: Node, disk: Path, variables: Path) -> None:
        """Keep a disk that boots, with the NVRAM that belongs to it, for cases that begin with an old system."""
        former = self.room.lab.directory / f"{node.name}-former"
        _copy(disk, former.with_suffix(".disk"))
        _copy(variables, former.with_suffix(".fd"))
        self._formers[node.name] = former

    def give_former(self, node: Node, disk: Path, variables: Path) -> bool:
        """Put the old system of a node on its disk; False when there is none yet."""
        former = self._formers.get(node.name)
        if former is not None:
            _copy(former.with_suffix(".disk"), disk)
            _copy(former.with_suffix(".fd"), variables)
        return former is not None


class _Trial:
    """One deploy of one node whose power is cut once at a random moment, and again at every restart and at the end."""

    def __init__(self, scene: Scene, node: Node, seed: int) -> None:
        self.scene, self.node = scene, node
        self.chance = random.Random(seed)
        name = f"{node.name}-seed{seed}"
        place = scene.room.lab.directory / name
        self.disk = blank_disk(place.with_suffix(".disk"), DISK_BYTES, serial=node.serial)
        self.nbd = NbdDisk(self.disk.path, place.with_suffix(".nbd"))
        self.variables = place.with_suffix(".fd")
        self.begins = self.chance.choices(("blank", "old"), (3, 2))[0]
        self.has_former = self.begins == "old" and scene.give_former(node, self.disk.path, self.variables)
        attached = dataclasses.replace(self.disk, nbd=self.nbd.address)
        vm = Vm(name, disks=(attached,), nics=(Nic(node.mac),), uuid=node.uuid, variables=self.variables)
        self.machine = Machine(scene.room.lab, vm)
        self.is_verified = False
        self.restarts: list[Loss] = []

    def __enter__(self) -> _Trial:
        self.nbd.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.machine.kill()
        self.nbd.__exit__(None, None, None)
        left = [self.disk.path, self.variables]
        for path in [*left, self.machine.log] if kind is None else left:
            path.unlink(missing_ok=True)

    def run(self) -> Figures:
        moment = choose_moment(self.chance, self.scene.spans)
        if self.begins == "old" and not self.has_former:
            self._deploy()
            self._come_to_done()
            self._lose_power()
            self.scene.keep_former(self.node, self.disk.path, self.variables)
        self._deploy()
        cut_in, seconds, loss = self._cut(moment)
        state = self._state()
        began_s = time.monotonic()
        attempts = self._come_to_done()
        took_s = time.monotonic() - began_s
        self._lose_power()
        self._check_running_clone()
        return {
            "begins": self.begins,
            "chosen": moment.span,
            "cut in": cut_in,
            "cut after s": round(seconds, 1),
            "state at cut": state,
            "kept bytes": loss.kept_bytes,
            "dropped bytes": loss.dropped_bytes,
            "dropped at restarts bytes": sum(one.dropped_bytes for one in self.restarts),
            "attempts after": attempts,
            "back to done s": round(took_s, 1),
        }

    def _deploy(self) -> None:
        self.is_verified = False
        self.scene.room.head.cloner("deploy", "--nodes", self.node.name, "--yes")

    def _cut(self, moment: Moment) -> tuple[str, float, Loss]:
        """Switch on, cut the power at the moment; return what went on then, seconds since power-on, and the loss."""
        if moment.span == "clone":
            self._attempt()
            self._verify()
        before, began_s = len(self.machine.said()), time.monotonic()
        self.machine.start()
        if moment.span == "clone":
            self.machine.wait_for(FROM_DISK.pattern, BOOT_S)
        elif moment.span != "power-on":
            self.machine.wait_for(rf"CLONER STAGE {moment.span}\b", STAGE_S, poll_s=MARKER_POLL_S)
        end_s = time.monotonic() + moment.after_s
        while not (has_restarted := self.machine.has_said(RESTARTS)) and time.monotonic() < end_s:
            time.sleep(MARKER_POLL_S)
        seconds = time.monotonic() - began_s
        loss = self._lose_power()
        said = self.machine.said()[before:]
        stages = STAGE.findall(said)
        if FROM_DISK.search(said):
            cut_in = "clone"
        else:
            cut_in = "restart" if has_restarted else stages[-1] if stages else "power-on"
        require(cut_in != "clone" or moment.span == "clone", "the disk has booted before the server knew of the clone")
        return cut_in, seconds, loss

    def _lose_power(self) -> Loss:
        self.nbd.power_off()
        self.machine.kill()
        return self.nbd.power_on(self.chance)

    def _state(self) -> str:
        return self.scene.room.head.state_of(self.node.name)

    def _come_to_done(self) -> int:
        """Switch on whenever the machine is off until the clone has confirmed; return how many attempts that took."""
        attempts = 0
        while True:
            state = self._state()
            require(state not in ENDED_BADLY, f"the task is {state}")
            if state in ("unconfirmed", "done"):
                if not self.is_verified:
                    self._verify()
                self.machine.start()
                self.machine.wait_for(MARKER, BOOT_S)
                self._wait_done()
                return attempts
            require(attempts < MOST_ATTEMPTS, f"{attempts} attempts did not do it, the task is {state}")
            self._attempt()
            attempts += 1

    def _attempt(self) -> None:
        """Have the machine net and run an attempt, to the restart that follows; that one loses power too."""
        self.machine.start()
        last = self.machine.wait_for(f"{RESTARTS}|{FROM_DISK.pattern}", AGENT_S, poll_s=MARKER_POLL_S)
        self.restarts.append(self._lose_power())
        require(last[0] == RESTARTS, "the disk has booted before the server knew of the clone")

    def _wait_done(self) -> None:
        end_s = time.monotonic() + CONFIRM_S
        while (state := self._state()) != "done":
            require(state not in ENDED_BADLY and time.monotonic() < end_s, f"the clone runs, the task is {state}")
            time.sleep(2)

    def _verify(self) -> None:
        """Hold what survived on the disk to the golden tree and to the receipt, before the clone boots from it."""
        require(self._state() in ("unconfirmed", "done"), f"no receipt: the task is {self._state()}")
        body = self._receipt()
        with repaired(self.disk, 3) as clone:
            differing = unexpected_differences(self.scene.room.tree, clone)
            require(not differing, f"the clone differs from the golden tree: {differing[:5]}")
            self._require_identity(clone, body)
        faults = esp_faults(esp_files(self.disk), self.scene.room.tree)
        require(not faults, f"the ESP is not whole: {faults}")
        self.is_verified = True

    def _check_running_clone(self) -> None:
        """Hold the disk to its receipt after the power of the running clone was cut."""
        with repaired(self.disk, 3) as clone:
            self._require_identity(clone, self._receipt())

    def _require_identity(self, clone: Path, body: dict[str, Any]) -> None:
        seen = {
            "machine_id": (clone / "etc/machine-id").read_text().strip(),
            "root_part_uuid": partitions(self.disk)[2].uuid,
            "node": (clone / "etc/hostname").read_text().strip(),
        }
        wrong = {name: (value, body[name]) for name, value in seen.items() if value != body[name]}
        require(not wrong, f"disk and receipt differ: {wrong}")

    def _receipt(self) -> dict[str, Any]:
        task = self.scene.room.head.task(self.node.name)
        body: dict[str, Any] = self.scene.room.head.json("receipt", "show", task["id"])["receipt"]["body"]
        return body


def _copy(source: Path, target: Path) -> None:
    """Copy into the same file, when there is one: a server may hold it open."""
    host.run(["cp", "--sparse=always", source, target])


def case_in(room: MachineRoom, spans: Sequence[Span] = SPANS) -> Case:
    """Return the case of a room."""
    return Scene(room, spans).case


def power_cut_law(name: str, where: str, count: int, spans: Sequence[Span]) -> Law:
    """Return the law; all cases share one lab, whose scratch lies where temporary files do."""

    @contextmanager
    def opened(work: Path) -> Iterator[Case]:
        with Lab(title=name) as lab:
            yield case_in(MachineRoom(lab), spans)

    says = f"a power cut {where}, on a disk that loses what was not flushed, ends in a whole, confirmed clone"
    return Law(name, says, count, opened, at_once=len(NODES), keeps_cases=True, enough=_enough)


def _enough(entries: Sequence[Entry]) -> str:
    late = sum(entry.figures.get("cut in") == "restart" for entry in entries)
    if late > len(entries) / 2:
        return f"{late} of {len(entries)} cuts came when the attempt was over"
    lossy = sum(bool(entry.figures.get("kept bytes") or entry.figures.get("dropped bytes")) for entry in entries)
    return "" if lossy else "no cut met a write that was not flushed"


LAW = power_cut_law("power-cut", "anywhere in a deploy", 50, SPANS)
