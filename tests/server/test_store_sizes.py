"""The size of the store's disk is noted once a day, and days until full come from that."""

from __future__ import annotations

import itertools

import pytest

from cloner_core.growth import DAY_S, Sample
from cloner_server.state import sizes
from serverbench.scene import START_S, Scene


def noted(scene: Scene) -> list[Sample]:
    with scene.core.database.read() as connection:
        return sizes.samples(connection)


def look(scene: Scene, now_s: float, used_bytes: int = 1) -> None:
    with scene.core.database.write() as connection:
        if sizes.is_due(connection, now_s):
            sizes.note(connection, now_s, used_bytes)


def test_one_size_a_day_is_kept_for_two_months(scene: Scene) -> None:
    for hour in range(24 * 70):
        look(scene, START_S + hour * 3600.0)
    times = [one.time_s for one in noted(scene)]
    assert 60 <= len(times) <= 68
    assert all(0.9 * DAY_S <= later - earlier <= DAY_S for earlier, later in itertools.pairwise(times))


def test_a_clock_that_was_ahead_stops_nothing(scene: Scene) -> None:
    look(scene, START_S + 1000 * DAY_S)
    look(scene, START_S)
    assert noted(scene) == [Sample(START_S, 1)]


def test_the_plan_of_a_gc_tells_when_the_disk_is_full_and_what_from(scene: Scene) -> None:
    growth = scene.admin("GET", "/store/plan-gc").json()["growth"]
    assert growth["days_until_full"] is None
    assert growth["why"].startswith("not known")
    used, room = scene.core.catalog.store.space()
    with scene.core.database.write() as connection:
        sizes.note(connection, scene.clock.now_s - 10 * DAY_S, used // 2)
    growth = scene.admin("GET", "/store/plan-gc").json()["growth"]
    assert growth["from_s"] == scene.clock.now_s - 10 * DAY_S
    assert growth["days_until_full"] == pytest.approx(growth["room_bytes"] / (growth["grown_bytes"] / 10))
    assert abs(growth["room_bytes"] - room) < room * 0.5, "other programs write to this disk meanwhile"
