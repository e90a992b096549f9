"""Tasks, plans, receipts, events: what was done can be seen, followed and verified."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus, failed_status
from cloner_core.messages import Beat, BeatReply, Cause, Failure, LogLine, Progress, Stage
from cloner_server.state import tasks
from serverbench.scene import Agent, facts


@pytest.fixture
def agent(desk: Desk) -> Agent:
    desk.scene.add_node("n01")
    desk.scene.arm()
    return Agent(desk.scene)


def log(agent: Agent, *texts: str) -> None:
    lines = tuple(LogLine(1_800_000_000.0, "info", text) for text in texts)
    agent.told("beat", BeatReply, Beat(Progress(Stage.RESTORE), lines))


def test_a_task_is_listed_shown_and_logged(desk: Desk, agent: Agent) -> None:
    agent.hello()
    log(agent, "formatting", "evil \x1b]0;title\x07")
    assert [task["node"] for task in desk.json("task", "list", "--live", "--node", "n01")] == ["n01"]
    assert "golden:1" in desk.run("task", "show", "1").stdout
    shown = desk.run("task", "log", "1").stdout
    assert "info    formatting" in shown
    assert "\x1b" not in shown
    assert desk.json("task", "log", "1")[0]["text"] == "formatting"


def test_a_long_log_is_shown_to_its_end(desk: Desk, agent: Agent) -> None:
    agent.hello()
    with desk.scene.core.database.write() as connection:
        attempt = tasks.last_attempt(connection, 1)
        assert attempt is not None
        lines = tuple(LogLine(1_800_000_000.0, "info", f"line {number}") for number in range(10_050))
        tasks.append_log(connection, 1, attempt.id, lines)
    assert desk.run("task", "log", "1").stdout.splitlines()[-1].endswith("line 10049")
    assert [entry["text"] for entry in desk.json("task", "log", "1")] == [line.text for line in lines]


def test_a_task_names_its_multicast_session(desk: Desk, agent: Agent) -> None:
    assert "session    -" in desk.run("task", "show", "1").stdout
    assert desk.json("task", "list")[0]["session"] == ""
    with desk.scene.core.database.write() as connection:
        connection.exec_driver_sql("UPDATE tasks SET session = 3")
    assert "session    3" in desk.run("task", "show", "1").stdout
    assert desk.json("task", "list")[0]["session"] == "3"


def test_a_followed_log_ends_with_the_task_and_misses_nothing(desk: Desk, agent: Agent) -> None:
    agent.hello()

    def world(turn: int) -> None:
        if turn == 2:
            log(agent, "one")
        if turn == 4:
            log(agent, "two", "three")
            agent.fail(Failure(Stage.PLAN, Cause.NO_DISK, "none", "add one", False))

    desk.on_sleep = world
    result = desk.run("task", "log", "1", "--follow", "--json")
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["one", "two", "three"]


def test_abort_and_retry_want_a_yes_and_have_a_dry_run(desk: Desk, agent: Agent) -> None:
    assert desk.refused("task", "abort", "1").exit_code == ExitStatus.REFUSED
    before = desk.scene.state_dump()
    assert "would be aborted" in desk.run("task", "abort", "1", "--dry-run").stdout
    assert desk.scene.state_dump() == before
    assert desk.run("task", "abort", "1", "--yes").stdout == "task 1 is aborted\n"
    assert desk.refused("task", "abort", "1", "--yes").exit_code == ExitStatus.REFUSED
    assert "would be queued" in desk.run("task", "retry", "1", "--dry-run").stdout
    assert desk.json("task", "retry", "1", "--yes")["state"] == "queued"
    assert desk.scene.netboot() == "cloner"


def test_waiting_for_a_task_that_is_over_returns_at_once(desk: Desk, agent: Agent) -> None:
    desk.run("task", "abort", "1", "--yes")
    result = desk.run("task", "wait", "1")
    assert (result.exit_code, desk.sleeps) == (failed_status(1), 0)
    assert desk.refused("task", "wait", "1", "99").exit_code == ExitStatus.NOT_FOUND


def test_the_plan_printed_is_the_plan_run(desk: Desk, agent: Agent) -> None:
    agent.hello()
    agent.fail(Failure(Stage.PLAN, Cause.NO_DISK, "none", "add one", False))
    desk.run("task", "retry", "1", "--yes")
    printed = desk.json("plan", "n01")
    agent.hello()
    from cloner_core.plan import plan_digest, render

    plan = agent.confirm_plan()
    assert (printed["rendered"], printed["digest"]) == (render(plan), plan_digest(plan))
    assert "DESTROYS" in desk.run("plan", "n01").stdout


def test_a_machine_never_seen_is_planned_from_a_file(desk: Desk, tmp_path: Path) -> None:
    desk.scene.add_node("n01")
    path = tmp_path / "facts.json"
    path.write_bytes(msgspec.json.encode(facts(serial="FILE1")))
    before = desk.scene.state_dump()
    result = desk.run("plan", "n01", "--facts", str(path))
    assert result.exit_code == 0, result.stderr
    assert "FILE1" in result.stdout
    assert desk.scene.state_dump() == before
    path.write_text('{"firmware": "uefi"}')
    assert desk.refused("plan", "n01", "--facts", str(path), "--image", "nosuch").exit_code == ExitStatus.USAGE


def test_what_a_machine_told_can_be_given_back_to_plan(desk: Desk, agent: Agent, tmp_path: Path) -> None:
    agent.hello()
    path = tmp_path / "facts.json"
    path.write_text(desk.run("node", "facts", "n01").stdout)
    assert desk.run("plan", "n01", "--facts", str(path)).exit_code == 0


@pytest.fixture
def receipt(desk: Desk, agent: Agent, tmp_path: Path) -> Path:
    agent.hello()
    agent.deploy()
    path = tmp_path / "receipt.json"
    path.write_text(desk.run("receipt", "show", "n01", "--json").stdout)
    return path


def test_a_receipt_is_shown_and_verifies(desk: Desk, receipt: Path) -> None:
    told = json.loads(receipt.read_text())
    assert "not yet" in desk.run("receipt", "show", "1").stdout
    assert desk.json("receipt", "verify", "n01")["verified"] is True
    assert desk.json("receipt", "verify", "--file", str(receipt))["task"] == "1"
    desk.transport.is_away = True  # a key known from elsewhere needs no server
    assert desk.run("receipt", "verify", "--file", str(receipt), "--key", told["server_key"]).exit_code == 0


@pytest.mark.parametrize("field", ["machine_id", "plan_digest", "root_part_uuid"])
def test_an_altered_receipt_does_not_verify(desk: Desk, receipt: Path, field: str) -> None:
    told = json.loads(receipt.read_text())
    told["receipt"]["body"][field] = "0" * 32
    receipt.write_text(json.dumps(told))
    assert desk.refused("receipt", "verify", "--file", str(receipt)).exit_code == ExitStatus.INTEGRITY


def test_a_receipt_is_never_verified_by_the_key_it_carries(desk: Desk, receipt: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cloner_core.admin.tasks import ReceiptView
    from cloner_core.messages import Receipt, receipt_statement

    view = msgspec.json.decode(receipt.read_bytes(), type=ReceiptView)
    forger = Ed25519PrivateKey.generate()
    assert isinstance(view.receipt, Receipt)
    body = msgspec.structs.replace(view.receipt.body, machine_id="f" * 32)
    signature = forger.sign(receipt_statement(body, view.receipt.accepted_s)).hex()
    forged = ReceiptView(
        msgspec.structs.replace(view.receipt, body=body, signature=signature),
        forger.public_key().public_bytes_raw().hex(),
    )
    receipt.write_bytes(msgspec.json.encode(forged))
    assert desk.refused("receipt", "verify", "--file", str(receipt)).exit_code == ExitStatus.INTEGRITY


def test_a_receipt_of_an_older_agent_still_verifies(desk: Desk, tmp_path: Path) -> None:
    """What version 1 signed, byte by byte: fields that came later are neither in it nor added to it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    text = (
        '{"task_id":"1","attempt_id":"1-1-a","node":"n01","version_digest":"v","layout":"simple","plan_digest":"p",'
        '"disks":[],"packs":1,"files":1,"bytes_restored":1,"bytes_read_back":1,"identity":[],"rewritten":[],'
        '"machine_id":"m","host_key_fingerprints":[],"root_part_uuid":"r","nvram_before":[],"nvram_after":[],'
        '"stages":[{"stage":"restore","seconds":2.0}],"notes":[]}'
    )
    key = Ed25519PrivateKey.generate()
    signature = key.sign(b"cloner receipt 1\0" + f"[{text},1000.0]".encode()).hex()
    public = key.public_key().public_bytes_raw().hex()
    kept = {"body": json.loads(text), "accepted_s": 1000.0, "confirmed_s": None, "signature": signature}
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"receipt": kept, "server_key": public}))
    assert desk.json("receipt", "verify", "--file", str(path), "--key", public)["verified"] is True


