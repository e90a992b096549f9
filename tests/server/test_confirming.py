"""How a clone is known to have booted: by its call, its SSH server, its console, or because nobody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import Update, update

from cloner_core.admin.consoles import ConsoleOutcome, ConsoleReport
from cloner_core.admin.tasks import TaskState
from cloner_core.confirmation import ConsoleLine, console_lines, console_proof
from cloner_core.messages import Cause, Confirm, Receipt, ReceiptBody
from cloner_core.network import Interface, NodeNetwork
from cloner_core.sightings import BootStep, SshAnswer
from cloner_pxe.dhcp_leases import Lease
from cloner_server import hostcertificates
from cloner_server.confirming import LOCAL_ANSWER, NOT_LOOKED_FOR, Confirming
from cloner_server.sshprobe import Expected, Found
from cloner_server.state import events, sightings
from cloner_server.state.leases import SqlLeases
from cloner_server.state.tables import attempts, tasks, vault
from cloner_server.tasks import endings
from cloner_server.tasks.rules import token_hash
from serverbench.scene import START_S, Agent, Scene, facts

CONFIRM_S = 1800.0
MAC, OTHER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"


class Ssh:
    """What the node's SSH port says, and what was asked of it."""

    def __init__(self, answer: SshAnswer = SshAnswer.SILENT) -> None:
        self.answer, self.asked = answer, list[tuple[tuple[str, ...], Expected]]()

    async def look(self, addresses: Sequence[str], expected: Expected) -> Found:
        self.asked.append((tuple(addresses), expected))
        return Found(self.answer, "" if self.answer is SshAnswer.SILENT else "10.77.0.9")


def deployed(scene: Scene, **fields: Any) -> tuple[str, Agent, ReceiptBody]:
    """A node with an acknowledged receipt, whose agent said good-bye."""
    scene.add_node(**fields)
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello()
    body, _ = agent.deploy()
    agent.told("rebooting", dict[str, bool])
    return task_id, agent, body


def confirming(scene: Scene, ssh: Ssh, started_s: float = START_S) -> Confirming:
    return Confirming(scene.core, lambda: started_s, ssh.look)


def later(scene: Scene, *steps: BootStep, local_answers: int = 0) -> None:
    """Let the node be seen at `steps`, one second after the other."""
    with scene.core.database.write() as connection:
        for step in steps:
            scene.clock.now_s += 1
            sightings.record(connection, scene.core.act("boot"), "n01", step, "10.77.0.9")
        for _ in range(local_answers):
            events.record(connection, scene.core.act("boot"), "node/n01", LOCAL_ANSWER)


@pytest.mark.parametrize(
    ("ssh", "steps", "local_answers", "said"),
    [
        (SshAnswer.KEY, (), 0, "boots but cannot call"),
        (SshAnswer.REFUSED, (), 0, "boots but cannot call"),
        (SshAnswer.NO_PROOF, (), 3, "boots but cannot call"),
        (SshAnswer.OTHER_KEY, (), 0, "another system answers"),
        (SshAnswer.SILENT, (BootStep.DHCP_SYSTEM,), 0, "boots but cannot call"),
        (SshAnswer.SILENT, (BootStep.DHCP_IPXE, BootStep.LOCAL, BootStep.DHCP_SYSTEM), 1, "boots but cannot call"),
        (SshAnswer.SILENT, (BootStep.DHCP_IPXE, BootStep.LOCAL), 1, "sent to its disk once more"),
        (SshAnswer.SILENT, (BootStep.DHCP_SYSTEM, BootStep.LOCAL), 3, "did not boot: the node netbooted again 3 times"),
        (SshAnswer.SILENT, (BootStep.DHCP_FIRMWARE,), 0, "came no further than dhcp-firmware"),
        (SshAnswer.SILENT, (), 0, "nothing was seen"),
    ],
)
def test_what_became_of_a_clone_that_never_confirmed_is_told_from_what_was_seen(
    scene: Scene, ssh: SshAnswer, steps: tuple[BootStep, ...], local_answers: int, said: str
) -> None:
    task_id, _, _ = deployed(scene)
    later(scene, *steps, local_answers=local_answers)
    scene.clock.now_s = START_S + CONFIRM_S + 1
    asyncio.run(confirming(scene, Ssh(ssh)).turn())
    failure = scene.task(task_id).failure
    assert failure is not None
    assert (failure.cause, failure.is_destroyed) == (Cause.UNCONFIRMED, True)
    assert said in failure.message
    assert "no call within 30 minutes" in failure.message
    assert failure.hint


