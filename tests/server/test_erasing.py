"""Tasks that erase, on the server: shown before, compared with its own plan, done only by a receipt that agrees."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloner_core.admin.deploying import EraseIntent, EraseRequest
from cloner_core.admin.tasks import ReceiptView, TaskState
from cloner_core.erasing.abilities import EraseAbilities
from cloner_core.erasing.plan import ErasePlan, erase_digest, plan_erase, render_erase
from cloner_core.erasing.words import (
    ErasedDisk,
    EraseOrder,
    EraseReceipt,
    EraseReceiptBody,
    EraseReply,
    Way,
    erase_statement,
)
from cloner_core.facts import Disk, Facts
from cloner_core.layout import Selector
from cloner_core.messages import BeatReply, Cause, Failure, PlanReport, Stage
from cloner_server.state import nodes
from serverbench.scene import GIB, Agent, Scene, facts

DISK = Disk(path="/dev/vda", size_bytes=8 * GIB, serial="D1", model="VirtDisk", bus="virtio")
OTHER = Disk(path="/dev/vdb", size_bytes=8 * GIB, serial="D2", model="VirtDisk", bus="virtio")


def machine(*disks: Disk) -> Facts:
    return msgspec.structs.replace(facts(), disks=disks or (DISK,))


@pytest.fixture
def known(scene: Scene) -> Scene:
    """A node that has told its disk."""
    scene.add_node()
    see(scene, machine())
    return scene


def see(scene: Scene, told: Facts) -> None:
    with scene.core.database.write() as connection:
        nodes.remember_facts(connection, scene.core.act("test"), "n01", told)


def ask(scene: Scene, **changes: Any) -> list[EraseIntent]:
    fields: dict[str, Any] = {"nodes": ("n01",), "order": EraseOrder()} | changes
    answer = scene.admin("POST", "/erase", EraseRequest(**fields))
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=list[EraseIntent])


def refusal(scene: Scene, **changes: Any) -> tuple[int, str]:
    fields: dict[str, Any] = {"nodes": ("n01",), "order": EraseOrder()} | changes
    answer = scene.admin("POST", "/erase", EraseRequest(**fields))
    return answer.status_code, answer.json()["error"]


class Eraser(Agent):
    """An agent whose task is to erase."""

    def become(self, scene: Scene) -> EraseReply:
        answer = self.try_hello(scene.mint())
        assert answer.status_code == 200, answer.text
        told = msgspec.json.decode(answer.content, type=EraseReply)
        self.reply = told  # type: ignore[assignment]  # only what both kinds have is used
        self.erase = told
        return told

    def planned(self) -> ErasePlan:
        return plan_erase(self.facts, self.erase.task)

    def confirm(self) -> ErasePlan:
        plan = self.planned()
        self.told("plan", dict[str, Any], PlanReport(digest=erase_digest(plan), rendered=render_erase(plan)))
        return plan

    def body(self, plan: ErasePlan) -> EraseReceiptBody:
        disks = tuple(
            ErasedDisk(
                path=one.disk.path,
                serial=one.disk.serial,
                wwn=one.disk.wwn,
                model=one.disk.model,
                size_bytes=one.disk.size_bytes,
                way=one.ways[0],
                result="erased",
                evidence=("no signature is found on it",),
                checked=plan.verify,
                places=9,
                bytes_read=one.disk.size_bytes,
                seconds=1.0,
            )
            for one in plan.disks
        )
        task = self.erase.task
        return EraseReceiptBody(task.task_id, task.attempt_id, task.node, erase_digest(plan), disks, plan.left, ())


def started(scene: Scene, *disks: Disk, **order: Any) -> tuple[str, Eraser]:
    (intent,) = ask(scene, order=EraseOrder(**order))
    agent = Eraser(scene, facts=machine(*disks))
    agent.become(scene)
    return intent.task_id, agent


def test_an_erase_ends_as_done_with_a_signed_receipt_and_the_node_in_local(known: Scene) -> None:
    task_id, agent = started(known)
    assert (known.netboot(), known.task(task_id).kind) == ("cloner", "erase")
    assert agent.erase.task.order.agreed == ("D1 8589934592",)
    body = agent.body(agent.confirm())
    receipt = agent.told("receipt", EraseReceipt, body)
    assert agent.told("receipt", EraseReceipt, body) == receipt, "a lost answer is given again"
    assert (known.task(task_id).state, known.task(task_id).confirmed_by) == (TaskState.DONE, "none")
    assert known.netboot() == "local"
    view = msgspec.json.decode(known.admin("GET", "/receipts/n01").content, type=ReceiptView)
    assert view.receipt == receipt
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(view.server_key))
    key.verify(bytes.fromhex(receipt.signature), erase_statement(body, receipt.accepted_s))


def test_a_dry_run_shows_disks_ways_and_what_stays_and_changes_nothing(known: Scene) -> None:
    told = (EraseAbilities("/dev/vda", can_discard=True),)
    see(known, msgspec.structs.replace(machine(DISK, OTHER), erasing=told))
    before = known.state_dump()
    (intent,) = ask(known, order=EraseOrder(select=(Selector(serial="D1"),)), dry_run=True)
    assert [(disk.serial, disk.ways) for disk in intent.disks] == [("D1", (Way.DISCARD, Way.OVERWRITE))]
    assert ["D2" in line for line in intent.left] == [True]
    assert (intent.task_id, known.state_dump()) == ("", before)


def test_what_is_armed_is_what_was_shown(known: Scene) -> None:
    shown = tuple(ask(known, dry_run=True))
    see(known, machine(DISK, OTHER))
    assert refusal(known, shown=shown)[0] == 409
    assert ask(known, shown=tuple(ask(known, dry_run=True)))[0].task_id


@pytest.mark.parametrize("how", ["node", "group", "serial", "busy", "own", "limit", "passes", "unknown", "nothing"])
def test_what_must_not_be_erased_is_refused(known: Scene, how: str) -> None:
    changes: dict[str, Any] = {}
    if how == "node":
        known.admin("PATCH", "/nodes/n01", {"is_protected": True})
    elif how == "group":
        known.admin("PATCH", "/nodes/n01", {"groups": ["storage"]})
        known.admin("PATCH", "/groups/storage", {"is_protected": True})
    elif how == "serial":
        known.admin("PATCH", "/nodes/n01", {"protected_serials": ["D1"]})
        changes = {"order": EraseOrder(select=(Selector(serial="D*"),))}
    elif how == "busy":
        known.arm(has_identity=False)
    elif how == "own":
        rules = dataclasses.replace(known.core.rules, own_macs=frozenset({"52:54:00:00:00:01"}))
        known.core = dataclasses.replace(known.core, rules=rules)
    elif how == "limit":
        changes = {"limit": 0}
    elif how == "passes":
        changes = {"order": EraseOrder(method="discard", passes=3)}
    elif how == "unknown":
        changes = {"nodes": ("n01", "n99")}
    elif how == "nothing":
        changes = {"order": EraseOrder(select=(Selector(serial="X"),))}
    status, why = refusal(known, **changes)
    assert status in (400, 404, 409)
    assert why
    assert how == "busy" or known.netboot() == "local"


def test_a_machine_with_another_disk_than_was_shown_gets_no_plan_confirmed(known: Scene) -> None:
    task_id, agent = started(known, DISK, OTHER)
    report = PlanReport(digest="00" * 32, rendered="")
    answer = agent.post("plan", report)
    assert (answer.status_code, "D2" in answer.json()["error"]) == (409, True)
    agent.fail(Failure(Stage.PLAN, Cause.NO_DISK, "other disks", "", is_destroyed=False))
    assert (known.task(task_id).state, known.netboot()) == (TaskState.FAILED, "local")


def test_another_plan_than_the_servers_is_refused(known: Scene) -> None:
    _, agent = started(known)
    assert agent.post("plan", PlanReport(digest="00" * 32, rendered="")).status_code == 409
    assert agent.post("receipt", agent.body(agent.planned())).status_code == 409, "no plan was confirmed"


@pytest.mark.parametrize(
    "wrong",
    [
        {"disks": ()},
        {"plan_digest": "00" * 32},
        {"left": ("/dev/vdz: not chosen",)},
        {"disk": {"serial": "D2"}},
        {"disk": {"way": Way.FORMAT}},
        {"disk": {"bytes_read": 0}},
        {"disk": {"places": 0}},
        {"disk": {"evidence": ()}},
        {"disk": {"checked": "full", "bytes_read": 4096}},
    ],
)
def test_a_receipt_that_contradicts_the_plan_is_never_done(known: Scene, wrong: dict[str, Any]) -> None:
    task_id, agent = started(known)
    body = agent.body(agent.confirm())
    changes = dict(wrong)
    if "disk" in changes:
        changes = {"disks": (msgspec.structs.replace(body.disks[0], **changes["disk"]),)}
    answer = agent.post("receipt", msgspec.structs.replace(body, **changes))
    assert answer.status_code == 409
    assert (known.task(task_id).state, known.netboot()) == (TaskState.RUNNING, "cloner")
    assert known.admin("GET", f"/receipts/{task_id}").status_code == 404


def test_an_erase_gets_no_image_no_identity_and_no_commit(known: Scene) -> None:
    _, agent = started(known)
    agent.confirm()
    digest = known.image.version.hex()
    assert agent.get(f"/versions/{digest}/root").status_code == 409
    assert agent.post("identity").status_code == 409
    assert agent.post("commit").status_code == 409
    assert known.admin("POST", "/store/gc", dry_run=True).status_code == 200


def test_a_failed_erase_holds_its_node_and_is_tried_again(known: Scene) -> None:
    task_id, agent = started(known)
    agent.confirm()
    agent.fail(Failure(Stage.ERASE, Cause.NOT_ERASED, "still there", "", is_destroyed=True))
    assert (known.task(task_id).state, known.netboot()) == (TaskState.FAILED, "cloner")
    assert known.admin("POST", f"/tasks/{task_id}/retry").status_code == 200
    assert agent.beat(Stage.ERASE).order == "retry"
    again = Eraser(known, facts=machine())
    assert again.become(known).task.attempt_id != agent.erase.task.attempt_id
    again.told("receipt", EraseReceipt, again.body(again.confirm()))
    assert known.task(task_id).state is TaskState.DONE


def test_an_erased_node_that_holds_is_released_by_its_next_task(known: Scene) -> None:
    _, agent = started(known, then="hold")
    agent.told("receipt", EraseReceipt, agent.body(agent.confirm()))
    assert agent.beat(Stage.REBOOT) == BeatReply("hold", "task 1 is done")
    ask(known)
    assert agent.beat(Stage.REBOOT).order == "retry"


def test_the_plan_of_a_waiting_erase_is_shown(known: Scene) -> None:
    (intent,) = ask(known)
    shown = known.admin("GET", "/plan/n01").json()
    agent = Eraser(known, facts=machine())
    agent.become(known)
    assert shown["digest"] == erase_digest(agent.planned())
    assert "erase /dev/vda" in shown["rendered"]
    assert intent.task_id == "1"


def test_a_node_nobody_has_seen_is_armed_with_a_word_about_it(scene: Scene) -> None:
    scene.add_node()
    (intent,) = ask(scene)
    assert (intent.is_known, intent.agreed) == (False, None)
    assert any("nobody sees them" in note for note in intent.notes)
