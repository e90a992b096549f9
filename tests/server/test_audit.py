"""A hostile host leaves a few events and a count; those of others and of nodes are written all the same."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from cloner_core.admin.tasks import EventView
from cloner_server.audit import LEFT_OUT, REFUSED, Limits, NetworkAudit, audited
from cloner_server.state import events
from cloner_server.state.tables import events as table
from serverbench.scene import START_S, Agent, Scene

FEW = Limits(window_s=60, of_source=3, of_all=8, alarms=2, sources=4, summaries=2)


def written(scene: Scene, audit: NetworkAudit, now_s: float) -> list[EventView]:
    """Have it written; return what is new."""
    scene.clock.now_s = now_s
    with audit.news(now_s) as news, scene.core.database.write() as connection:
        last = events.last_id(connection)
        audit.record(connection, scene.core.act("server"), news)
        return events.list_events(connection, after=last)


@pytest.fixture
def audit() -> NetworkAudit:
    return NetworkAudit(FEW)


def test_what_is_beyond_is_counted_and_told_once(scene: Scene, audit: NetworkAudit) -> None:
    for number in range(1000):
        audit.note(START_S + number * 0.01, "10.0.0.9", REFUSED, status=404)
    assert [event.what for event in written(scene, audit, START_S + 11)] == [REFUSED] * 3
    assert not audit.has_news(START_S + 11)
    assert audit.has_news(START_S + 60)
    summary = written(scene, audit, START_S + 61)
    assert [(event.object, event.what) for event in summary] == [("machine/10.0.0.9", LEFT_OUT)]
    assert (summary[0].detail["count"], summary[0].detail["of"]) == (997, {REFUSED: 997})
    audit.note(START_S + 62, "10.0.0.9", REFUSED, status=404)
    assert len(written(scene, audit, START_S + 62)) == 1, "a new minute"


def test_no_source_is_silenced_by_another_and_none_is_lost_from_the_count(scene: Scene, audit: NetworkAudit) -> None:
    told = Counter[str]()
    for number in range(50):
        audit.note(START_S, f"10.0.0.{number % 10}", REFUSED)
    for event in [*written(scene, audit, START_S), *written(scene, audit, START_S + 60)]:
        told[event.what] += event.detail["count"] if event.what == LEFT_OUT else 1
    assert told[REFUSED] == FEW.of_all
    assert told.total() == 50


def test_nodes_that_boot_at_once_and_alarms_do_not_drown_in_noise(audit: NetworkAudit) -> None:
    for number in range(100):
        audit.admit(START_S, f"10.0.0.{number}", "noise")
    assert audit.admit(START_S, "10.0.0.200", "other-dhcp", is_alarm=True)
    assert all(audit.admit(START_S, f"52:54:00:00:00:{number:02x}", "boot", is_known=True) for number in range(200))


def test_alarms_of_strangers_drown_no_other_alarm(audit: NetworkAudit) -> None:
    def admit(source: str, what: str, *, is_known: bool = False) -> bool:
        return audit.admit(START_S, source, what, is_alarm=True, is_known=is_known)

    assert sum(admit(f"52:54:00:00:01:{number:02x}", "alarm") for number in range(100)) == FEW.alarms
    assert admit("52:54:00:00:00:01", "alarm", is_known=True)
    assert admit("10.0.0.66", "other-dhcp", is_known=True)
    assert admit("52:54:00:00:02:01", "dhcp-pool-empty")
    assert not admit("52:54:00:00:02:02", "alarm"), "they are bounded all the same"
    assert not all(admit(f"52:54:00:00:00:{number:02x}", "alarm", is_known=True) for number in range(100))


def test_a_clock_that_goes_back_ends_the_minute_too(scene: Scene, audit: NetworkAudit) -> None:
    for _ in range(5):
        audit.note(START_S, "a", "x")
    assert len(written(scene, audit, START_S - 3600)) == 3 + 1
    assert audit.admit(START_S - 3600, "a", "x")


def test_every_refusal_is_noted_and_nothing_else(scene: Scene) -> None:
    async def answer(request: object) -> Response:
        return Response(status_code=int(getattr(request, "path_params", {})["status"]))

    audit = NetworkAudit()
    app = audited(Starlette(routes=[Route("/{status:int}", answer)]), audit, lambda: START_S)
    client = TestClient(app)
    for path in ("/200", "/401", "/503", "/none?secret=1"):
        client.get(path)
    seen = [(event.object, event.detail) for event in written(scene, audit, START_S)]
    assert seen == [
        ("machine/testclient", {"method": "GET", "path": "/401", "status": 401}),
        ("machine/testclient", {"method": "GET", "path": "/none", "status": 404}),
    ]


def test_wrong_claims_do_not_fill_the_audit(scene: Scene) -> None:
    agent = Agent(scene)
    for _ in range(60):
        assert agent.try_hello("no such token").status_code == 401
    with scene.core.database.read() as connection:
        refused = select(func.count()).where(table.c.what == "claim refused")
        assert connection.execute(refused).scalar_one() == 20
        assert connection.execute(refused.where(table.c.is_network)).scalar_one() == 20
