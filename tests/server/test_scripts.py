"""Sets of scripts: immutable, pinned by tasks, for a version and those after it, and told truly in receipts."""

from __future__ import annotations

from typing import Any

import msgspec

from cloner_core.scripts import Script, ScriptChange, ScriptRun, ScriptSetView, ScriptType
from cloner_server.state import images
from serverbench.scene import Agent, Scene

POST, PRE = ScriptType.POST, ScriptType.PRE


def script(name: str = "one", content: str = "#!/bin/sh\ntrue\n", kind: ScriptType = POST) -> Script:
    return Script(kind, name, content)


def put(scene: Scene, one: Script, **query: Any) -> ScriptSetView:
    answer = scene.admin("POST", "/images/golden/scripts", ScriptChange(put=one), **query)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=ScriptSetView)


def shown(scene: Scene, **query: Any) -> ScriptSetView:
    answer = scene.admin("GET", "/images/golden/scripts", **query)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=ScriptSetView)


def test_each_change_is_a_new_set_and_the_former_ones_stay(scene: Scene) -> None:
    assert shown(scene).number == 0
    first, second = put(scene, script()), put(scene, script("two"))
    assert (first.number, second.number) == (1, 2)
    assert put(scene, script("two")).number == 2, "the same again is no change"
    assert [s.name for s in shown(scene, number=1).scripts] == ["one"]
    gone = scene.admin("POST", "/images/golden/scripts", ScriptChange(remove=(POST, "one")))
    assert [s["name"] for s in gone.json()["scripts"]] == ["two"]
    every = scene.admin("GET", "/images/golden/scripts/all").json()
    assert [view["number"] for view in every] == [3, 2, 1]
    told = [e for e in scene.admin("GET", "/events").json() if e["what"] == "scripts changed"]
    assert [e["revision"] for e in told] == [1, 2, 3]
    assert told[-1]["detail"]["removed"] == "post one"


def test_what_cannot_be_is_refused_and_changes_nothing(scene: Scene) -> None:
    put(scene, script())
    before = scene.state_dump()
    changes = {
        ScriptChange(): 400,
        ScriptChange(put=script("two", "echo\n")): 400,
        ScriptChange(put=script("two", "#!/bin/bash\ntrue\n", PRE)): 400,
        ScriptChange(remove=(PRE, "one")): 404,
        ScriptChange(put=script("two"), number=0): 409,
    }
    for change, status in changes.items():
        assert scene.admin("POST", "/images/golden/scripts", change).status_code == status
    assert scene.admin("POST", "/images/other/scripts", ScriptChange(put=script())).status_code == 404
    assert scene.admin("GET", "/images/golden/scripts", number=9).status_code == 404
    assert put(scene, script("two"), dry_run=True).number == 2
    assert scene.state_dump() == before


def test_an_older_version_is_deployed_with_the_scripts_it_had(scene: Scene) -> None:
    put(scene, script("old"))
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("test"), "golden", 2, "ab" * 32)
    assert [s.name for s in shown(scene).scripts] == ["old"]
    put(scene, script("new"))
    assert [s.name for s in shown(scene, version=2).scripts] == ["new", "old"]
    assert [s.name for s in shown(scene, version=1).scripts] == ["old"]
    put(scene, script("repair"), version=1)
    assert [s.name for s in shown(scene, version=1).scripts] == ["old", "repair"]
    assert [s.name for s in shown(scene, version=2).scripts] == ["new", "old"]


def test_a_task_runs_the_set_it_was_armed_with(scene: Scene) -> None:
    put(scene, script())
    scene.add_node()
    task_id = scene.arm()
    assert scene.task(task_id).scripts == 1
    put(scene, script("one", "#!/bin/sh\nfalse\n"))
    agent = Agent(scene)
    told = agent.hello().task.scripts
    assert told.number == 1
    assert [s.content for s in told.scripts] == ["#!/bin/sh\ntrue\n"]
    plan = agent.confirm_plan()
    assert script().digest in msgspec.json.encode(plan).decode()
    assert script().digest in scene.admin("GET", "/plan/n01").json()["rendered"]


def test_a_change_between_what_was_shown_and_the_arming_is_a_conflict(scene: Scene) -> None:
    scene.add_node()
    put(scene, script())
    body = {"nodes": ["n01"], "dry_run": True}
    (intent,) = scene.admin("POST", "/deploy", body).json()
    assert intent["scripts"] == 1
    put(scene, script("two"))
    answer = scene.admin("POST", "/deploy", {"nodes": ["n01"], "shown": [intent]})
    assert (answer.status_code, answer.json()["status"]) == (409, 5)


def test_a_receipt_that_tells_of_other_scripts_is_refused(scene: Scene) -> None:
    put(scene, script())
    put(scene, script("ask", kind=PRE))
    scene.add_node()
    scene.arm()
    agent = Agent(scene)
    agent.hello()
    body = agent.receipt_body(*agent.up_to_commit())
    runs = tuple(ScriptRun(s.type, s.name, s.digest, 0, 0.5) for s in (script("ask", kind=PRE), script()))
    for wrong in ((), runs[:1], (runs[0], msgspec.structs.replace(runs[1], digest="00" * 32))):
        answer = agent.post("receipt", msgspec.structs.replace(body, scripts=wrong))
        assert answer.status_code == 409
        assert "scripts" in answer.json()["error"]
    assert agent.post("receipt", msgspec.structs.replace(body, scripts=runs)).status_code == 200