def test_what_was_seen_before_the_restart_says_nothing(scene: Scene) -> None:
    scene.add_node()
    later(scene, *BootStep, local_answers=5)
    task_id = scene.arm()
    scene.clock.now_s += 10
    agent = Agent(scene)
    agent.hello()
    agent.deploy()
    later(scene, BootStep.DHCP_SYSTEM)
    scene.clock.now_s += 5
    agent.told("rebooting", dict[str, bool])
    scene.clock.now_s += CONFIRM_S
    asyncio.run(confirming(scene, Ssh()).turn())
    failure = scene.task(task_id).failure
    assert failure is not None
    assert "nothing was seen" in failure.message


def test_a_clone_that_cannot_call_and_proves_itself_by_ssh_is_done(scene: Scene) -> None:
    task_id, _, _ = deployed(scene)
    ssh = Ssh(SshAnswer.CLONE)
    asyncio.run(confirming(scene, ssh).turn())
    assert (scene.task(task_id).state, ssh.asked) == (TaskState.UNCONFIRMED, []), "it has its time to call"
    scene.clock.now_s += CONFIRM_S
    asyncio.run(confirming(scene, ssh).turn())
    task = scene.task(task_id)
    assert (task.state, task.confirm, task.confirmed_by) == (TaskState.DONE, "phone-home", "ssh")
    with scene.core.database.read() as connection:
        receipt = endings.find_receipt(connection, "n01")
        last = events.list_events(connection, obj=f"task/{task_id}")[-1]
    assert isinstance(receipt, Receipt)
    assert (receipt.confirmed_by, receipt.confirmed_s) == ("ssh", scene.clock.now_s)
    assert (last.what, last.detail["by"], last.detail["address"]) == ("confirm", "ssh", "10.77.0.9")


def test_the_way_of_ssh_asks_until_the_clone_answers_and_tells_it_nothing(scene: Scene) -> None:
    task_id, agent, _ = deployed(scene, confirm="ssh")
    assert agent.reply is not None
    assert agent.reply.task.confirm is None
    ssh = Ssh()
    looking = confirming(scene, ssh)
    for _ in range(25):
        asyncio.run(looking.turn())
        scene.clock.now_s += 1
    assert len(ssh.asked) == 3, "each ten seconds"
    ssh.answer = SshAnswer.KEY  # of a system from before
    scene.clock.now_s += 10
    asyncio.run(looking.turn())
    assert scene.task(task_id).state is TaskState.UNCONFIRMED
    ssh.answer = SshAnswer.CLONE
    scene.clock.now_s += 10
    asyncio.run(looking.turn())
    assert (scene.task(task_id).state, scene.task(task_id).confirmed_by) == (TaskState.DONE, "ssh")


def test_a_clone_that_proves_itself_after_its_time_is_done_after_all(scene: Scene) -> None:
    task_id, _, _ = deployed(scene, confirm="ssh")
    ssh = Ssh()
    looking = confirming(scene, ssh)
    scene.clock.now_s += CONFIRM_S
    asyncio.run(looking.turn())
    assert scene.task(task_id).state is TaskState.FAILED
    ssh.answer = SshAnswer.CLONE
    scene.clock.now_s += 300
    asyncio.run(looking.turn())
    assert scene.task(task_id).state is TaskState.DONE


