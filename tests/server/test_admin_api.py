"""What the command line sees beside single requests: the description, live progress, the store's upkeep."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from cloner_core.admin.tasks import EventView, TaskView
from cloner_core.messages import Stage
from cloner_server.api.stream import _look, _messages
from cloner_server.state.events import record
from cloner_server.state.tasks import add_task
from serverbench.scene import Agent, Scene


def test_the_description_names_every_path(scene: Scene) -> None:
    described = scene.admins.get("/schema/openapi.json").json()
    paths = {path.split("{")[0].rstrip("/") for path in described["paths"]}
    assert paths >= {"/v1/nodes", "/v1/deploy", "/v1/tasks", "/v1/events", "/v1/publish", "/v1/status"}
    assert "NodeSpec" in str(described["components"]["schemas"])


def test_whoever_watches_sees_events_and_progress_as_they_come(scene: Scene) -> None:
    scene.add_node()
    task_id = scene.arm()

    async def watch() -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = []
        stream = _messages(scene.core, None)
        async with contextlib.aclosing(stream):
            message = await anext(stream)  # the task as it stands
            seen.append((str(message.event), str(message.data)))
            agent = await asyncio.to_thread(work)
            while len(seen) < 20:
                message = await anext(stream)
                seen.append((str(message.event), str(message.data)))
                if message.event == "task" and msgspec.json.decode(str(message.data), type=TaskView).progress:
                    break
            assert agent.reply is not None
        return seen

    def work() -> Agent:
        agent = Agent(scene)
        agent.hello()
        agent.beat(Stage.RESTORE, done=42)
        return agent

    seen = asyncio.run(asyncio.wait_for(watch(), 20))
    tasks = [msgspec.json.decode(data, type=TaskView) for kind, data in seen if kind == "task"]
    events = [msgspec.json.decode(data, type=EventView) for kind, data in seen if kind == "event"]
    assert {task.id for task in tasks} == {task_id}
    assert tasks[-1].progress is not None
    assert (tasks[-1].progress.stage, tasks[-1].progress.done) == (Stage.RESTORE, 42)
    assert {event.what for event in events} >= {"script", "claim", "stage"}
    assert [event.id for event in events] == sorted({event.id for event in events})


def test_the_tasks_of_a_whole_hall_are_streamed(scene: Scene) -> None:
    told = {"kind": "deploy", "image": "golden", "number": 1, "digest": "", "layout": "", "layout_number": 1}
    with scene.core.database.write() as connection:
        for number in range(400):
            values = told | {"node": f"n{number}", "document": "", "attempts_allowed": 5}
            add_task(connection, scene.core.act("test"), values)
    assert len(_look(scene.core, None)[2]) == 400


def test_a_stream_ends_when_the_server_stops(scene: Scene) -> None:
    async def watch() -> int:
        scene.core.stopping.set()
        return len([message async for message in _messages(scene.core, None)])

    assert asyncio.run(watch()) == 0


def test_the_store_is_checked_and_a_damaged_pack_is_named(scene: Scene) -> None:
    assert scene.admin("POST", "/store/check", read_data="true").json()["faults"] == []
    pack = scene.core.catalog.store.pack_path(scene.image.packs[0].digest)
    pack.write_bytes(pack.read_bytes()[:-1] + b"?")
    faults = scene.admin("POST", "/store/check", read_data="true").json()["faults"]
    assert scene.image.packs[0].digest.hex() in str(faults)


def test_gc_keeps_what_a_live_attempt_was_told(scene: Scene) -> None:
    scene.add_node()
    scene.arm()
    agent = Agent(scene)
    told = agent.hello().task.version
    store = scene.core.catalog.store
    store.repack(bytes.fromhex(told.digest))
    scene.admin("POST", "/store/gc", grace_s=0)
    packs = [pack.digest.hex() for pack in scene.image.packs]
    for pack in packs:
        assert agent.get(f"/versions/{told.digest}/packs/{pack}").status_code == 200
    agent.deploy()
    scene.admin("POST", "/store/gc", grace_s=0)
    assert store.missing_packs(bytes.fromhex(told.digest)) == []


def test_status_counts_and_shows_alarms(scene: Scene) -> None:
    scene.add_node()
    scene.arm()
    token = scene.mint()
    Agent(scene).hello(token)
    Agent(scene).try_hello(token)
    status = scene.admin("GET", "/status").json()
    assert (status["nodes"], status["images"], status["tasks"]) == (1, 1, {"frozen": 1})
    assert [alarm["what"] for alarm in status["alarms"]] == ["freeze"]


def test_status_shows_the_newest_alarms_oldest_first(scene: Scene) -> None:
    with scene.core.database.write() as connection:
        for number in range(1001):
            record(connection, scene.core.act("server"), "site", f"alarm {number}", alarm=True)
    shown = [alarm["what"] for alarm in scene.admin("GET", "/status").json()["alarms"]]
    assert shown == [f"alarm {number}" for number in range(1, 1001)]
