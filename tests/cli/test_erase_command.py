"""`cloner erase`: what is lost is said first, a yes is wanted, and its receipt is shown and verified."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from clibench.desk import Desk
from cloner_cli.erase import parse_selector
from cloner_core.erasing.plan import erase_digest, plan_erase, render_erase
from cloner_core.erasing.words import ErasedDisk, EraseReceipt, EraseReceiptBody, EraseReply, Way
from cloner_core.errors import ExitStatus, InvalidError
from cloner_core.facts import Signature
from cloner_core.layout import Match, Selector
from cloner_core.messages import PlanReport
from cloner_server.state import nodes
from serverbench.scene import Agent, facts


@pytest.fixture
def known(desk: Desk) -> Desk:
    """A node whose disk holds something."""
    desk.scene.add_node("n01")
    machine = facts()
    disk = msgspec.structs.replace(machine.disks[0], signatures=(Signature("/dev/vda1", "ext4", label="payroll"),))
    with desk.scene.core.database.write() as connection:
        told = msgspec.structs.replace(machine, disks=(disk,))
        nodes.remember_facts(connection, desk.scene.core.act("test"), "n01", told)
    return desk


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "want either --disks SELECTOR or --all-disks"),
        (("--disks", "serial=D1", "--all-disks"), "want either --disks SELECTOR or --all-disks"),
        (("--all-disks", "--method", "discard", "--passes", "3"), "--passes is for an overwrite"),
        (("--disks", "serial"), "'serial' is no term"),
        (("--disks", "colour=red"), "unknown field"),
        (("--all-disks", "--method", "shred"), "shred"),
    ],
)
def test_a_wrong_command_line_arms_nothing(known: Desk, words: tuple[str, ...], why: str) -> None:
    result = known.refused("erase", "--nodes", "n01", *words)
    assert result.exit_code == ExitStatus.USAGE
    assert why in result.stderr


def test_without_a_yes_nothing_is_armed_and_what_would_be_lost_was_shown(known: Desk) -> None:
    result = known.refused("erase", "--nodes", "n01", "--all-disks")
    assert result.exit_code == ExitStatus.REFUSED
    assert "ERASES /dev/vda (VirtDisk serial D1, 8.0 GiB) by overwrite" in result.stderr
    assert "payroll" in result.stderr
    known.has_terminal = True
    assert known.refused("erase", "--nodes", "n01", "--all-disks", typed="n\n").exit_code == ExitStatus.REFUSED


def test_a_dry_run_changes_nothing(known: Desk) -> None:
    before = known.scene.state_dump()
    result = known.run("erase", "--nodes", "n01", "--disks", "serial=D1", "--passes", "3", "--dry-run")
    assert "by overwrite in 3 passes" in result.stdout
    assert known.scene.state_dump() == before


def test_above_the_limit_the_number_of_nodes_must_be_typed(known: Desk) -> None:
    known.scene.add_node("n02", "52:54:00:00:00:02")
    known.has_terminal = True
    words = ("erase", "--nodes", "n[01-02]", "--all-disks", "--max", "1", "--yes")
    assert known.refused(*words, typed="1\n").exit_code == ExitStatus.REFUSED
    assert known.run(*words, typed="2\n").stdout == "n01: task 1\nn02: task 2\n"


def test_the_receipt_of_an_erase_is_shown_and_verified(known: Desk, tmp_path: Path) -> None:
    assert known.run("erase", "--nodes", "n01", "--all-disks", "--yes").stdout == "n01: task 1\n"
    assert "  erase  " in known.run("task", "list").stdout
    agent = Agent(known.scene)
    told = msgspec.json.decode(agent.try_hello(known.scene.mint()).content, type=EraseReply)
    agent.reply = told  # type: ignore[assignment]  # only what both kinds have is used
    plan = plan_erase(msgspec.structs.replace(agent.facts), told.task)
    agent.told("plan", dict[str, object], PlanReport(digest=erase_digest(plan), rendered=render_erase(plan)))
    (one,) = plan.disks
    disk = ErasedDisk(
        "/dev/vda",
        "D1",
        "",
        "VirtDisk",
        one.disk.size_bytes,
        Way.OVERWRITE,
        "erased",
        ("overwritten",),
        "sample",
        9,
        77,
        1.5,
    )
    body = EraseReceiptBody("1", told.task.attempt_id, "n01", erase_digest(plan), (disk,), (), ())
    agent.told("receipt", EraseReceipt, body)
    shown = known.run("receipt", "show", "n01").stdout
    assert "by overwrite in" in shown
    assert "serial D1" in shown
    path = tmp_path / "receipt.json"
    path.write_text(known.run("receipt", "show", "n01", "--json").stdout)
    assert "is signed by" in known.run("receipt", "verify", "--file", str(path)).stdout
    path.write_text(path.read_text().replace('"D1"', '"D2"'))
    assert known.refused("receipt", "verify", "--file", str(path)).exit_code == ExitStatus.INTEGRITY


def test_a_selector_is_read_as_in_a_layout() -> None:
    wanted = Selector(serial="S4X*", model=Match(none=("Old*",)), size_min_bytes=10**12, rotational=False)
    assert parse_selector("serial=S4X*, model!=Old* ,size>=1TB,rotational=no") == wanted
    for text in ("serial>=1", "serial=", "serial=a,serial=b", "size=1TB", "pick=1", "rotational=perhaps", ""):
        with pytest.raises(InvalidError):
            parse_selector(text)