def test_a_task_that_failed_for_this_is_not_looked_after_once_its_node_has_another_or_is_gone(scene: Scene) -> None:
    deployed(scene, confirm="ssh")
    ssh = Ssh()
    looking = confirming(scene, ssh)
    scene.clock.now_s += CONFIRM_S
    asyncio.run(looking.turn())
    second = scene.arm()
    ssh.asked.clear()
    scene.clock.now_s += 300
    asyncio.run(looking.turn())
    scene.admin("POST", f"/tasks/{second}/abort")
    assert scene.admin("DELETE", "/nodes/n01").status_code == 200
    asyncio.run(looking.turn())
    assert ssh.asked == []


def test_every_address_the_clone_may_have_is_asked_for_the_certificate_of_its_own_attempt(scene: Scene) -> None:
    network = NodeNetwork("n01", (Interface(MAC, dhcp=False, addresses=("10.77.0.9/24", "fe80::1/64")),))
    _, agent, _ = deployed(scene, network=network, confirm="ssh")
    SqlLeases(scene.core.database).put(Lease(address="10.77.0.100", mac=MAC, expires_at=0))
    ssh = Ssh()
    asyncio.run(confirming(scene, ssh).turn())
    ((addresses, expected),) = ssh.asked
    assert addresses == ("10.77.0.9", "10.77.0.100")
    assert agent.reply is not None
    assert expected.key_id == f"n01 {agent.reply.task.attempt_id}"
    assert expected.authority == hostcertificates.authority_line(scene.core.site.vault_key)
    assert len(expected.publics) == 3


def test_a_deadline_counts_from_the_start_of_the_server(scene: Scene) -> None:
    task_id, _, _ = deployed(scene)
    scene.clock.now_s += 10 * CONFIRM_S
    looking = confirming(scene, Ssh(), started_s=scene.clock.now_s)
    scene.clock.now_s += CONFIRM_S - 1
    asyncio.run(looking.turn())
    assert scene.task(task_id).state is TaskState.UNCONFIRMED
    scene.clock.now_s += 1
    asyncio.run(looking.turn())
    assert scene.task(task_id).state is TaskState.FAILED


DAMAGES = {
    "seal": update(vault).where(vault.c.node == "n01").values(nonce=bytes(12)),
    "facts": update(attempts).where(attempts.c.task == 1).values(facts="{"),
}


def deployed_both(scene: Scene) -> tuple[str, str]:
    """Two nodes whose clones confirm by SSH; the first one's task is looked after first."""
    first, _, _ = deployed(scene, confirm="ssh")
    scene.add_node("n02", OTHER_MAC, confirm="ssh")
    second = scene.arm("n02")
    agent = Agent(scene, facts(OTHER_MAC))
    agent.hello(scene.mint("n02"))
    agent.deploy()
    return first, second


def alarms_of(scene: Scene, task_id: str) -> list[str]:
    with scene.core.database.read() as connection:
        return [one.what for one in events.list_events(connection, obj=f"task/{task_id}", alarms=True)]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_row_that_cannot_be_read_costs_its_own_clone_alone(scene: Scene, damage: Update) -> None:
    damaged, whole = deployed_both(scene)
    with scene.core.database.write() as connection:
        connection.execute(damage)
    ssh = Ssh()
    looking = confirming(scene, ssh)
    for _ in range(25):
        asyncio.run(looking.turn())
        scene.clock.now_s += 1
    assert [expected.key_id.split()[0] for _, expected in ssh.asked] == ["n02"] * 3
    assert alarms_of(scene, damaged) == [NOT_LOOKED_FOR], "not one for each look"
    assert scene.task(damaged).state is TaskState.UNCONFIRMED
    ssh.answer = SshAnswer.CLONE
    scene.clock.now_s = START_S + CONFIRM_S
    asyncio.run(looking.turn())
    failure = scene.task(damaged).failure
    assert failure is not None
    assert failure.cause is Cause.UNCONFIRMED
    assert "nobody could look for it: " in failure.message
    assert scene.task(whole).state is TaskState.DONE


