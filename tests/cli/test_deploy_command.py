"""Deploying: what is destroyed is said first, a yes is wanted, and waiting ends with the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus, failed_status
from cloner_core.facts import Signature
from cloner_core.messages import Cause, Failure, Stage
from cloner_server.state import images, layouts, nodes
from cloner_server.tasks import endings
from serverbench.scene import Agent, facts


@pytest.fixture
def two(desk: Desk) -> Desk:
    desk.scene.add_node("n01")
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    return desk


def confirm(desk: Desk, agent: Agent, body: Any) -> None:
    with desk.scene.core.database.write() as connection:
        endings.accept_confirm(connection, desk.scene.core.act("clone"), agent.confirmation(body))


def test_without_a_terminal_nothing_is_destroyed_unless_told(two: Desk) -> None:
    result = two.refused("deploy", "--nodes", "n[01-02]")
    assert result.exit_code == ExitStatus.REFUSED
    assert "--yes" in result.stderr


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_no_is_no_and_so_is_silence(two: Desk, answer: str) -> None:
    two.has_terminal = True
    result = two.refused("deploy", "--nodes", "n01", typed=answer)
    assert result.exit_code == ExitStatus.REFUSED


def test_an_interrupted_question_changes_nothing(two: Desk) -> None:
    two.has_terminal = True
    assert two.refused("deploy", "--nodes", "n01", typed="").exit_code == ExitStatus.INTERRUPTED


def test_yes_at_the_terminal_arms_every_node(two: Desk) -> None:
    two.has_terminal = True
    result = two.run("deploy", "--nodes", "n[01-02]", typed="y\n")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "n01: task 1\nn02: task 2\n"
    assert (two.scene.netboot("n01"), two.scene.netboot("n02")) == ("cloner", "cloner")


def test_the_disks_that_would_be_destroyed_are_named(two: Desk) -> None:
    machine = facts(serial="SER\x1b[31mIAL")
    with two.scene.core.database.write() as connection:
        nodes.remember_facts(connection, two.scene.core.act("test"), "n01", machine)
    result = two.refused("deploy", "--nodes", "n01")
    assert "DESTROYS /dev/vda (VirtDisk serial SER\\x1b[31mIAL, 8.0 GiB)" in result.stderr
    assert "\x1b" not in result.output


def test_what_is_on_a_disk_is_named_before_it_is_lost(two: Desk) -> None:
    machine = facts()
    root = Signature("/dev/vda3", "ext4", "u-1", "root", system="Debian GNU/Linux 12 (bookworm), host db01")
    disk = msgspec.structs.replace(machine.disks[0], signatures=(Signature("/dev/vda", "gpt"), root))
    with two.scene.core.database.write() as connection:
        known = msgspec.structs.replace(machine, disks=(disk,))
        nodes.remember_facts(connection, two.scene.core.act("test"), "n01", known)
    on_it = "/dev/vda3: ext4 'root'%s with Debian GNU/Linux 12 (bookworm), host db01"
    assert f"8.0 GiB): /dev/vda: gpt; {on_it % ''}\n" in two.run("deploy", "-n", "n01", "--dry-run").stdout
    assert on_it % " u-1" in two.run("plan", "n01").stdout


def test_a_dry_run_says_everything_and_changes_nothing(two: Desk) -> None:
    before = two.scene.state_dump()
    intents = two.json("deploy", "--nodes", "n[01-02]", "--dry-run")
    assert [(each["node"], each["version"], each["task_id"]) for each in intents] == [("n01", 1, ""), ("n02", 1, "")]
    assert "n01: golden:1 with layout simple:1" in two.run("deploy", "-n", "n01", "--dry-run").stdout
    assert two.scene.state_dump() == before


def test_above_the_limit_yes_is_not_enough(two: Desk) -> None:
    result = two.refused("deploy", "--nodes", "n[01-02]", "--max", "1", "--yes")
    assert result.exit_code == ExitStatus.REFUSED
    assert "--max 2" in result.stderr


def test_above_the_limit_the_number_must_be_typed(two: Desk) -> None:
    two.has_terminal = True
    assert two.refused("deploy", "--nodes", "n[01-02]", "--max", "1", typed="3\n").exit_code == ExitStatus.REFUSED
    result = two.run("deploy", "--nodes", "n[01-02]", "--max", "1", typed="2\ny\n")
    assert result.exit_code == 0, result.stderr
    assert two.scene.netboot("n02") == "cloner"


def uploads_a_layout(desk: Desk) -> None:
    with desk.scene.core.database.write() as connection:
        layout = layouts.get_layout(connection, "simple").layout
        other = msgspec.structs.replace(layout, disks=(msgspec.structs.replace(layout.disks[0], id="other"),))
        assert layouts.add_layout(connection, desk.scene.core.act("test"), other).number == 2


def publishes(desk: Desk) -> None:
    with desk.scene.core.database.write() as connection:
        digest = images.get_version(connection, "golden").digest
        images.add_version(connection, desk.scene.core.act("test"), "golden", 2, digest)


def changes_a_disk(desk: Desk) -> None:
    with desk.scene.core.database.write() as connection:
        nodes.remember_facts(connection, desk.scene.core.act("test"), "n02", facts(serial="NEW"))


@pytest.mark.parametrize("happens", [uploads_a_layout, publishes, changes_a_disk])
@pytest.mark.parametrize(
    "words",
    [
        ["deploy", "-n", "n[01-02]"],
        ["deploy", "-n", "n[01-02]", "--new-identity"],
        ["netboot", "-n", "n[01-02]", "--set", "cloner"],
    ],
    ids=["deploy", "new identity", "netboot"],
)
def test_nothing_but_what_was_shown_is_armed(two: Desk, words: list[str], happens: Callable[[Desk], None]) -> None:
    before: list[object] = []

    def meanwhile() -> None:
        happens(two)
        before.append(two.scene.state_dump())

    two.has_terminal, two.on_ask = True, meanwhile
    result = two.run(*words, typed="y\n")
    assert (result.exit_code, result.stdout) == (ExitStatus.CONFLICT, "")
    assert "no longer what was shown" in result.stderr
    assert [two.scene.state_dump()] == before
    two.on_ask = lambda: None
    assert two.run(*words, typed="y\n").exit_code == 0, "what is there now is shown, and armed"


def test_a_named_image_is_armed_in_the_version_that_was_shown(two: Desk) -> None:
    two.has_terminal, two.on_ask = True, lambda: uploads_a_layout(two)
    result = two.run("deploy", "-n", "n01", "-i", "golden", typed="y\n")
    assert (result.exit_code, "shown: n01" in result.stderr) == (ExitStatus.CONFLICT, True)
    two.on_ask = lambda: publishes(two)
    assert two.run("deploy", "-n", "n01", "-i", "golden", typed="y\n").exit_code == 0
    assert two.scene.task("1").version == 1


def test_one_objection_arms_nobody(two: Desk) -> None:
    two.scene.arm("n02")
    result = two.refused("deploy", "--nodes", "n[01-02]", "--yes")
    assert result.exit_code == ExitStatus.REFUSED
    assert "n02 has task 1" in result.stderr


def test_waiting_ends_when_every_node_is_done(two: Desk) -> None:
    agent = Agent(two.scene)

    def world(turn: int) -> None:
        if turn == 1:
            agent.hello()
            agent.beat(Stage.RESTORE, done=40)
        if turn == 2:
            body, _ = agent.deploy()
            confirm(two, agent, body)

    two.on_sleep = world
    result = two.run("deploy", "--nodes", "n01", "--yes", "--wait", "--json")
    assert result.exit_code == 0, result.stderr
    assert [task["state"] for task in msgspec.json.decode(result.stdout)] == ["done"]
    assert "n01  running  restore  40 B of 100 B" in result.stderr
    assert "n01  done" in result.stderr


def test_waiting_for_a_failure_tells_stage_cause_and_hint(two: Desk) -> None:
    agent = Agent(two.scene)

    def world(turn: int) -> None:
        if turn == 1:
            agent.hello()
            agent.fail(Failure(Stage.PLAN, Cause.DISK_TOO_SMALL, "8 GiB, wanted 9 GiB", "a bigger disk", False))

    two.on_sleep = world
    result = two.run("deploy", "--nodes", "n01", "--yes", "--wait")
    assert result.exit_code == failed_status(1)
    for fragment in ("n01: failed in stage plan", "disk-too-small", "8 GiB, wanted 9 GiB", "hint: a bigger disk"):
        assert fragment in result.stderr
    assert "disks were not touched" in result.stderr
    assert "failed in plan (disk-too-small)" in result.stdout


def test_one_failure_among_several_is_a_failure(two: Desk) -> None:
    first, second = Agent(two.scene), Agent(two.scene, facts("52:54:00:00:00:02"))

    def world(turn: int) -> None:
        if turn == 1:
            first.hello()
            body, _ = first.deploy()
            confirm(two, first, body)
        if turn == 2:
            second.hello(two.scene.mint("n02"))
            second.fail(Failure(Stage.RESTORE, Cause.NETWORK, "gone", "look", True))

    two.on_sleep = world
    result = two.run("deploy", "--nodes", "n[01-02]", "--yes", "--wait")
    assert result.exit_code == failed_status(1)
    assert "1 of 2 tasks did not end well" in result.stderr
    assert "its old content is lost" in result.stderr


def test_a_timeout_leaves_the_work_going_on(two: Desk) -> None:
    result = two.run("deploy", "--nodes", "n[01-02]", "--yes", "--wait", "--timeout", "3")
    assert result.exit_code == ExitStatus.TIMEOUT
    assert "cloner task wait 1 2" in result.stderr
    assert two.scene.netboot("n01") == "cloner"


def test_a_restart_of_the_server_goes_unnoticed_while_waiting(two: Desk) -> None:
    def world(turn: int) -> None:
        two.transport.is_away = 3 < turn < 20
        if turn == 30:
            with two.scene.core.database.write() as connection:
                endings.abort_task(connection, two.scene.core.act("test"), "1")

    two.on_sleep = world
    result = two.run("deploy", "--nodes", "n01", "--yes", "--wait")
    assert result.exit_code == failed_status(1)
    assert "task 1 is aborted" in result.stderr


def test_a_server_that_stays_away_ends_the_wait(two: Desk) -> None:
    def world(turn: int) -> None:
        two.transport.is_away = turn > 3

    two.on_sleep = world
    assert two.run("deploy", "--nodes", "n01", "--yes", "--wait").exit_code == ExitStatus.UNREACHABLE


@pytest.mark.parametrize("nodes", ["n01", "n[01-02]"])
def test_a_server_that_hangs_does_not_hold_up_the_timeout(two: Desk, nodes: str) -> None:
    def world(turn: int) -> None:
        two.transport.is_wedged = turn > 2

    two.on_sleep = world
    result = two.run("deploy", "-n", nodes, "--yes", "--wait", "--timeout", "5")
    assert result.exit_code == ExitStatus.TIMEOUT
    assert two.now_s == 5


def test_a_server_that_hangs_from_the_first_is_told_before_the_timeout(two: Desk) -> None:
    two.run("deploy", "-n", "n01", "--yes")
    two.transport.is_wedged = True
    assert two.run("task", "wait", "1", "--timeout", "0").exit_code == ExitStatus.UNREACHABLE
    assert two.now_s <= 1


@pytest.mark.parametrize(
    "words", [["status"], ["node", "list"], ["deploy", "-n", "n01", "--yes"], ["watch"], ["events", "--follow"]]
)
def test_a_server_that_hangs_is_given_up_after_a_minute(two: Desk, words: list[str]) -> None:
    two.transport.is_wedged = True
    result = two.refused(*words)
    assert (result.exit_code, "too long" in result.stderr) == (ExitStatus.UNREACHABLE, True)
    assert two.now_s == 60


def test_ctrl_c_while_waiting_has_its_status_and_aborts_nothing(two: Desk) -> None:
    def world(_turn: int) -> None:
        raise KeyboardInterrupt

    two.on_sleep = world
    assert two.run("deploy", "--nodes", "n01", "--yes", "--wait").exit_code == ExitStatus.INTERRUPTED
    assert two.scene.task("1").state == "queued"


def test_netboot_cloner_wants_a_yes_as_deploy_does(two: Desk) -> None:
    assert two.refused("netboot", "--nodes", "n[01-02]", "--set", "cloner").exit_code == ExitStatus.REFUSED
    before = two.scene.state_dump()
    dry = two.run("netboot", "-n", "n[01-02]", "--set", "cloner", "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout == two.run("deploy", "-n", "n[01-02]", "--dry-run").stdout
    assert "n02: golden:1 with layout simple:1" in dry.stdout
    assert two.scene.state_dump() == before
    views = two.json("netboot", "--nodes", "n[01-02]", "--set", "cloner", "--yes")
    assert [view["netboot"] for view in views] == ["cloner", "cloner"]


def test_netboot_local_does_not_hide_a_task_that_is_under_way(two: Desk) -> None:
    two.scene.arm("n01")
    assert two.refused("netboot", "-n", "n[01-02]", "--set", "local").exit_code == ExitStatus.REFUSED
    assert two.json("netboot", "-n", "n02", "--set", "local")[0]["netboot"] == "local"


def test_the_author_is_in_the_audit(two: Desk) -> None:
    two.run("deploy", "--nodes", "n01", "--yes")
    authors = {event["author"] for event in two.json("events", "--object", "task/1")}
    assert authors == {"tester"}


def test_a_server_without_an_agent_says_so_before_a_node_waits_for_one(desk: Desk) -> None:
    desk.scene.add_node("n01")
    assert "--installer" in desk.run("deploy", "-n", "n01", "--dry-run").stdout


def test_what_is_kept_is_told_apart_from_what_is_lost(two: Desk, tmp_path: Path) -> None:
    layout = tmp_path / "keeping.yaml"
    layout.write_text(
        """
disks:
  - id: system
    partitions:
      - {role: esp, size: 512MiB, content: {type: filesystem, kind: vfat, mount: /boot/efi}}
      - {size: {min: 1GiB, weight: 1}, content: {type: filesystem, kind: ext4, mount: /}}
      - {content: {type: kept, number: 3, mount: /scratch}}
"""
    )
    two.run("disklayout-upload", "-l", "keeping", "-f", str(layout))
    machine = facts()
    found = (Signature("/dev/vda2", "ext4", "u-2"), Signature("/dev/vda3", "xfs", "u-3", "scratch"))
    disk = msgspec.structs.replace(machine.disks[0], signatures=found)
    with two.scene.core.database.write() as connection:
        known = msgspec.structs.replace(machine, disks=(disk,))
        nodes.remember_facts(connection, two.scene.core.act("test"), "n01", known)
    shown = two.run("deploy", "-n", "n01", "-l", "keeping", "--dry-run").stdout
    assert "8.0 GiB): /dev/vda2: ext4\n  keeps of it /dev/vda3: xfs 'scratch'\n" in shown
