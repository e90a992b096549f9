"""Image bytes and secrets go to a live attempt of the right task, and to nobody else (docs: threats 1 and 24)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from cloner_core.admin.tasks import TaskState
from cloner_core.messages import PROTOCOL, Cause, Failure, Stage
from cloner_core.sightings import SshAnswer
from cloner_server.confirming import Confirming
from cloner_server.sshprobe import Expected, Found
from serverbench.scene import START_S, Agent, Scene, facts

MAC2 = "52:54:00:00:00:02"


@pytest.fixture
def agent(scene: Scene) -> Agent:
    scene.add_node()
    scene.arm()
    agent = Agent(scene)
    agent.hello()
    return agent


def blobs(scene: Scene, agent: Agent) -> list[str]:
    assert agent.reply is not None
    version = agent.reply.task.version
    pack = scene.image.packs[0].digest.hex()
    return [
        f"/versions/{version.digest}/root",
        f"/versions/{version.digest}/verified",
        f"/versions/{version.digest}/packs/{pack}",
        f"/versions/{version.digest}/placements/{pack}",
        f"/segments/{scene.image.segments[0].ref.digest.hex()}",
        f"/packmaps/{version.pack_map}",
    ]


def is_nothing(answer: httpx.Response) -> bool:
    """Whether an answer is a refusal that carries a Fault and no byte of an image."""
    return answer.status_code in (401, 403, 404, 409) and set(answer.json()) == {"error", "hint", "faults", "status"}


def test_no_blob_without_a_credential(scene: Scene, agent: Agent) -> None:
    for path in blobs(scene, agent):
        assert scene.agents.get(f"/agent/v1{path}").status_code == 401
        assert agent.get(path, Authorization="Bearer guess").status_code == 401
        assert agent.get(path, Authorization="Basic cm9vdDpyb290").status_code == 401


def test_no_blob_after_the_task_has_ended(scene: Scene, agent: Agent) -> None:
    paths = blobs(scene, agent)
    agent.deploy()
    assert all(is_nothing(agent.get(path)) for path in paths)


def test_no_blob_after_a_failure(scene: Scene, agent: Agent) -> None:
    paths = blobs(scene, agent)
    agent.fail(Failure(stage=Stage.RESTORE, cause=Cause.DISK_IO, message="m", hint="h", is_destroyed=True))
    assert all(is_nothing(agent.get(path)) for path in paths)


def test_no_blob_of_another_version(scene: Scene, agent: Agent) -> None:
    from cloner_core.image.compression import compress
    from cloner_server.state import images
    from store_images import make_image, some_contents

    other = make_image(some_contents(9), name="secret")
    store = scene.core.catalog.store
    for segment in other.segments:
        store.put_segment(segment.ref.digest, len(segment.raw), compress(segment.raw))
    for pack in other.packs:
        store.put_pack(pack.digest, pack.stored)
    record = store.publish(other.draft)
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("t"), record.image, record.number, record.version)
    assert agent.reply is not None
    own = agent.reply.task.version.digest
    theirs = other.packs[0].digest.hex()
    paths = [
        f"/versions/{record.version}/root",
        f"/versions/{record.version}/packs/{theirs}",
        f"/versions/{own}/packs/{theirs}",
        f"/versions/{own}/placements/{theirs}",
        f"/segments/{other.segments[0].ref.digest.hex()}",
        f"/packmaps/{store.signed_map(bytes.fromhex(record.version)).map}",
    ]
    assert all(agent.get(path).status_code == 404 for path in paths)


@pytest.mark.parametrize(
    "name", ["", "..", "..%2f..%2fcloner.db", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "\u00e4" * 64, "%00"]
)
def test_a_name_that_is_no_digest_leads_nowhere(agent: Agent, name: str) -> None:
    assert agent.reply is not None
    digest = agent.reply.task.version.digest
    for path in (f"/segments/{name}", f"/versions/{digest}/packs/{name}", f"/versions/{name}/root"):
        assert agent.get(path).status_code in (400, 404)


def test_a_credential_alone_controls_nothing(agent: Agent) -> None:
    assert agent.reply is not None
    for name in ("beat", "plan", "identity", "commit", "receipt", "fail", "rebooting"):
        assert agent.post(name, {}, **{"Cloner-Proof": ""}).status_code in (400, 401)
        assert agent.post(name, {}, **{"Cloner-Proof": "00" * 64}).status_code in (400, 401)
    thief = Agent(agent.scene)
    thief.reply = agent.reply
    assert thief.post("identity").status_code == 401


def test_a_proof_is_good_for_its_own_request_only(agent: Agent) -> None:
    from cloner_core.messages import proof_statement

    assert agent.reply is not None
    credential = agent.reply.credential.value
    base = f"/agent/v1/attempts/{agent.reply.task.attempt_id}"
    proof = agent.key.sign(proof_statement("POST", f"{base}/rebooting", b"{}", credential)).hex()
    headers = {"Authorization": f"Bearer {credential}", "Cloner-Proof": proof}
    assert agent.scene.agents.post(f"{base}/commit", content=b"{}", headers=headers).status_code == 401
    assert agent.scene.agents.post(f"{base}/rebooting", content=b"{} ", headers=headers).status_code == 401
    assert agent.scene.agents.post(f"{base}/rebooting", content=b"{}", headers=headers).status_code == 200


def test_one_attempt_cannot_act_for_another(scene: Scene, agent: Agent) -> None:
    scene.add_node("n02", MAC2)
    scene.arm("n02")
    other = Agent(scene, facts(MAC2))
    other.hello(scene.mint("n02"))
    mine, theirs = agent.reply, other.reply
    assert mine is not None
    assert theirs is not None
    import msgspec

    agent.reply = msgspec.structs.replace(mine, task=theirs.task)
    assert agent.post("identity").status_code == 401


def test_a_claim_for_one_node_is_of_no_use_to_another(scene: Scene, agent: Agent) -> None:
    scene.add_node("n02", MAC2)
    task_id = scene.arm("n02")
    assert Agent(scene, facts()).try_hello(scene.mint("n02")).status_code == 409
    assert scene.task(task_id).state is TaskState.FROZEN


HELLOS: list[tuple[str, dict[str, Any], int]] = [
    ("newer protocol", {"protocol": PROTOCOL + 1, "future": True}, 400),
    ("older protocol", {"protocol": 0}, 400),
    ("unknown field", {"extra": 1}, 400),
    ("short key", {"public_key": "ab"}, 400),
    ("no facts", {"facts": {}}, 400),
]


@pytest.mark.parametrize(("changes", "status"), [row[1:] for row in HELLOS], ids=[row[0] for row in HELLOS])
def test_a_hello_that_is_wrong_in_itself_uses_no_claim(scene: Scene, changes: dict[str, Any], status: int) -> None:
    scene.add_node()
    scene.arm()
    token = scene.mint()
    before = scene.state_dump()
    answer = Agent(scene).try_hello(token, **changes)
    assert answer.status_code == status
    assert scene.state_dump() == before
    if "protocol" in changes:
        assert "rebuild the initramfs" in answer.json()["hint"]
    Agent(scene).hello(token)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"protocol": "1"}', b"[" * 100_000])
def test_a_hello_that_is_no_hello_is_answered_with_a_fault(scene: Scene, body: bytes) -> None:
    answer = scene.agents.post("/agent/v1/hello", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_body_beyond_the_limit_is_refused(scene: Scene) -> None:
    assert scene.agents.post("/agent/v1/hello", content=b" " * (5 << 20)).status_code == 413


def test_unknown_paths_and_methods_get_a_fault(scene: Scene) -> None:
    for answer in (
        scene.agents.get("/agent/v1/nothing"),
        scene.agents.get("/agent/v1/hello"),
        scene.agents.get("/v1/nodes"),
    ):
        assert answer.status_code in (404, 405)
        assert "error" in answer.json()


ADMIN: list[tuple[str, str, object, int, tuple[str, ...]]] = [
    ("POST", "/nodes", {"name": "B_1", "macs": ["x", "52:54:00:00:00:0g"]}, 400, ("'x'", "0g", "B_1")),
    ("POST", "/nodes", {"name": "n05", "macs": [], "image": ""}, 400, ("MAC",)),
    (
        "POST",
        "/nodes",
        {"name": "n05", "macs": ["52:54:00:00:00:05"], "image": "no", "layout": "nope"},
        404,
        ("no", "nope"),
    ),
    ("POST", "/nodes", {"name": "n05", "macs": ["52:54:00:00:00:01"]}, 409, ("n01",)),
    ("POST", "/nodes", {"name": "n01", "macs": ["52:54:00:00:00:05"]}, 409, ("n01",)),
    ("POST", "/nodes", {"name": "n05", "mac": "52:54:00:00:00:05"}, 400, ("mac",)),
    ("PATCH", "/nodes/n01", {"revision": 99, "image": "golden"}, 409, ("revision",)),
    ("PATCH", "/nodes/n01", {"image": "nope"}, 404, ("nope",)),
    ("PATCH", "/nodes/n01", {"kernel_arguments": ["a b", "${x}"]}, 400, ("a b", "${x}")),
    ("PATCH", "/nodes/n77", {"image": "golden"}, 404, ("n77",)),
    ("DELETE", "/nodes/n77", None, 404, ("n77",)),
    (
        "POST",
        "/deploy",
        {"nodes": ["n01", "n77", "n78"], "image": "no", "layout": "nope"},
        404,
        ("n77", "n78", "no", "nope"),
    ),
    ("POST", "/deploy", {"nodes": []}, 400, ("node",)),
    ("POST", "/deploy", {"nodes": ["n01"], "image": "golden", "version": 9}, 404, ("golden:9",)),
    ("POST", "/deploy", {"nodes": [f"n{i}" for i in range(40)]}, 409, ("40", "32")),
    ("POST", "/netboot", {"nodes": ["n77"], "value": "local"}, 404, ("n77",)),
    ("POST", "/netboot", {"nodes": ["n01"], "value": "rescue"}, 409, ("rescue",)),
    ("POST", "/netboot", {"nodes": ["n01"], "value": "moon"}, 400, ()),
    ("GET", "/tasks/999", None, 404, ("999",)),
    ("GET", "/tasks/..", None, 404, ()),
    ("POST", "/tasks/999/abort", None, 404, ("999",)),
    ("GET", "/receipts/n01", None, 404, ("n01",)),
    ("GET", "/plan/n01", None, 404, ("n01", "inventory")),
    ("GET", "/layouts/nope", None, 404, ("nope",)),
    ("GET", "/images/nope", None, 404, ("nope",)),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"), ADMIN, ids=[f"{r[0]} {r[1]} {n}" for n, r in enumerate(ADMIN)]
)
def test_a_wrong_request_of_an_admin_names_every_fault_and_changes_nothing(
    scene: Scene, method: str, path: str, body: object, status: int, words: tuple[str, ...]
) -> None:
    scene.add_node()
    before = scene.state_dump()
    answer = scene.admin(method, path, body)
    assert answer.status_code == status, answer.text
    told = json.dumps(answer.json(), ensure_ascii=False)
    assert [word for word in words if word not in told] == []
    assert scene.state_dump() == before


def test_a_dry_run_meets_the_same_rules_and_changes_nothing(scene: Scene) -> None:
    scene.add_node()
    before = scene.state_dump()
    node = {"name": "n05", "macs": ["52:54:00:00:00:05"]}
    assert scene.admin("POST", "/nodes", node, dry_run="true").json()["name"] == "n05"
    assert scene.admin("POST", "/nodes", {**node, "macs": ["x"]}, dry_run="true").status_code == 400
    assert scene.admin("PATCH", "/nodes/n01", {"boot_order": "local-first"}, dry_run="true").status_code == 200
    assert scene.admin("DELETE", "/nodes/n01", dry_run="true").status_code == 200
    assert scene.admin("POST", "/deploy", {"nodes": ["n01"], "dry_run": True}).json()[0]["image"] == "golden"
    assert scene.admin("POST", "/netboot", {"nodes": ["n01"], "value": "cloner", "dry_run": True}).status_code == 200
    assert scene.state_dump() == before


def test_a_protected_node_and_this_machine_are_not_deployed(scene: Scene) -> None:
    import dataclasses

    from cloner_server.tasks import arming

    scene.add_node(is_protected=True)
    answer = scene.admin("POST", "/deploy", {"nodes": ["n01"]})
    assert (answer.status_code, "protected" in answer.json()["error"]) == (409, True)
    scene.add_node("n02", MAC2)
    rules = dataclasses.replace(scene.core.rules, own_macs=frozenset({MAC2}))
    from cloner_core.admin.deploying import DeployRequest
    from cloner_core.errors import RefusedError

    with scene.core.database.read() as connection, pytest.raises(RefusedError, match="this very server"):
        arming.intend(connection, DeployRequest(nodes=("n02",)), rules)


def test_a_second_deploy_waits_for_the_first(scene: Scene, agent: Agent) -> None:
    answer = scene.admin("POST", "/deploy", {"nodes": ["n01"]})
    assert answer.status_code == 409
    assert scene.admin("DELETE", "/nodes/n01").status_code == 409


def test_an_overdue_confirmation_fails_the_task_and_a_late_one_mends_it(scene: Scene, agent: Agent) -> None:
    body, _ = agent.deploy()
    task_id = body.task_id

    async def silent(addresses: Sequence[str], expected: Expected) -> Found:
        return Found(SshAnswer.SILENT)

    def look(started_s: float) -> None:
        asyncio.run(Confirming(scene.core, lambda: started_s, silent).turn())

    scene.clock.now_s += 1801
    look(scene.clock.now_s - 60)
    assert scene.task(task_id).state is TaskState.UNCONFIRMED, "the server was away itself"
    look(START_S)
    failure = scene.task(task_id).failure
    assert failure is not None
    assert failure.cause is Cause.UNCONFIRMED
    from cloner_server.tasks import endings

    with scene.core.database.write() as connection:
        assert endings.accept_confirm(connection, scene.core.act("clone"), agent.confirmation(body)) is None
    assert scene.task(task_id).state is TaskState.DONE


def test_eight_writers_lose_no_update(scene: Scene) -> None:
    import threading

    scene.add_node()
    changed = []

    def write(worker: int) -> None:
        for turn in range(10):
            while True:
                seen = scene.admin("GET", "/nodes/n01").json()
                words = [*seen["kernel_arguments"], f"w{worker}.{turn}"]
                patch = {"kernel_arguments": words, "revision": seen["revision"]}
                if scene.admin("PATCH", "/nodes/n01", patch).status_code == 200:
                    changed.append(words[-1])
                    break

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(scene.admin("GET", "/nodes/n01").json()["kernel_arguments"]) == sorted(changed)
    assert len(changed) == 80


GREAT = 10**26


@pytest.mark.parametrize(
    ("method", "path", "body", "query"),
    [
        ("GET", "/events", None, {"after": GREAT}),
        ("GET", "/events", None, {"after": -GREAT}),
        ("GET", "/tasks/1/log", None, {"after": GREAT}),
        ("GET", "/layouts/simple", None, {"number": GREAT}),
        ("GET", "/images/golden", None, {"number": GREAT}),
        ("GET", "/identity/n01", None, {"image": "golden", "version": GREAT}),
        ("PATCH", "/nodes/n01", {"image": "golden", "version": GREAT}, {}),
        ("POST", "/deploy", {"nodes": ["n02"], "image": "golden", "version": GREAT}, {}),
    ],
    ids=str,
)
def test_a_number_too_great_for_the_database_is_the_askers_fault(
    scene: Scene, method: str, path: str, body: object, query: dict[str, int]
) -> None:
    scene.add_node()
    scene.add_node("n02", MAC2)
    scene.arm()
    before = scene.state_dump()
    answer = scene.admin(method, path, body, **query)
    assert (answer.status_code, "greater" in answer.json()["error"]) == (400, True)
    assert scene.state_dump() == before
