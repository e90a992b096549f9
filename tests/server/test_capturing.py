"""Captures of nodes at rest, on the server: armed for one image, published once, and nothing else by that attempt."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import httpx
import msgspec
import pytest

from cloner_core.admin.deploying import CaptureIntent, CaptureRequest, NetbootRequest
from cloner_core.admin.tasks import TaskState
from cloner_core.atrest import CaptureOrder, CaptureReply, DiskKeys, LayoutFound, LayoutTold
from cloner_core.image.compression import compress
from cloner_core.image.options import StoredOptions
from cloner_core.image.version import Draft, VersionRecord
from cloner_core.layout import Layout, parse_layout
from cloner_core.messages import Beat, BeatReply, Cause, Failure, Progress, Stage, proof_statement
from cloner_server import recoverykeys
from cloner_server.state import imageoptions, layouts
from cloner_server.store.local import LocalStore
from serverbench.scene import LAYOUT, Agent, Scene, open_scene
from store_images import BOOTABLE, Image, make_image, some_contents

ORDER = CaptureOrder("caught", StoredOptions("found"), keeps_options=True, message="at rest")
FOUND = parse_layout(LAYOUT.replace('"simple"', '"found"'))
OTHER = parse_layout(LAYOUT.replace('"simple"', '"found"').replace("512MiB", "600MiB"))
NEW = {b"etc/new": b"new"}


class Capturer(Agent):
    """An agent whose task is to capture."""

    def become(self) -> CaptureReply:
        answer = self.try_hello(self.scene.mint())
        assert answer.status_code == 200, answer.text
        told = msgspec.json.decode(answer.content, type=CaptureReply)
        self.reply = told  # type: ignore[assignment]  # only what all kinds have is used
        return told

    def send(self, method: str, name: str, body: bytes = b"") -> httpx.Response:
        assert self.reply is not None
        path = f"/agent/v1/attempts/{self.reply.task.attempt_id}/{name}"
        credential = self.reply.credential.value
        proof = self.key.sign(proof_statement(method, path, body, credential)).hex()
        headers = {"Authorization": f"Bearer {credential}", "Cloner-Proof": proof}
        return self.scene.agents.request(method, path, content=body or None, headers=headers)

    def put(self, image: Image) -> None:
        for segment in image.segments:
            name = f"segments/{segment.ref.digest.hex()}/{len(segment.raw)}"
            assert self.send("PUT", name, compress(segment.raw)).status_code == 200
        for pack in image.packs:
            assert self.send("PUT", f"packs/{pack.digest.hex()}", pack.stored).status_code == 200

    def publish(self, image: Image, **changes: Any) -> httpx.Response:
        draft = msgspec.structs.replace(image.draft, **changes)
        return self.send("POST", "publish", msgspec.msgpack.encode(draft))

    def layout(self, found: Layout | None, *, is_to_be_kept: bool = False, why: str = "") -> httpx.Response:
        return self.post("layout", LayoutFound(found, why, is_to_be_kept))


def ask(scene: Scene, order: CaptureOrder | None = ORDER, **fields: Any) -> httpx.Response:
    return scene.admin("POST", "/capture", CaptureRequest(node="n01", order=order, **fields))


def started(scene: Scene, order: CaptureOrder | None = ORDER) -> tuple[str, Capturer]:
    answer = ask(scene, order)
    assert answer.status_code == 200, answer.text
    agent = Capturer(scene)
    agent.become()
    return msgspec.json.decode(answer.content, type=CaptureIntent).task_id, agent


def image(name: str = "caught") -> Image:
    return make_image(some_contents() | BOOTABLE | NEW, name)


@pytest.fixture
def known(scene: Scene) -> Scene:
    scene.add_node()
    return scene


def test_a_capture_ends_as_done_with_its_version_and_the_node_in_local(known: Scene) -> None:
    task_id, agent = started(known)
    assert (known.netboot(), known.task(task_id).kind, known.task(task_id).version) == ("capture", "capture", 0)
    told = msgspec.json.decode(agent.layout(FOUND).content, type=LayoutTold)
    assert (told.layout, told.free_bytes > 0) == (FOUND, True)
    with known.core.database.read() as connection:
        assert [one.name for one in layouts.list_layouts(connection)] == ["simple"], "kept only when all is known"
    agent.layout(FOUND, is_to_be_kept=True)
    caught = image()
    agent.put(caught)
    first, second = (agent.publish(caught, author="mallory", message="mine", source="x") for _ in "12")
    record = msgspec.json.decode(first.content, type=VersionRecord)
    assert (record.number, record.author, record.source, record.message) == (1, "root", "n01", "at rest")
    assert second.content == first.content, "a lost answer is given again"
    task = known.task(task_id)
    assert (task.state, task.version, task.digest, task.layout_number) == (TaskState.DONE, 1, record.version, 1)
    assert known.netboot() == "local"
    assert known.admin("GET", "/images/caught").json()["author"] == "root"
    with known.core.database.read() as connection:
        assert imageoptions.view(connection, "caught").options == ORDER.options


def test_its_credential_opens_one_image_and_no_other_work(known: Scene) -> None:
    task_id, agent = started(known)
    other = image("golden")
    agent.put(other)
    refused = agent.publish(other)
    assert (refused.status_code, known.task(task_id).state) == (409, TaskState.RUNNING)
    assert f"task {task_id} captures the image 'caught' and no other" in refused.text
    assert agent.send("GET", "base/golden").status_code == 404
    assert agent.send("GET", "base/caught").status_code == 200
    for name in ("identity", "commit", "plan"):
        assert agent.post(name, {"digest": "", "rendered": ""} if name == "plan" else {}).status_code == 409, name
    assert agent.get(f"/versions/{known.image.version.hex()}/root").status_code == 409


def test_a_deploy_puts_nothing_and_a_stranger_is_turned_away_before_his_body_is_read(known: Scene) -> None:
    known.arm()
    agent = Capturer(known)
    agent.hello()
    assert agent.send("PUT", f"packs/{'0' * 64}", b"x").status_code == 409
    answer = known.agents.post(
        f"/agent/v1/attempts/{agent.reply and agent.reply.task.attempt_id}/publish", content=b"x"
    )
    assert answer.status_code == 401


def test_no_request_goes_without_the_proof_of_its_body(known: Scene) -> None:
    _, agent = started(known)
    assert agent.reply is not None
    (pack,) = make_image({b"etc/own": b"of this test"}).packs
    path = f"/agent/v1/attempts/{agent.reply.task.attempt_id}/packs/{pack.digest.hex()}"
    headers = {"Authorization": f"Bearer {agent.reply.credential.value}"}
    assert known.agents.put(path, content=pack.stored, headers=headers).status_code == 401
    assert known.core.catalog.store.keep_packs({pack.digest: len(pack.stored)}) == [pack.digest]


@pytest.mark.parametrize(
    ("conflict", "kept", "numbers"), [("prompt", None, 1), ("server", FOUND, 1), ("commandline", OTHER, 2)]
)
def test_of_another_layout_the_policy_decides_and_nobody_is_asked(
    known: Scene, conflict: Any, kept: Layout | None, numbers: int
) -> None:
    with known.core.database.write() as connection:
        layouts.add_layout(connection, known.core.act("test"), FOUND)
    _, agent = started(known, msgspec.structs.replace(ORDER, conflict=conflict))
    answer = agent.layout(OTHER, is_to_be_kept=True)
    if kept is None:
        assert answer.status_code == 409
        assert "--update-conflict" in answer.json()["hint"]
        assert "layout found:1 is another one than the node has\n  - " in answer.json()["error"]
    else:
        told = msgspec.json.decode(answer.content, type=LayoutTold)
        assert told.layout == kept
        assert "is another one than the node has" in told.notes[0]
    with known.core.database.read() as connection:
        assert layouts.get_layout(connection, "found").number == numbers


def test_disks_that_no_layout_describes_need_one_that_is_there(known: Scene) -> None:
    _, agent = started(known)
    answer = agent.layout(None, why="/dev/vdb is part of a ZFS pool")
    assert (answer.status_code, answer.json()["error"]) == (409, "/dev/vdb is part of a ZFS pool")
    with known.core.database.write() as connection:
        layouts.add_layout(connection, known.core.act("test"), FOUND)
    assert msgspec.json.decode(agent.layout(None, why="ZFS").content, type=LayoutTold).layout == FOUND


def test_a_server_that_was_killed_before_it_could_answer_has_published_once(known: Scene) -> None:
    """The version is in the store; no row, no ended task: the agent asks again, and it is this version."""
    task_id, agent = started(known)
    agent.layout(FOUND, is_to_be_kept=True)
    caught = image()
    agent.put(caught)
    told = {"message": "at rest", "author": "root", "source": "n01", "after": 0}
    known.core.catalog.store.publish(msgspec.structs.replace(caught.draft, **told))
    answer = agent.publish(caught, after=0)
    assert (answer.status_code, answer.json()["number"]) == (200, 1)
    assert (known.task(task_id).state, known.core.catalog.store.version("caught").number) == (TaskState.DONE, 1)


def test_a_request_sent_again_while_its_first_still_publishes_waits_and_is_told_the_same(known: Scene) -> None:
    task_id, agent = started(known)
    agent.layout(FOUND, is_to_be_kept=True)
    caught = image()
    agent.put(caught)
    met = threading.Barrier(2)

    class Slow(LocalStore):
        def publish(self, draft: Draft, *, is_trusted: bool = False) -> VersionRecord:
            with suppress(threading.BrokenBarrierError):
                met.wait(1)
            return super().publish(draft, is_trusted=is_trusted)

    catalog = dataclasses.replace(known.core.catalog, store=Slow(known.core.catalog.store.files_root, known.core.site))
    known.core = dataclasses.replace(known.core, catalog=catalog)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: agent.publish(caught, after=0), range(2)))
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    assert answers[0].content == answers[1].content
    assert met.broken, "one of them alone was published"
    assert (known.task(task_id).state, known.core.catalog.store.numbers("caught")) == (TaskState.DONE, [1])


def test_a_newest_version_whose_record_cannot_be_read_keeps_no_capture_from_being_published(known: Scene) -> None:
    store = cast(LocalStore, known.core.catalog.store)
    order = msgspec.structs.replace(ORDER, keeps_options=False)
    for number in (1, 2):
        task_id, agent = started(known, order)
        agent.layout(FOUND, is_to_be_kept=True)
        agent.put(image())
        answer = agent.publish(image(), after=number - 1)
        assert (answer.status_code, known.task(task_id).state) == (200, TaskState.DONE), answer.text
        assert store.numbers("caught")[-1] == number
        store.record_path("caught", number).write_bytes(b"{garbage")


def test_a_server_that_begins_again_ends_the_task_with_the_version_it_adopted(known: Scene) -> None:
    """The adopted version has brought its options: their revision is no more the one that the capture began with."""
    task_id, agent = started(known)
    agent.layout(FOUND, is_to_be_kept=True)
    caught = image()
    agent.put(caught)
    told = {"message": "at rest", "author": "root", "source": "n01", "after": 0}
    told |= {"options": ORDER.options, "options_revision": ORDER.options_revision}
    known.core.catalog.store.publish(msgspec.structs.replace(caught.draft, **told))
    known.core.database.close()
    agent.scene = again = open_scene(known.core.state_directory)
    assert again.admin("GET", "/images/caught/options").json()["revision"] == 1
    answer = agent.publish(caught, after=0)
    assert (answer.status_code, again.core.catalog.store.numbers("caught")) == (200, [1]), answer.text
    assert (again.task(task_id).state, again.netboot()) == (TaskState.DONE, "local")
    assert again.admin("GET", "/images/caught/options").json()["revision"] == 1
    again.core.database.close()


def test_a_power_cut_costs_the_time_and_no_pack_is_sent_twice(known: Scene) -> None:
    task_id, agent = started(known)
    caught = image()
    agent.put(caught)
    known.clock.now_s += 100.0
    again = Capturer(known)
    again.become()
    again.layout(FOUND, is_to_be_kept=True)
    assert agent.publish(caught).status_code == 401, "the former attempt is revoked"
    packs = {"packs": {pack.digest.hex(): len(pack.stored) for pack in caught.packs}}
    assert again.send("POST", "missing", msgspec.json.encode(packs)).json() == []
    assert again.publish(caught).status_code == 200
    assert (known.task(task_id).state, known.task(task_id).attempts) == (TaskState.DONE, 2)


def test_a_task_that_was_aborted_publishes_nothing(known: Scene) -> None:
    task_id, agent = started(known)
    caught = image()
    agent.put(caught)
    assert known.admin("POST", f"/tasks/{task_id}/abort").status_code == 200
    assert agent.publish(caught).status_code == 409
    assert known.admin("GET", "/images/caught").status_code == 404


def test_a_capture_that_fails_has_touched_no_disk_and_can_be_tried_again(known: Scene) -> None:
    task_id, agent = started(known)
    beat = Beat(progress=Progress(stage=Stage.REBOOT))
    assert agent.told("beat", BeatReply, beat).order == "go"
    agent.fail(Failure(Stage.SURVEY, Cause.REFUSED, "secrets", "--allow-secrets", is_destroyed=False))
    task = known.task(task_id)
    assert task.failure is not None
    assert (task.state, task.failure.is_destroyed, known.netboot()) == (TaskState.FAILED, False, "local")
    assert known.admin("POST", f"/tasks/{task_id}/retry").status_code == 200
    assert known.netboot() == "capture"


def test_a_protected_node_can_be_captured_and_a_busy_one_not(scene: Scene) -> None:
    scene.add_node(is_protected=True)
    assert ask(scene, dry_run=True).status_code == 200
    assert ask(scene).status_code == 200
    refused = ask(scene)
    assert (refused.status_code, "has task" in refused.json()["error"]) == (409, True)


def test_what_cannot_be_is_said_when_it_is_armed(known: Scene) -> None:
    for order, status in (
        (msgspec.structs.replace(ORDER, image="Bad Name"), 400),
        (msgspec.structs.replace(ORDER, options=StoredOptions()), 400),
        (msgspec.structs.replace(ORDER, options=StoredOptions("found", ("srv",))), 400),
        (msgspec.structs.replace(ORDER, options_revision=3), 409),
    ):
        assert ask(known, order).status_code == status, order
    assert ask(known, is_update=True).status_code == 404
    assert known.netboot() == "local"


def test_netboot_capture_is_of_the_nodes_own_image_and_of_one_node(known: Scene) -> None:
    known.add_node("n02", "52:54:00:00:00:02")
    two = NetbootRequest(nodes=("n01", "n02"), value="capture")
    assert known.admin("POST", "/netboot", two).status_code == 409
    one = NetbootRequest(nodes=("n01",), value="capture")
    assert known.admin("POST", "/netboot", one).json()[0]["netboot"] == "capture"
    order = Capturer(known).become().task.order
    assert (order.image, order.options, order.conflict) == ("golden", StoredOptions("simple"), "prompt")


def test_keys_of_disks_go_to_the_accepted_hardware_alone(known: Scene) -> None:
    with known.core.database.write() as connection:
        recoverykeys.ensure_key(connection, known.core.act("test"), "n01", known.core.site.vault_key)
        (kept,) = recoverykeys.list_keys(connection, "n01", known.core.site.vault_key)
    task_id, agent = started(known)
    assert agent.told("disk-keys", DiskKeys).keys == (kept.key,)
    events = known.admin("GET", "/events", subject=f"task/{task_id}").json()
    assert "disk keys released" in [event["what"] for event in events]
    assert kept.key.value not in known.admin("GET", "/events").text
