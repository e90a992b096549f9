"""What the server does by itself as time passes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable

import pytest

from cloner_pxe.decision import BootPolicy
from cloner_server.boot import BootDesk
from cloner_server.clock import SteadyClock
from cloner_server.house import House
from cloner_server.state import events
from cloner_server.state.pruning import Keep
from serverbench.scene import START_S, Scene

DAY_S = 86400.0


class Days:
    """A machine's two clocks, which go on together."""

    def __init__(self) -> None:
        self.gone_s = 0.0

    def wall(self) -> float:
        return START_S + self.gone_s

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


def test_a_ca_in_its_last_year_is_an_alarm_each_day(scene: Scene, days: Days, make_house: Callable[..., House]) -> None:
    days.gone_s += 3_130_000_000 - START_S  # March 2069
    house = make_house()
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
