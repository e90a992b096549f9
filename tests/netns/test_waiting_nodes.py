"""Simulated machines that wait before a real server: called, they go on in the same boot; sent away, they restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbench.ground import Ground, ground
from agentbench.yard import End

pytestmark = [pytest.mark.root]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        for _ in range(3):
            made.add()
        yield made


def who_waits(made: Ground) -> list[str]:
    came = {event["object"] for event in made.events(after=0, limit=10_000) if event["what"] == "waits"}
    return sorted(name.partition("/")[2] for name in came)


def netboot(made: Ground, value: str, *nodes: str) -> None:
    made.served.admin("POST", "/netboot", json={"nodes": nodes, "value": value})


def until_waiting(made: Ground, *nodes: str) -> None:
    ends_s = time.monotonic() + 60
    while who_waits(made) != sorted(nodes):
        assert time.monotonic() < ends_s, f"{who_waits(made)} wait: {made.yard.machines[0].console.read_text()[-600:]}"
        made.yard.wait(0.2)


def test_who_waits_writes_nothing_and_goes_on_without_another_boot(made: Ground) -> None:
    machines = made.yard.machines
    before = [one.machine.disk.digest() for one in machines]
    netboot(made, "cloner-multicast", "n001", "n002", "n003")
    for one in machines:
        made.yard.switch_on(one)
    until_waiting(made, "n001", "n002", "n003")
    made.yard.wait(3)
    assert [one.machine.disk.digest() for one in machines] == before
    assert all("waits since" in one.console.read_text() for one in machines)
    netboot(made, "local", "n003")
    made.deploy(machines[0], machines[1])
    made.yard.run(deadline_s=120)
    assert [one.ends for one in machines[:2]] == [[End.RESTARTED, End.CLONE]] * 2, "one restart: into the clone"
    assert machines[2].ends == [End.RESTARTED, End.FORMER]
    assert "waits no longer: netboot of n003 is local now" in machines[2].console.read_text()
    assert machines[2].machine.disk.digest() == before[2]
    assert {made.task(one)["state"] for one in machines[:2]} == {"done"}


def test_a_server_that_was_away_calls_who_still_waits(made: Ground) -> None:
    one = made.yard.machines[0]
    netboot(made, "cloner-multicast", "n001")
    made.yard.switch_on(one)
    until_waiting(made, "n001")
    made.served.kill()
    made.yard.wait(4)
    made.served.start()
    made.deploy(one)
    made.yard.run([one], deadline_s=120)
    assert one.ends == [End.RESTARTED, End.CLONE]
