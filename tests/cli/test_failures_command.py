"""What failed is shown by cause and model with what mends it, queued again as a set, and explained by bundles."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
import pytest

from clibench.desk import Desk
from cloner_core.bundle import Bundle, Part
from cloner_core.errors import ExitStatus, failed_status
from cloner_core.facts import Dmi
from cloner_core.messages import Cause, Failure, Granted, Stage
from serverbench.scene import Agent, facts

NO_DISK = Failure(Stage.PLAN, Cause.NO_DISK, "no disk like 'S4*'", "add one", False)
NETWORK = Failure(Stage.RESTORE, Cause.NETWORK, "30 minutes", "look", True)


def fail(desk: Desk, number: int, failure: Failure, product: str = "R640") -> Agent:
    name, mac = f"n{number:02}", f"52:54:00:00:00:{number:02}"
    desk.scene.add_node(name, mac)
    desk.scene.arm(name, has_identity=False)
    machine = msgspec.structs.replace(facts(mac), dmi=Dmi(product=product))
    agent = Agent(desk.scene, machine)
    agent.hello(desk.scene.mint(name))
    agent.fail(failure)
    return agent


@pytest.fixture
def four(desk: Desk) -> Desk:
    """Four nodes that failed in three ways."""
    fail(desk, 1, NO_DISK)
    fail(desk, 2, NO_DISK)
    fail(desk, 3, NETWORK)
    fail(desk, 4, NETWORK, product="evil\x1b[2J")
    return desk


def test_nothing_failed_is_a_success(desk: Desk) -> None:
    result = desk.run("failures")
    assert (result.exit_code, result.stdout) == (0, "nothing failed\n")
    assert desk.json("failures")["groups"] == []


def test_failures_are_grouped_with_one_line_that_mends_each(four: Desk) -> None:
    result = four.run("failures")
    assert result.exit_code == failed_status(4) == 24
    blocks = result.stdout.split("\n\n")
    assert blocks[0].splitlines()[0] == "2 nodes: no-disk in plan, on R640"
    assert "n[01-02]" in blocks[0]
    assert "no disk like 'S4*'" in blocks[0]
    assert "1 of 1 have lost their old content" in blocks[1]
    assert len(blocks) == 3
    assert "\x1b" not in result.stdout


def test_failures_of_some_nodes_only(four: Desk) -> None:
    result = four.run("failures", "--nodes", "n[02-03]", "--json")
    told = msgspec.json.decode(result.stdout)
    assert [(group["cause"], group["nodes"]) for group in told["groups"]] == [("network", "n03"), ("no-disk", "n02")]
    assert result.exit_code == 22
    assert four.refused("failures", "--nodes", "n[01-09]").exit_code == ExitStatus.NOT_FOUND
    assert four.refused("failures", "--nodes", "n[01").exit_code == ExitStatus.USAGE


def test_the_line_that_mends_can_be_typed(four: Desk) -> None:
    told = msgspec.json.decode(four.run("failures", "--json").stdout)
    lines = {(group["cause"], group["model"]): group["mend"] for group in told["groups"]}
    retry = shlex.split(lines["network", "R640"].split("; then: ")[1])
    assert four.run(*retry[1:], "--yes").stdout == "task 3 is queued\n"
    deploy = shlex.split(lines["no-disk", "R640"].split("; then: ")[1])
    assert four.run(*deploy[1:], "--dry-run").exit_code == 0


def test_retry_of_the_failed_wants_a_yes_and_has_a_dry_run(four: Desk) -> None:
    assert four.refused("task", "retry", "--failed").exit_code == ExitStatus.REFUSED
    before = four.scene.state_dump()
    assert four.run("task", "retry", "--failed", "--dry-run").stdout.count("would be queued") == 4
    assert four.scene.state_dump() == before
    four.has_terminal = True
    assert four.refused("task", "retry", "--failed", typed="n\n").exit_code == ExitStatus.REFUSED
    result = four.run("task", "retry", "--failed", "--nodes", "n[01,03]", typed="y\n")
    assert "task 1 is queued\ntask 3 is queued" in result.stdout
    assert "n03: golden:1, failed in restore (network)" in result.stderr
    assert four.scene.netboot("n02") == "local"


def test_retry_of_many_wants_their_number(four: Desk) -> None:
    four.has_terminal = True
    assert four.refused("task", "retry", "--failed", "--max", "3", "--yes", typed="3\n").exit_code == 4
    assert four.run("task", "retry", "--failed", "--max", "3", "--yes", typed="4\n").exit_code == 0


def test_retry_by_cause_leaves_the_others(four: Desk) -> None:
    tasks = four.json("task", "retry", "--failed", "--cause", "no-disk", "--yes")
    assert [task["node"] for task in tasks] == ["n01", "n02"]
    assert four.json("task", "retry", "--failed", "--cause", "no-disk", "--yes") == []
    assert four.run("failures").exit_code == 22


def test_retry_waits_and_tells_how_many_are_not_done(four: Desk) -> None:
    def world(turn: int) -> None:
        for number in (1, 2) if turn == 2 else ():
            machine = facts(f"52:54:00:00:00:{number:02}")
            agent = Agent(four.scene, msgspec.structs.replace(machine, dmi=Dmi(product="R640")))
            agent.hello(four.scene.mint(f"n{number:02}"))
            agent.fail(NO_DISK)

    four.on_sleep = world
    result = four.run("task", "retry", "--failed", "--cause", "no-disk", "--wait", "--yes")
    assert result.exit_code == 22
    assert "2 of 2 tasks did not end well" in result.stderr
    four.on_sleep = lambda _: None
    assert four.run("task", "retry", "1", "--wait", "--timeout", "5", "--yes").exit_code == ExitStatus.TIMEOUT
    assert four.json("task", "retry", "--failed", "--cause", "tool", "--wait", "--yes") == []


@pytest.mark.parametrize(
    "words",
    [(), ("1", "--failed"), ("1", "--nodes", "n01"), ("1", "--cause", "tool"), ("--failed", "--cause", "bad luck")],
)
def test_one_task_or_the_failed_of_a_set(four: Desk, words: tuple[str, ...]) -> None:
    assert four.refused("task", "retry", *words, "--yes").exit_code == ExitStatus.USAGE


@pytest.fixture
def bundled(desk: Desk) -> Desk:
    agent = fail(desk, 1, NETWORK)
    parts = (Part("log", "one\x1b[2J\ntwo"), Part("command-line", "cloner.claim=CANARY5f0c1d2e"))
    agent.told("bundle", Granted, Bundle(NETWORK, "1", 5.0, parts))
    return desk


def test_a_bundle_is_shown_and_written(bundled: Desk, tmp_path: Path) -> None:
    path = tmp_path / "bundle.txt"
    assert "cloner task bundle 1" in bundled.run("failures").stdout
    shown = bundled.run("task", "bundle", "1").stdout
    assert "===== log =====\none\\x1b[2J\ntwo\n" in shown
    assert "CANARY" not in shown
    assert bundled.run("task", "bundle", "1", "--to", str(path)).stdout == ""
    assert path.read_text() == shown
    assert bundled.json("task", "bundle", "1")["bundle"]["parts"][1]["text"] == "cloner.claim=***"


def test_a_bundle_overwrites_nothing(bundled: Desk, tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("mine")
    assert bundled.refused("task", "bundle", "1", "--to", str(path)).exit_code == ExitStatus.CONFLICT
    assert path.read_text() == "mine"


def test_a_task_without_a_bundle_says_so(four: Desk) -> None:
    result = four.refused("task", "bundle", "1")
    assert result.exit_code == ExitStatus.NOT_FOUND
    assert "cloner task log 1" in result.stderr
