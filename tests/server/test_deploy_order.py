"""The order of a deploy as the server enforces it: each grant only after what must come before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import update

from agentbench.programs import pe
from cloner_core.admin.nodes import NodePatch
from cloner_core.admin.tasks import TaskState
from cloner_core.image.digest import digest
from cloner_core.messages import Cause, DiskWritten, Failure, PlanReport, Receipt, Stage, Vaulted, receipt_statement
from cloner_core.plan import plan_digest, render
from cloner_server.state import images, nodes
from cloner_server.state.tables import tasks
from cloner_server.store.local import LocalStore
from cloner_server.tasks import endings
from serverbench.scene import Agent, Scene
from store_images import BOOTABLE, make_image


@pytest.fixture
def task_id(scene: Scene) -> str:
    scene.add_node()
    return scene.arm()


@pytest.fixture
def agent(scene: Scene, task_id: str) -> Agent:
    agent = Agent(scene)
    agent.hello()
    return agent


def test_a_deploy_goes_from_queued_to_done(scene: Scene) -> None:
    scene.add_node()
    task_id = scene.arm()
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.QUEUED, "cloner")
    token = scene.mint()
    assert scene.task(task_id).state is TaskState.BOOTING
    agent = Agent(scene)
    agent.hello(token)
    assert scene.task(task_id).state is TaskState.RUNNING
    assert agent.get(f"/versions/{scene.task(task_id).digest}/verified").status_code == 200
    body, receipt = agent.deploy()
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.UNCONFIRMED, "local")
    key = Ed25519PublicKey.from_public_bytes(scene.core.site.public_key)
    key.verify(bytes.fromhex(receipt.signature), receipt_statement(body, receipt.accepted_s))
    with scene.core.database.write() as connection:
        assert endings.accept_confirm(connection, scene.core.act("clone"), agent.confirmation(body)) is None
    assert scene.task(task_id).state is TaskState.DONE
    with scene.core.database.read() as connection:
        found = endings.find_receipt(connection, "n01")
    assert isinstance(found, Receipt)
    assert found.confirmed_s is not None


def test_every_blob_of_the_version_reaches_the_node(scene: Scene, agent: Agent) -> None:
    assert agent.reply is not None
    version = agent.reply.task.version
    for segment in scene.image.segments:
        assert agent.get(f"/segments/{segment.ref.digest.hex()}").status_code == 200
    assert agent.get(f"/packmaps/{version.pack_map}").status_code == 200
    for pack in scene.image.packs:
        path = f"/versions/{version.digest}/packs/{pack.digest.hex()}"
        assert agent.get(path).content == pack.stored
        part = agent.get(path, Range="bytes=3-9")
        assert (part.status_code, part.content) == (206, pack.stored[3:10])
        assert agent.get(f"/versions/{version.digest}/placements/{pack.digest.hex()}").status_code == 200


def test_the_servers_plan_is_the_agents(scene: Scene, agent: Agent) -> None:
    agent.confirm_plan()


def test_another_plan_is_refused(scene: Scene, agent: Agent) -> None:
    answer = agent.post("plan", PlanReport(digest="00" * 32, rendered=""))
    assert answer.status_code == 409
    assert "planned" in answer.json()["error"]


def test_the_plan_shown_before_is_the_plan_that_is_run(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    with scene.core.database.write() as connection:
        nodes.remember_facts(connection, scene.core.act("test"), "n01", agent.facts)
    shown = scene.admin("GET", "/plan/n01").json()
    agent.hello()
    agent.confirm_plan()
    with scene.core.database.read() as connection:
        from cloner_server.state import tasks as rows

        attempt = rows.last_attempt(connection, int(task_id))
    assert attempt is not None
    assert (shown["digest"], shown["rendered"]) == (attempt.plan_digest, attempt.plan)


def test_nothing_is_granted_out_of_order(scene: Scene, agent: Agent) -> None:
    assert agent.post("identity").status_code == 409
    assert agent.post("commit").status_code == 409
    plan = agent.confirm_plan()
    assert agent.post("commit").status_code == 409
    vaulted = agent.told("identity", Vaulted)
    assert agent.post("receipt", agent.receipt_body(plan, vaulted)).status_code == 409
    agent.told("commit", dict[str, Any])
    agent.told("receipt", Receipt, agent.receipt_body(plan, vaulted))


def test_a_lost_receipt_is_acknowledged_again_and_alike(scene: Scene, agent: Agent) -> None:
    body, receipt = agent.deploy()
    scene.clock.now_s += 100
    assert agent.told("receipt", Receipt, body) == receipt


@pytest.mark.parametrize("field", ["node", "version_digest", "plan_digest", "machine_id", "layout", "attempt_id"])
def test_a_receipt_that_contradicts_the_task_is_refused(scene: Scene, agent: Agent, field: str) -> None:
    body = agent.receipt_body(*agent.up_to_commit())
    answer = agent.post("receipt", msgspec.structs.replace(body, **{field: "other"}))
    assert answer.status_code == 409
    assert field in answer.json()["error"]
    assert scene.netboot() == "cloner"


@pytest.mark.parametrize(
    "wrong",
    [
        {"disks": ()},
        {"disks": (DiskWritten("system", "/dev/vdb", "D1", "VirtDisk", 8 << 30),)},
        {"disks": (DiskWritten("system", "/dev/vda", "D2", "VirtDisk", 8 << 30),)},
        {"root_part_uuid": "00000000-0000-4000-8000-000000000000"},
    ],
    ids=["no disk", "other path", "other serial", "other root"],
)
def test_a_receipt_of_another_plan_is_never_done(
    scene: Scene, task_id: str, agent: Agent, wrong: dict[str, Any]
) -> None:
    body = agent.receipt_body(*agent.up_to_commit())
    answer = agent.post("receipt", msgspec.structs.replace(body, **wrong))
    assert (answer.status_code, next(iter(wrong)) in answer.json()["error"]) == (409, True)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.RUNNING, "cloner")
    assert scene.admin("GET", f"/receipts/{task_id}").status_code == 404
    refused = Failure(stage=Stage.RECEIPT, cause=Cause.REFUSED, message="refused", hint="", is_destroyed=True)
    agent.fail(refused)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.FAILED, "cloner")
    assert agent.post("receipt", body).status_code == 409, "not even the right one, once it failed"


FAILURE = Failure(stage=Stage.PLAN, cause=Cause.NO_DISK, message="no disk", hint="add one", is_destroyed=False)


def test_a_failure_before_the_disk_is_touched_puts_netboot_back(scene: Scene, task_id: str, agent: Agent) -> None:
    agent.fail(FAILURE)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.FAILED, "local")
    assert scene.task(task_id).failure == FAILURE


def test_a_failure_after_it_holds_until_retry(scene: Scene, task_id: str, agent: Agent) -> None:
    agent.beat(Stage.RESTORE)
    # The agent may be wrong about itself: a beat from beyond the first destructive stage is believed.
    agent.fail(msgspec.structs.replace(FAILURE, stage=Stage.RESTORE))
    failure = scene.task(task_id).failure
    assert failure is not None
    assert failure.is_destroyed
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.FAILED, "cloner")
    assert agent.beat().order == "hold"
    assert scene.admin("POST", f"/tasks/{task_id}/retry").status_code == 200
    assert agent.beat().order == "retry"
    again = Agent(scene)
    again.hello()
    again.deploy()
    assert scene.task(task_id).state is TaskState.UNCONFIRMED
    assert agent.post("beat").status_code in (400, 401)


def test_an_aborted_attempt_is_told_and_gets_nothing_more(scene: Scene, task_id: str, agent: Agent) -> None:
    agent.confirm_plan()
    assert scene.admin("POST", f"/tasks/{task_id}/abort").status_code == 200
    assert agent.beat(Stage.PLAN).order == "abort"
    assert agent.post("identity").status_code == 409
    assert agent.get(f"/versions/{scene.task(task_id).digest}/root").status_code == 409
    agent.fail(msgspec.structs.replace(FAILURE, cause=Cause.ABORTED))
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.ABORTED, "local")


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        (TaskState.FAILED, "cloner task retry 1, or cloner deploy --nodes n01"),
        (TaskState.ABORTED, "cloner task retry 1, or cloner deploy --nodes n01"),
        (TaskState.DONE, "cloner task show 1 says how it ended"),
    ],
)
def test_an_abort_of_what_has_ended_says_what_to_do(scene: Scene, task_id: str, state: TaskState, hint: str) -> None:
    with scene.core.database.write() as connection:
        connection.execute(update(tasks).values(state=state.value))
    answer = scene.admin("POST", f"/tasks/{task_id}/abort")
    assert (answer.status_code, answer.json()["hint"]) == (409, hint)
    assert answer.json()["error"] == f"task {task_id} is {state.value}: there is nothing to abort"


def test_a_queued_task_aborted_leaves_the_node_local(scene: Scene, task_id: str) -> None:
    token = scene.mint()
    scene.admin("POST", f"/tasks/{task_id}/abort")
    assert scene.netboot() == "local"
    assert Agent(scene).try_hello(token).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [{"machine_id": "0" * 32}, {"root_part_uuid": "00000000-0000-4000-8000-000000000000"}, {"secret": "guess"}],
    ids=lambda changes: next(iter(changes)),
)
def test_another_system_cannot_confirm(scene: Scene, task_id: str, agent: Agent, changes: dict[str, str]) -> None:
    body, _ = agent.deploy()
    with scene.core.database.write() as connection:
        call = agent.confirmation(body, **changes)
        assert endings.accept_confirm(connection, scene.core.act("clone"), call) is not None
    assert scene.task(task_id).state is TaskState.UNCONFIRMED


@pytest.mark.parametrize("told", ["0" * 64, ""], ids=["others", "none"])
def test_a_receipt_for_other_packs_is_refused(scene: Scene, task_id: str, agent: Agent, told: str) -> None:
    plan, vaulted = agent.up_to_commit()
    body = agent.receipt_body(plan, vaulted)
    answer = agent.post("receipt", msgspec.structs.replace(body, packs_digest=told))
    assert answer.status_code == 409
    assert f"packs_digest is '{told}', want '" in answer.json()["error"]
    packs = b"".join(pack.digest for pack in scene.image.packs)
    agent.told("receipt", Receipt, msgspec.structs.replace(body, packs_digest=digest(packs).hex()))
    assert scene.task(task_id).state is TaskState.UNCONFIRMED


def test_the_vault_gives_the_same_identity_at_every_deploy(scene: Scene, agent: Agent) -> None:
    _, first = agent.up_to_commit()
    body = agent.receipt_body(agent.plan(), first)
    agent.told("receipt", Receipt, body)
    with scene.core.database.write() as connection:
        endings.accept_confirm(connection, scene.core.act("clone"), agent.confirmation(body))
    scene.arm()
    again = Agent(scene)
    again.hello()
    _, second = again.up_to_commit()
    assert second.machine_id == first.machine_id
    assert [(key.private.value, key.public) for key in second.host_keys] == [
        (key.private.value, key.public) for key in first.host_keys
    ]
    assert second.random_seed != first.random_seed


@pytest.mark.parametrize("part", ["pack", "segment", "placements", "index"])
def test_a_damaged_part_is_found_before_anything_is_destroyed(scene: Scene, agent: Agent, part: str) -> None:
    assert agent.reply is not None
    digest = agent.reply.task.version.digest
    path = _part_path(cast(LocalStore, scene.core.catalog.store), bytes.fromhex(digest), part)
    whole = path.read_bytes()
    assert agent.get(f"/versions/{digest}/verified").status_code == 200
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    answer = agent.get(f"/versions/{digest}/verified")
    assert (answer.status_code, answer.json()["status"]) == (409, 7)
    assert path.name[:64] in answer.json()["error"]
    plan = agent.plan()
    assert agent.post("plan", PlanReport(digest=plan_digest(plan), rendered="")).status_code == 409
    path.unlink()
    assert agent.get(f"/versions/{digest}/verified").status_code == 404
    path.write_bytes(whole)
    assert agent.get(f"/versions/{digest}/verified").status_code == 200


def _part_path(store: LocalStore, version: bytes, part: str) -> Path:
    name = bytes.fromhex(store.signed_map(version).map)
    match part:
        case "pack":
            return store.pack_path(store.map_of(name).packs[0].digest)
        case "segment":
            return store.segment_path(store.tree_root(version).segments[0].digest)
        case "placements":
            return store.placements_path(name)
        case _:
            return store.index_path(store.map_of(name).index_digest)


@pytest.mark.parametrize("lacking", sorted(BOOTABLE))
def test_an_image_that_could_not_boot_is_refused_before_anything_is_destroyed(scene: Scene, lacking: bytes) -> None:
    answer = _told_of(scene, {path: content for path, content in BOOTABLE.items() if path != lacking})
    assert answer.status_code == 422
    assert "lacks a" in answer.json()["error"]


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"root=UUID=2a65a371-7ca3-49c3-91b3-21efb4b17de5 ro", 422), (b"root=LABEL=root", 200), (b"", 200)],
)
def test_a_signed_command_line_that_finds_no_clone_is_refused_before_anything_is_destroyed(
    scene: Scene, line: bytes, status: int
) -> None:
    # a kernel of more than one chunk, so that its command line is not where it begins
    program = pe((".linux", b"MZ" + bytes(3 << 20)), (".cmdline", line))
    answer = _told_of(scene, {b"boot/efi/EFI/Linux/a.efi": program, b"etc/fstab": b"# none"})
    assert answer.status_code == status
    assert status == 200 or "signed command line" in answer.json()["error"]


def _told_of(scene: Scene, contents: dict[bytes, bytes]) -> Any:
    """Arm the node with an image of `contents` and return what the server says to the agent's plan."""
    image = make_image(contents, name="unbootable")
    image.put(cast(LocalStore, scene.core.catalog.store))
    record = scene.core.catalog.store.publish(image.draft)
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("test"), record.image, record.number, record.version)
    scene.add_node()
    with scene.core.database.write() as connection:
        nodes.change_node(connection, scene.core.act("test"), "n01", NodePatch(image="unbootable"))
    scene.arm()
    agent = Agent(scene)
    agent.hello()
    plan = agent.plan()
    return agent.post("plan", PlanReport(digest=plan_digest(plan), rendered=render(plan)))
