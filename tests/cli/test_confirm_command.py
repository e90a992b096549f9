"""`cloner confirm`: a console's text goes in, what it proves comes out; the text itself stays here."""

from __future__ import annotations

from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_core.confirmation import console_proof
from cloner_core.errors import ExitStatus
from cloner_server.tasks.rules import token_hash
from serverbench.scene import Agent


@pytest.fixture
def said(desk: Desk, tmp_path: Path) -> Path:
    """What the console of a clone said."""
    desk.scene.add_node(confirm="console")
    desk.scene.arm()
    agent = Agent(desk.scene)
    agent.hello()
    body, _ = agent.deploy()
    assert agent.reply is not None
    assert agent.reply.task.confirm is not None
    told, boot = agent.reply.task.confirm, "11111111-2222-4333-8444-555555555555"
    proof = console_proof(token_hash(told.secret.value), body.machine_id, boot, body.root_part_uuid)
    words = ("CLONER-CONFIRM 1", told.attempt, body.machine_id, boot, body.root_part_uuid, proof)
    log = tmp_path / "n01.log"
    log.write_bytes(b"a password typed at the login\r\n" + " ".join(words).encode() + b"\r\n")
    return log


def test_a_console_confirms_its_clone_and_task_and_receipt_say_so(desk: Desk, said: Path) -> None:
    task_id = desk.json("task", "list")[0]["id"]
    assert "cloner confirm --console" in desk.run("task", "show", task_id).stdout
    before = desk.scene.state_dump()
    assert "would be confirmed" in desk.run("confirm", "--console", str(said), "--dry-run").stdout
    assert desk.scene.state_dump() == before
    done = desk.run("confirm", "--console", str(said))
    assert (done.exit_code, "n01" in done.stdout, "confirmed" in done.stdout) == (0, True, True)
    assert "by console" in desk.run("task", "show", task_id).stdout
    assert "by console" in desk.run("receipt", "show", "n01").stdout
    assert desk.json("receipt", "show", "n01")["receipt"]["confirmed_by"] == "console"
    assert desk.run("receipt", "verify", "n01").exit_code == 0
    again = desk.run("confirm", "--console", "-", typed=said.read_text())
    assert (again.exit_code, "confirmed" in again.stdout) == (0, True), "the whole log, again"


def test_only_lines_of_clones_leave_this_machine(desk: Desk, said: Path) -> None:
    desk.run("confirm", "--console", str(said))
    assert not [row for row in desk.scene.state_dump() if "password" in str(row)]


def test_a_console_without_a_line_of_a_clone_is_told(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"[    0.0] Linux\xff\r\nlogin: ")
    assert desk.run("confirm", "--console", str(tmp_path / "log")).exit_code == ExitStatus.NOT_FOUND


def test_a_console_that_cannot_be_read_is_a_fault_of_the_command_line(desk: Desk, tmp_path: Path) -> None:
    result = desk.refused("confirm", "--console", str(tmp_path / "none"))
    assert (result.exit_code, "cannot be read" in result.stderr) == (ExitStatus.USAGE, True)


def test_a_damaged_line_confirms_nothing(desk: Desk, said: Path) -> None:
    text = bytearray(said.read_bytes())
    at = text.rindex(b"\r\n") - 1
    text[at] = ord("0") if text[at] != ord("0") else ord("1")
    said.write_bytes(text)
    done = desk.run("confirm", "--console", str(said))
    assert done.exit_code == ExitStatus.REFUSED
    assert "proof" in done.stdout


def test_a_node_says_how_its_clone_confirms(desk: Desk) -> None:
    desk.scene.add_node("n01")
    assert "site" in desk.run("node", "show", "n01").stdout
    assert desk.json("node", "set", "n01", "--confirm", "ssh")[0]["confirm"] == "ssh"
    assert desk.json("node", "set", "n01", "--confirm", "site")[0]["confirm"] == ""
    assert desk.run("node", "set", "n01", "--confirm", "prayer").exit_code == ExitStatus.USAGE
