"""What a machine says of itself may be anything: refused at the edge or shown harmlessly, never a fault of ours."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloner_core.describing import describe_content, describe_disk
from cloner_core.facts import Disk, Signature
from cloner_core.messages import HelloReply, PlanReport
from cloner_core.plan import PlanError, make_plan, render
from serverbench.scene import LAYOUT, Agent, Scene, facts

DISKS: dict[str, dict[str, Any]] = {
    "no sectors": {"sector_bytes": 0},
    "negative sectors": {"sector_bytes": -512},
    "odd sectors": {"sector_bytes": 513},
    "sectors bigger than a disk": {"sector_bytes": 1 << 40},
    "more bytes than there are": {"size_bytes": 1 << 70},
    "negative size": {"size_bytes": -1},
    "the biggest size there is": {"size_bytes": (1 << 63) - 1},
    "no path": {"path": ""},
    "a path that is a command": {"path": "/dev/vda; reboot"},
    "a path of a file": {"path": "/dev/../etc/passwd"},
    "a serial that is a line": {"serial": "X\nrm -rf /\n"},
    "a serial without end": {"serial": "X" * 100_000},
    "a label that is a line": {"signatures": [{"device": "/dev/vda1", "kind": "ext4", "label": "\nrm -rf /\n"}]},
}


@pytest.mark.parametrize("name", DISKS)
def test_hostile_disks_are_no_fault_of_the_server(scene: Scene, name: str) -> None:
    scene.add_node()
    scene.arm(has_identity=False)
    told = msgspec.to_builtins(facts())
    told["disks"][0].update(DISKS[name])
    agent = Agent(scene)
    answer = agent.try_hello(scene.mint(), facts=told)
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert "facts.disks" in answer.json()["error"], "names the field"
        return
    agent.reply = msgspec.json.decode(answer.content, type=HelloReply)
    assert agent.post("plan", PlanReport(digest="00" * 32, rendered="")).status_code == 409
    shown = scene.admin("GET", "/plan/n01")
    assert shown.status_code in (200, 409)
    assert "rm -rf /" not in shown.json().get("rendered", "").splitlines()


@pytest.mark.parametrize("fields", [{"memory_bytes": -1}, {"memory_bytes": 1 << 80}, {"cpu_count": 1 << 40}], ids=str)
def test_hostile_machines_are_refused(scene: Scene, fields: dict[str, int]) -> None:
    scene.add_node()
    scene.arm(has_identity=False)
    answer = Agent(scene).try_hello(scene.mint(), facts=msgspec.to_builtins(facts()) | fields)
    assert answer.status_code == 400
    assert next(iter(fields)) in answer.json()["error"]


def test_a_disk_is_described_on_one_line() -> None:
    disk = Disk(
        path="/dev/vda",
        size_bytes=1,
        serial="a\nb\x1b[2J",
        model="\u2028",
        signatures=(Signature("/dev/vda1", "x\r\n", label="l\n"),),
    )
    for text in (describe_disk(disk), *describe_content(disk)):
        assert text.isprintable()


def test_no_line_of_a_plan_comes_from_the_machine() -> None:
    from cloner_core.layout import parse_layout

    machine = facts(serial="X\nrm -rf /\n")
    try:
        plan = make_plan(
            machine, parse_layout(LAYOUT), node="n", image="i:1", version_digest="0" * 64, seed="0" * 64, contents=()
        )
    except PlanError as error:
        pytest.fail(error.message)
    assert "rm -rf /" not in render(plan).splitlines()
