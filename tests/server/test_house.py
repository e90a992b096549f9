"""What the server does by itself as time passes."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from cloner_core.sightings import BootStep
from cloner_pxe.decision import BootPolicy
from cloner_pxe.events import EventKind, NetbootEvent
from cloner_server.audit import LEFT_OUT, Limits
from cloner_server.boot import BootDesk
from cloner_server.clock import SteadyClock
from cloner_server.house import House
from cloner_server.state import events, sightings, sizes
from cloner_server.state.pruning import Keep
from serverbench.scene import START_S, Scene

DAY_S = 86400.0
MAC = "52:54:00:00:00:01"


class Days:
    """A machine's two clocks, which go on together."""

    def __init__(self) -> None:
        self.gone_s = 0.0
        self.stepped_s = 0.0

    def wall(self) -> float:
        return START_S + self.gone_s + self.stepped_s

    def steady(self) -> float:
        return 5.0 + self.gone_s


@pytest.fixture
def days() -> Days:
    return Days()


@pytest.fixture
def make_house(scene: Scene, days: Days) -> Callable[..., House]:
    def make(**more: object) -> House:
        clock = SteadyClock(days.wall, days.steady)
        core = dataclasses.replace(scene.core, clock=clock)
        policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080")
        return House(core, BootDesk(core, policy, None, "https://10.77.0.1:8443"), clock, **more)  # type: ignore[arg-type]

    return make


def test_what_the_start_found_no_room_for_is_written_once_there_is_some(
    make_house: Callable[..., House], days: Days
) -> None:
    house, done, tries = make_house(), list[str](), 0

    def keep() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
        done.append("kept")

    house.core.unkept.append(keep)
    for _ in range(2):
        with pytest.raises(OperationalError):
            house.turn()
        house.turn()
        days.gone_s += 60.0
    house.turn()
    house.turn()
    assert (done, house.core.unkept) == (["kept"], [])


@contextmanager
def no_commits(scene: Scene) -> Iterator[None]:
    """A disk that is full when a transaction ends."""

    def fail(connection: Connection) -> None:
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    engine = scene.core.database.engine
    event.listen(engine, "commit", fail)
    try:
        yield
    finally:
        event.remove(engine, "commit", fail)


def told(scene: Scene, what: str) -> int:
    with scene.core.database.read() as connection:
        return sum(event.what == what for event in events.list_events(connection))


def test_the_certificate_is_looked_at_daily_and_renewed_once(
    scene: Scene, days: Days, make_house: Callable[..., House]
) -> None:
    served: list[bytes] = []
    house = make_house(on_certificate=lambda: served.append(scene.core.site.certificate.read_bytes()))
    house.turn()
    assert served == []
    for _ in range(3):
        days.gone_s += 250 * DAY_S
        house.turn()
        house.turn()
    assert served == [scene.core.site.certificate.read_bytes()]
    assert told(scene, "certificate renewed") == 1


def test_a_certificate_that_cannot_be_renewed_is_an_alarm_and_the_rest_goes_on(
    scene: Scene, days: Days, make_house: Callable[..., House]
) -> None:
    key = scene.core.site.certificate.parent / "ca.key"
    kept = key.read_bytes()
    key.unlink()
    house = make_house()
    house.turn()
    house.turn()
    assert told(scene, "certificate not renewed") == 1
    house.desk.core.audit.note(days.wall(), "10.0.0.9", "request refused")
    house.turn()
    assert told(scene, "request refused") == 1
    key.write_bytes(kept)
    days.gone_s += 3601
    house.turn()
    assert told(scene, "certificate not renewed") == 1


def test_a_certificate_is_used_though_the_database_cannot_take_it_down(
    scene: Scene, days: Days, make_house: Callable[..., House]
) -> None:
    served: list[bytes] = []
    house = make_house(on_certificate=lambda: served.append(b""))
    days.gone_s += 600 * DAY_S
    with no_commits(scene), pytest.raises(OperationalError):
        house.turn()
    assert served == [b""]


