"""Old rows go, by age and by number; alarms stay longer, and a wrong clock empties nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select

from cloner_core.messages import LogLine
from cloner_server.state import tasks as rows
from cloner_server.state.pruning import Keep, prune
from cloner_server.state.tables import events, task_log
from serverbench.scene import START_S, Scene

DAY_S = 86400.0
KEEP = Keep(
    days=100, events=50, alarm_days=1000, alarms=20, network_days=10, network=30, log_days=5, log_lines=40, least=5
)


def add(connection: Connection, count: int, age_days: float, **marks: Any) -> None:
    row = {"author": "t", "object": "x", "revision": 0, "what": "w", "detail": "{}", "is_alarm": False}
    row |= {"is_network": False, "time_s": START_S - age_days * DAY_S} | marks
    connection.execute(insert(events), [row] * count)


def left(connection: Connection) -> list[tuple[bool, bool, float]]:
    found = connection.execute(select(events.c.is_alarm, events.c.is_network, events.c.time_s).order_by(events.c.id))
    return [(row.is_alarm, row.is_network, round((START_S - row.time_s) / DAY_S)) for row in found]


def all_pruned(connection: Connection, now_s: float = START_S, batch: int = 7) -> None:
    while prune(connection, now_s, KEEP, batch):
        pass


def test_age_decides_for_each_kind_on_its_own(scene: Scene) -> None:
    with scene.core.database.write() as connection:
        connection.execute(events.delete())
        for age_days in (2000, 200, 20, 0):
            add(connection, 6, age_days)
            add(connection, 6, age_days, is_network=True)
            add(connection, 2, age_days, is_alarm=True)
        all_pruned(connection)
        kept = left(connection)
    assert {age for alarm, network, age in kept if not alarm and not network} == {20, 0}
    assert {age for alarm, network, age in kept if network} == {0}
    assert {age for alarm, _, age in kept if alarm} == {200, 20, 0}


def test_a_flood_pushes_out_its_own_kind_alone(scene: Scene) -> None:
    with scene.core.database.write() as connection:
        connection.execute(events.delete())
        add(connection, 9, 1)
        add(connection, 3, 1, is_alarm=True)
        add(connection, 500, 0, is_network=True)
        all_pruned(connection)
        kept = left(connection)
    assert [sum(1 for alarm, network, _ in kept if (alarm, network) == kind) for kind in ((0, 0), (1, 0), (0, 1))] == [
        9,
        3,
        KEEP.network,
    ]


def test_a_clock_that_is_years_ahead_keeps_the_newest(scene: Scene) -> None:
    with scene.core.database.write() as connection:
        connection.execute(events.delete())
        add(connection, 20, 0)
        all_pruned(connection, START_S + 40 * 365 * DAY_S)
        assert len(left(connection)) == KEEP.least


def test_a_batch_is_bounded_and_the_next_goes_on(scene: Scene) -> None:
    with scene.core.database.write() as connection:
        connection.execute(events.delete())
        add(connection, 100, 0)
        assert [prune(connection, START_S, KEEP, 20) for _ in range(4)] == [20, 20, 10, 0]


def test_an_agent_that_talks_for_ever_keeps_its_own_newest_lines(scene: Scene) -> None:
    for name, mac in (("n01", "52:54:00:00:00:01"), ("n02", "52:54:00:00:00:02")):
        scene.add_node(name, mac)
        scene.arm(name, has_identity=False)

    def lines(start: int, count: int) -> tuple[LogLine, ...]:
        return tuple(LogLine(time_s=START_S, level="info", text=f"{n:06} " + "x" * 9000) for n in range(start, count))

    with scene.core.database.write() as connection:
        rows.append_log(connection, 2, "a", lines(0, 3))
        rows.append_log(connection, 1, "b", lines(0, rows.LOG_LINES))
        rows.append_log(connection, 1, "b", lines(rows.LOG_LINES, rows.LOG_LINES + 30))
        kept = rows.list_log(connection, 1, limit=30_000)
        assert len(kept) == rows.LOG_LINES
        assert (kept[0].text[:6], kept[-1].text[:6]) == ("000030", f"{rows.LOG_LINES + 29:06}")
        assert max(len(line.text) for line in kept) == 4000
        assert len(rows.list_log(connection, 2)) == 3
        all_pruned(connection, START_S, 30_000)
        assert connection.execute(select(task_log.c.id)).all().__len__() == KEEP.log_lines