def test_a_failure_that_cannot_be_read_stops_no_look_at_others(scene: Scene) -> None:
    damaged, whole = deployed_both(scene)
    ssh = Ssh()
    looking = confirming(scene, ssh)
    scene.clock.now_s += CONFIRM_S
    asyncio.run(looking.turn())
    with scene.core.database.write() as connection:
        connection.execute(update(tasks).where(tasks.c.id == int(damaged)).values(failure="{"))
    ssh.answer = SshAnswer.CLONE
    scene.clock.now_s += 300
    asyncio.run(looking.turn())
    assert scene.task(whole).state is TaskState.DONE
    assert NOT_LOOKED_FOR in alarms_of(scene, damaged)


def test_a_look_that_fails_ends_no_other(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    _, whole = deployed_both(scene)

    async def look(addresses: Sequence[str], expected: Expected) -> Found:
        if expected.key_id.startswith("n01 "):
            raise NotImplementedError("a key of tomorrow")
        await asyncio.sleep(0.01)  # the other look has failed meanwhile
        return Found(SshAnswer.CLONE, "10.77.0.9")

    asyncio.run(Confirming(scene.core, lambda: START_S, look).turn())
    assert scene.task(whole).state is TaskState.DONE
    assert "a key of tomorrow" in caplog.text


def test_what_a_turn_did_not_come_to_look_at_is_looked_at_by_the_next(scene: Scene) -> None:
    deployed_both(scene)
    starts = iter((START_S,))
    ssh = Ssh()
    looking = Confirming(scene.core, lambda: next(starts), ssh.look)
    with pytest.raises(StopIteration):  # at the second task
        looking._due()
    looking.started_s = lambda: START_S
    asyncio.run(looking.turn())
    assert len(ssh.asked) == 2


def test_a_call_that_comes_while_we_look_wins(scene: Scene) -> None:
    task_id, agent, body = deployed(scene)

    async def look(addresses: Sequence[str], expected: Expected) -> Found:
        with scene.core.database.write() as connection:
            assert endings.accept_confirm(connection, scene.core.act("clone"), agent.confirmation(body)) is None
        return Found(SshAnswer.SILENT)

    scene.clock.now_s += CONFIRM_S
    asyncio.run(Confirming(scene.core, lambda: START_S, look).turn())
    assert (scene.task(task_id).state, scene.task(task_id).confirmed_by) == (TaskState.DONE, "phone-home")


def test_where_nobody_asks_the_receipt_is_the_end(scene: Scene) -> None:
    task_id, agent, _ = deployed(scene, confirm="none")
    assert agent.reply is not None
    assert agent.reply.task.confirm is None
    assert (scene.task(task_id).state, scene.task(task_id).confirmed_by) == (TaskState.DONE, "none")
    with scene.core.database.read() as connection:
        receipt = endings.find_receipt(connection, "n01")
    assert isinstance(receipt, Receipt)
    assert (receipt.confirmed_by, receipt.confirmed_s) == ("none", None)


def test_a_retry_forgets_how_it_was_confirmed(scene: Scene) -> None:
    task_id, _, _ = deployed(scene)
    scene.clock.now_s += CONFIRM_S
    asyncio.run(confirming(scene, Ssh()).turn())
    scene.admin("POST", f"/tasks/{task_id}/retry")
    assert scene.task(task_id).confirmed_by == ""


def said_by(agent: Agent, body: ReceiptBody, **changes: str) -> ConsoleLine:
    """Return what the clone of `agent` says on its console."""
    assert agent.reply is not None
    assert agent.reply.task.confirm is not None
    boot = "11111111-2222-4333-8444-555555555555"
    key = token_hash(agent.reply.task.confirm.secret.value)
    line = ConsoleLine(
        attempt=agent.reply.task.confirm.attempt,
        machine_id=body.machine_id,
        boot_id=boot,
        root_part_uuid=body.root_part_uuid,
        proof=console_proof(key, body.machine_id, boot, body.root_part_uuid),
    )
    return msgspec.structs.replace(line, **changes)


def report(scene: Scene, *lines: ConsoleLine) -> list[ConsoleOutcome]:
    answer = scene.admin("POST", "/confirmations", ConsoleReport(lines))
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=list[ConsoleOutcome])