def test_a_step_of_the_clock_that_cannot_be_written_is_followed_later(
    scene: Scene, days: Days, make_house: Callable[..., House]
) -> None:
    house = make_house()
    days.stepped_s = 3600.0
    with no_commits(scene), pytest.raises(OperationalError):
        house.turn()
    assert house.clock() == START_S + days.gone_s, "no deadline has moved"
    house.turn()
    assert house.clock() == START_S + days.gone_s + 3600
    assert told(scene, "clock stepped") == 1


def test_what_the_network_did_outlives_a_transaction_that_is_undone(
    scene: Scene, days: Days, make_house: Callable[..., House]
) -> None:
    scene.add_node()
    house = make_house()
    limit = Limits().of_source
    for _ in range(limit + 5):
        house.core.audit.note(days.wall(), "10.0.0.9", "request refused")
    house.turn()
    days.gone_s += 61
    house.core.audit.note(days.wall(), "10.0.0.8", "claim refused")
    house.desk.emit(NetbootEvent(kind=EventKind.OTHER_DHCP, text="another one", address="10.77.0.66"))
    house.desk.emit(NetbootEvent(kind=EventKind.RELAY, text="", mac=MAC, address="10.9.0.1"))
    house.desk.saw(BootStep.KERNEL, mac=MAC)
    with no_commits(scene):
        for _ in range(Limits().alarms + 1):
            with pytest.raises(OperationalError):
                house.turn()
    assert told(scene, "other-dhcp") == 0
    seen_s = days.wall()
    days.gone_s += 30
    house.turn()
    assert [told(scene, what) for what in ("other-dhcp", "claim refused", "relay told")] == [1, 1, 1]
    days.gone_s += 61  # a window on
    house.turn()
    assert told(scene, "other-dhcp") == 1
    with scene.core.database.read() as connection:
        seen = [(seen.step, seen.time_s) for seen in sightings.list_sightings(connection, "n01")]
        assert seen == [(BootStep.KERNEL, seen_s)], "when it was seen, not when it could be written"
        (left_out,) = [event.detail for event in events.list_events(connection) if event.what == LEFT_OUT]
    assert left_out["count"] == 5


def test_a_ca_in_its_last_year_is_an_alarm_each_day(scene: Scene, days: Days, make_house: Callable[..., House]) -> None:
    days.gone_s += 3_130_000_000 - START_S  # March 2069
    house = make_house()
    with no_commits(scene), pytest.raises(OperationalError):
        house.turn()
    for _ in range(3):
        house.turn()
        days.gone_s += DAY_S + 1
    assert told(scene, "the site's CA ends") == 3


def test_a_disk_that_is_nearly_full_is_an_alarm_an_hour(
    scene: Scene, days: Days, make_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = shutil._ntuple_diskusage(1000 << 20, 850 << 20, 150 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    house = make_house(warn_bytes=512 << 20)
    for _ in range(70):
        house.turn()
        days.gone_s += 61
    assert told(scene, "disk nearly full") == 2
    days.gone_s += 3600
    make_house(warn_bytes=100 << 20).turn()
    assert told(scene, "disk nearly full") == 2, "enough is free"


def test_old_events_go_by_themselves(scene: Scene, days: Days, make_house: Callable[..., House]) -> None:
    house = make_house(keep=Keep(network=7, least=5))
    with scene.core.database.write() as connection:
        for _ in range(50):
            events.record(connection, scene.core.act("t"), "site", "noise", is_network=True)
    days.gone_s += 601
    house.turn()
    assert told(scene, "noise") == 7


def test_the_size_of_the_store_is_noted_once_a_day(scene: Scene, days: Days, make_house: Callable[..., House]) -> None:
    house = make_house()
    for _ in range(24 * 3):
        days.gone_s += 3600
        house.turn()
    with scene.core.database.read() as connection:
        noted = sizes.samples(connection)
    assert len(noted) == 4
    assert all(one.used_bytes > 0 for one in noted)