def test_events_are_told_in_order_and_followed_until_ctrl_c(desk: Desk, agent: Agent) -> None:
    def world(turn: int) -> None:
        desk.transport.is_away = turn == 1
        if turn == 2:
            agent.hello()
        if turn == 3:
            raise KeyboardInterrupt

    desk.on_sleep = world
    result = desk.run("events", "--object", "task/1", "--follow", "--json")
    assert result.exit_code == ExitStatus.INTERRUPTED
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["what"] for event in events][:1] == ["queued"]
    assert "claim" in [event["what"] for event in events]
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})


def test_status_counts_and_shows_alarms(desk: Desk, agent: Agent) -> None:
    told = desk.json("status")
    assert (told["nodes"], told["tasks"], told["images"]) == (1, {"queued": 1}, 1)
    assert "1 queued" in desk.run("status").stdout


def test_ctrl_c_while_waiting_says_that_the_work_goes_on(desk: Desk, agent: Agent) -> None:
    def press(_: int) -> None:
        raise KeyboardInterrupt

    desk.on_sleep = press
    result = desk.run("task", "wait", "1")
    assert result.exit_code == ExitStatus.INTERRUPTED
    assert "the work goes on" in result.stderr
    assert "cloner task abort 1" in result.stderr
    assert desk.scene.task("1").state == "queued"


def test_the_newest_events_are_shown_unless_told_where_to_begin(desk: Desk, agent: Agent) -> None:
    everything = desk.json("events")
    assert desk.json("events", "--limit", "2") == everything[-2:]
    assert desk.json("events", "--limit", "2", "--after", "0") == everything[:2]


def test_an_object_without_its_kind_is_told_so(desk: Desk, agent: Agent) -> None:
    assert "node/n01" in desk.run("events", "--object", "n01").stderr
    assert desk.run("events", "--object", "node/n01").stderr == ""