def test_a_clone_confirms_by_what_it_says_on_its_console(scene: Scene) -> None:
    task_id, agent, body = deployed(scene, confirm="console")
    assert agent.reply is not None
    assert agent.reply.task.confirm is not None
    assert agent.reply.task.confirm.way == "console"
    line = said_by(agent, body)
    assert [one.refusal for one in report(scene, line, line)] == ["", ""]
    assert (scene.task(task_id).state, scene.task(task_id).confirmed_by) == (TaskState.DONE, "console")
    assert [(one.node, one.task_id) for one in report(scene, line)] == [("n01", task_id)]


@pytest.mark.parametrize(
    "changes",
    [
        {"proof": "0" * 64},
        {"boot_id": "22222222-2222-4333-8444-555555555555"},
        {"machine_id": "0" * 32},
        {"attempt": "99-1-00000000"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_line_that_is_not_proven_confirms_nothing(scene: Scene, changes: dict[str, str]) -> None:
    task_id, agent, body = deployed(scene, confirm="console")
    assert report(scene, said_by(agent, body, **changes))[0].refusal
    assert scene.task(task_id).state is TaskState.UNCONFIRMED


def test_the_line_of_a_system_from_before_confirms_nothing(scene: Scene) -> None:
    first, agent, body = deployed(scene, confirm="console")
    report(scene, said_by(agent, body))
    second = scene.arm()
    again = Agent(scene)
    again.hello()
    later_body, _ = again.deploy()
    report(scene, said_by(agent, body))
    assert scene.task(second).state is TaskState.UNCONFIRMED
    other_root = msgspec.structs.replace(later_body, root_part_uuid=body.root_part_uuid)
    assert "root_part_uuid" in report(scene, said_by(again, other_root))[0].refusal
    assert scene.task(first).state is TaskState.DONE


def test_lines_are_found_in_whatever_else_a_console_says(scene: Scene) -> None:
    _, agent, body = deployed(scene, confirm="console")
    line = said_by(agent, body)
    words = (line.attempt, line.machine_id, line.boot_id, line.root_part_uuid, line.proof)
    text = f"CLONER-CONFIRM 1 {' '.join(words)}".encode()
    noise = b"\x1b[2J\xff\x00[    1.0] random: crng init\r\n"
    assert console_lines(noise + text + b"\r\n" + noise + text + b"\r\n") == (line,)
    assert console_lines(text[:60] + noise + text[60:]) == ()


def test_a_site_says_how_and_a_node_says_otherwise(scene: Scene) -> None:
    scene.add_node()
    assert scene.admin("PATCH", "/nodes/n01", {"confirm": "console"}).json()["confirm"] == "console"
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello()
    assert scene.admin("PATCH", "/nodes/n01", {"confirm": ""}).status_code == 200
    body, _ = agent.deploy()
    assert scene.task(task_id).confirm == "console", "as it was when the attempt began"
    call = Confirm("guess", body.machine_id, "b" * 32, body.root_part_uuid)
    with scene.core.database.write() as connection:
        assert endings.accept_confirm(connection, scene.core.act("clone"), call) is not None
    assert scene.admin("PATCH", "/nodes/n01", {"confirm": "by-magic"}).status_code == 400


def test_a_clone_that_boots_before_its_receipt_is_told_of_and_never_done(scene: Scene) -> None:
    """Power failed between commit and receipt, on firmware that has the disk before the network."""
    scene.add_node()
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello()
    call = agent.confirmation(agent.receipt_body(*agent.up_to_commit()))
    for _ in range(3):
        with scene.core.database.write() as connection:
            assert endings.accept_confirm(connection, scene.core.act("clone"), call) is not None
    with scene.core.database.read() as connection:
        (told,) = [event for event in events.list_events(connection, alarms=True) if event.object == f"task/{task_id}"]
    assert told.what == "a clone without a receipt calls"
    assert scene.task(task_id).state is TaskState.RUNNING
