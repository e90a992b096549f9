"""A node that waits says so for as long as the server wants, goes on when it is called, and only reads meanwhile."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentbench.runner import FakeRunner, reads
from agentbench.sysfs import Sysfs
from cloner_agent.client import Endpoint, Transport
from cloner_agent.console import Console
from cloner_agent.discover import Surroundings
from cloner_agent.host import Runner
from cloner_agent.probe import probe
from cloner_agent.protocol import ServerFault
from cloner_agent.site import BootArguments, Trust
from cloner_agent.waiting import wait_for_session
from cloner_core.facts import Facts
from cloner_core.messages import PROTOCOL, Fault, Secret
from cloner_core.seats import HELD_S, CheckIn, WaitHello, WaitReply

ARGUMENTS = BootArguments("10.0.0.1", 8443, "c" * 40, "52:54:00:00:00:01", is_debug=False, is_wait=True)
NOON_S = 1_763_726_400.0  # 2025-11-21 12:00 UTC
CALLED = WaitReply("go", "n01", "task 9", claim=Secret("d" * 40))


def _wait(text: str = "waits for a session", at_s: float = 0.0) -> WaitReply:
    return WaitReply("wait", "n01", text, server_time_s=NOON_S + at_s)


@dataclass
class World:
    """A server that gives its answers one by one, each held for so long, and the machine."""

    answers: list[WaitReply | Exception | bytes]
    directory: Path
    held_s: float = HELD_S
    breaks: bool = False
    now_s: float = 0.0
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    patience_s: float = 0.0
    slept: list[float] = field(default_factory=list)
    reboots: int = 0
    said: io.StringIO = field(default_factory=io.StringIO)
    runner: FakeRunner = field(default_factory=FakeRunner)

    def wait(self) -> str:
        sysfs = Sysfs(self.directory)
        sysfs.disk("vda", "254:0", at="pci0000:00/0000:00:04.0/virtio2", serial="golden-1")
        sysfs.partition("vda", "vda1", "254:1")

        def look(run: Runner, *, boot_mac: str = "") -> Facts:
            if self.breaks:
                raise OSError(5, "Input/output error")
            return probe(run, boot_mac=boot_mac, root=str(sysfs.root), properties=lambda _: {}, addresses=dict)

        surroundings = Surroundings(
            run=self.runner, probe=look, reboot=self._reboot, sleep=self._sleep, transport=self._transport
        )
        trust = Trust("", b"")
        return wait_for_session(Console(self.said), ARGUMENTS, trust, surroundings, clock=lambda: self.now_s)

    def _transport(self, _: Endpoint, patience_s: float) -> Transport:
        self.patience_s = patience_s
        return _Answers(self)

    def _reboot(self) -> None:
        self.reboots += 1

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class _Answers(Transport):
    def __init__(self, world: World) -> None:
        super().__init__(Endpoint("10.0.0.1", 8443, ""))
        self._world = world

    def request(self, method: str, path: str, body: bytes = b"", **more: Any) -> bytes:
        world = self._world
        assert more["read_s"] > HELD_S, "an answer that is held would be taken for a server that is away"
        world.asked.append((path, body))
        answer = world.answers.pop(0)
        if len(world.asked) > 1:
            world.now_s += world.held_s
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else msgspec.json.encode(answer)


def test_a_node_that_is_called_goes_on_without_a_restart(tmp_path: Path) -> None:
    world = World([_wait(), _wait(at_s=25), CALLED], tmp_path)
    assert world.wait() == "d" * 40
    assert world.reboots == 0
    assert [path for path, _ in world.asked] == ["/agent/v1/wait", *["/agent/v1/wait/check-in"] * 2]
    hello = msgspec.json.decode(world.asked[0][1], type=WaitHello)
    check_in = msgspec.json.decode(world.asked[1][1], type=CheckIn)
    assert (hello.protocol, hello.claim) == (PROTOCOL, ARGUMENTS.claim)
    assert [disk.serial for disk in hello.facts.disks] == ["golden-1"]
    assert check_in == CheckIn(ARGUMENTS.claim, hello.public_key)
    assert "n01: called: task 9" in world.said.getvalue()
    assert "dddd" not in world.said.getvalue()
    assert ARGUMENTS.claim not in world.said.getvalue()


def test_it_may_be_called_at_once(tmp_path: Path) -> None:
    assert World([CALLED], tmp_path).wait() == "d" * 40


def test_a_server_that_is_away_is_waited_for_without_end(tmp_path: Path) -> None:
    world = World([CALLED], tmp_path)
    world.wait()
    assert world.patience_s == float("inf")


def test_one_that_is_to_leave_restarts_and_says_why(tmp_path: Path) -> None:
    world = World([_wait(), WaitReply("leave", "n01", "no session called it within 2 h")], tmp_path)
    assert world.wait() == ""
    assert world.reboots == 1
    assert "n01: waits no longer: no session called it within 2 h" in world.said.getvalue()
    assert "CLONER REBOOT waiting ended" in world.said.getvalue()


def test_it_shows_since_when_it_waits_and_for_what(tmp_path: Path) -> None:
    hour = [_wait(at_s=25.0 * turn) for turn in range(144)]
    world = World([*hour, _wait("for 3 more nodes", at_s=3600), CALLED], tmp_path)
    world.wait()
    lines = [line for line in world.said.getvalue().splitlines() if "waits since" in line]
    assert lines[0] == "cloner: n01: waits since 12:00 UTC (0 min): waits for a session"
    assert lines[-1] == "cloner: n01: waits since 12:00 UTC (60 min): for 3 more nodes"
    assert 30 < len(lines) <= 62, "a line a minute, and one for each news"


def test_a_server_that_holds_nothing_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    world = World([*[_wait()] * 10, CALLED], tmp_path, held_s=0.0)
    world.wait()
    assert sum(world.slept) >= 9 * 2.0


def test_one_whose_answers_are_held_does_not_sleep_as_well(tmp_path: Path) -> None:
    world = World([*[_wait()] * 10, CALLED], tmp_path)
    world.wait()
    assert world.slept == []


@pytest.mark.parametrize(
    ("answers", "shown"),
    [
        ([ServerFault(401, Fault("the claim is unknown or expired"))], "the claim is unknown or expired"),
        ([_wait(), ServerFault(409, Fault("the claim was used before"))], "the claim was used before"),
        ([b'{"order":"dance"}'], "is not understood"),
        ([WaitReply("go", "n01", "task 9")], "gives it no claim"),
    ],
    ids=["hello refused", "check-in refused", "another protocol", "no claim"],
)
def test_one_that_cannot_wait_says_so_and_restarts(
    tmp_path: Path, answers: list[WaitReply | Exception | bytes], shown: str
) -> None:
    world = World(answers, tmp_path)
    assert world.wait() == ""
    assert world.reboots == 1
    assert "CLONER FAILED" in world.said.getvalue()
    assert shown in world.said.getvalue()
    assert world.slept == [15.0]


def test_a_machine_that_cannot_be_looked_at_says_so_and_restarts(tmp_path: Path) -> None:
    world = World([], tmp_path, breaks=True)
    assert world.wait() == ""
    assert world.reboots == 1
    assert "Input/output error" in world.said.getvalue()


def test_only_programs_that_read_are_run(tmp_path: Path) -> None:
    world = World([_wait(), CALLED], tmp_path)
    world.wait()
    assert world.runner.ran, "the disk was looked into"
    assert [argv for argv in world.runner.ran if not reads(argv)] == []
