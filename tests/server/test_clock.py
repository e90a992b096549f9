"""A machine's clock that is stepped, by hours or years, forward or back: no attempt is lost, no token lives longer."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from cloner_core.admin.tasks import TaskState
from cloner_core.messages import Stage
from cloner_core.sightings import SshAnswer
from cloner_pxe.decision import BootPolicy
from cloner_server.api.boot import boot_app
from cloner_server.boot import BootDesk
from cloner_server.clock import SteadyClock
from cloner_server.confirming import Confirming
from cloner_server.house import House
from cloner_server.sshprobe import Expected, Found
from cloner_server.state import events
from cloner_server.state.leases import SqlLeases
from cloner_server.state.tables import claims
from cloner_server.tasks import timeshift
from serverbench.scene import START_S, Agent, Scene

HOUR_S, YEAR_S = 3600.0, 365 * 86400.0
STEPS = [3 * HOUR_S, -3 * HOUR_S, 20 * YEAR_S, -20 * YEAR_S]


@dataclass
class Machine:
    """A machine whose clock can be set."""

    wall_s: float = START_S
    steady_s: float = 1000.0

    def wait(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds


@dataclass
class Steady:
    """A scene whose time is that of a steady clock over a machine."""

    scene: Scene
    machine: Machine
    house: House

    def turn(self) -> None:
        self.house.turn()

    def look(self) -> None:
        """Look after clones that have not confirmed."""

        async def silent(addresses: Sequence[str], expected: Expected) -> Found:
            return Found(SshAnswer.SILENT)

        asyncio.run(Confirming(self.scene.core, lambda: self.house.started_s, silent).turn())

    def alarms(self) -> list[str]:
        with self.scene.core.database.read() as connection:
            return [event.what for event in events.list_events(connection, alarms=True)]


@pytest.fixture
def steady(scene: Scene) -> Steady:
    machine = Machine()
    clock = SteadyClock(lambda: machine.wall_s, lambda: machine.steady_s)
    scene.core = dataclasses.replace(scene.core, clock=clock)
    desk = BootDesk(
        scene.core,
        BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080"),
        None,
        "https://10.77.0.1:8443",
    )
    return Steady(scene, machine, House(scene.core, desk, clock))


def test_time_goes_on_evenly_until_the_step_is_taken() -> None:
    machine = Machine()
    clock = SteadyClock(lambda: machine.wall_s, lambda: machine.steady_s)
    machine.wait(10)
    machine.wall_s += HOUR_S
    assert (clock(), clock.step_s()) == (START_S + 10, HOUR_S)
    clock.advance(clock.step_s())
    assert (clock(), clock.step_s()) == (START_S + 10 + HOUR_S, 0)


@pytest.mark.parametrize("step_s", STEPS)
def test_a_deploy_goes_on_across_a_step(steady: Steady, step_s: float) -> None:
    scene = steady.scene
    scene.add_node()
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello()
    agent.beat()
    steady.machine.wall_s += step_s
    steady.turn()
    assert scene.task(task_id).state is TaskState.RUNNING
    assert steady.alarms() == ["clock stepped"]
    steady.machine.wait(50)
    steady.turn()
    assert scene.task(task_id).state is TaskState.RUNNING, "50 s without a beat"
    steady.machine.wait(20)
    steady.turn()
    assert scene.task(task_id).state is TaskState.LOST, "70 s without a beat"
    agent.beat(Stage.RESTORE)
    _, receipt = agent.deploy()
    assert abs(receipt.accepted_s - steady.machine.wall_s) < 1
    steady.machine.wall_s -= step_s
    steady.turn()
    steady.machine.wait(scene.core.rules.confirm_s - 60)
    steady.turn()
    steady.look()
    assert scene.task(task_id).state is TaskState.UNCONFIRMED
    steady.machine.wait(120)
    steady.turn()
    steady.look()
    assert scene.task(task_id).state is TaskState.FAILED


@pytest.mark.parametrize("step_s", STEPS)
def test_a_claim_lives_its_hour_and_no_longer(steady: Steady, step_s: float) -> None:
    scene = steady.scene
    scene.add_node()
    scene.arm(has_identity=False)
    early, late = scene.mint(), scene.mint()
    steady.machine.wall_s += step_s
    steady.turn()
    steady.machine.wait(HOUR_S - 60)
    steady.turn()
    Agent(scene).hello(early)
    steady.machine.wait(120)
    steady.turn()
    assert Agent(scene).try_hello(late).status_code == 401


def make_token(scene: Scene, lifetime_s: float) -> str:
    answer = scene.admin("POST", "/tokens", {"image": "golden", "lifetime_s": lifetime_s})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


def is_good(scene: Scene, token: str) -> bool:
    answer = scene.agents.get("/v1/token", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200


@pytest.mark.parametrize("is_used", [False, True])
@pytest.mark.parametrize("step_s", STEPS)
def test_a_token_lives_as_long_as_was_said_and_no_longer(steady: Steady, step_s: float, is_used: bool) -> None:
    token = make_token(steady.scene, HOUR_S)
    if is_used:
        assert is_good(steady.scene, token)
    steady.machine.wall_s += step_s
    steady.turn()
    (view,) = steady.scene.admin("GET", "/tokens").json()
    assert (view["created_s"], view["expires_s"]) == (START_S + step_s, START_S + step_s + HOUR_S)
    assert view["used_s"] == (START_S + step_s if is_used else None)
    steady.machine.wait(HOUR_S - 60)
    steady.turn()
    assert is_good(steady.scene, token)
    steady.machine.wait(120)
    steady.turn()
    assert not is_good(steady.scene, token)


@pytest.mark.parametrize("step_s", STEPS)
def test_a_machine_that_was_reset_waits_for_its_former_attempt_a_minute_and_no_longer(
    steady: Steady, step_s: float
) -> None:
    scene = steady.scene
    scene.add_node()
    scene.arm(has_identity=False)
    Agent(scene).hello()
    steady.machine.wall_s += step_s
    steady.turn()
    assert Agent(scene).try_hello(scene.mint()).status_code == 503
    steady.machine.wait(61)
    steady.turn()
    Agent(scene).hello(scene.mint())


def test_a_lease_keeps_the_time_it_had_left(steady: Steady) -> None:
    from cloner_pxe.dhcp_leases import Lease

    leases = SqlLeases(steady.scene.core.database)
    leases.put(Lease(address="10.77.0.100", mac="52:54:00:00:00:01", expires_at=START_S + 600))
    steady.machine.wall_s -= 3 * HOUR_S
    steady.turn()
    lease = leases.of_mac("52:54:00:00:00:01")
    assert lease is not None
    assert lease.expires_at == START_S + 600 - 3 * HOUR_S


def test_a_clock_set_back_makes_no_boot_loop_of_answers_before_the_receipt(steady: Steady) -> None:
    scene = steady.scene
    http = TestClient(boot_app(scene.core, steady.house.desk, {}))
    scene.add_node()
    for _ in range(4):
        http.get("/boot/ipxe", params={"mac": "52-54-00-00-00-01", "platform": "efi"})
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello()
    agent.deploy()
    steady.machine.wall_s -= 3 * HOUR_S
    steady.turn()
    http.get("/boot/ipxe", params={"mac": "52-54-00-00-00-01", "platform": "efi"})
    assert scene.task(task_id).state is TaskState.UNCONFIRMED


def test_a_clock_set_back_silences_no_alarm(steady: Steady) -> None:
    scene = steady.scene
    scene.add_node()
    scene.arm(has_identity=False)
    Agent(scene).hello()
    for _ in range(2):
        scene.mint()
    assert steady.alarms() == ["boot script fetched while the attempt beats"], "once a minute"
    steady.machine.wall_s -= 3 * HOUR_S
    steady.turn()
    scene.mint()
    assert len([what for what in steady.alarms() if what.startswith("boot script")]) == 2


def test_a_leap_second_is_no_alarm(steady: Steady) -> None:
    steady.machine.wall_s += 1
    steady.turn()
    assert steady.alarms() == []
    assert steady.scene.core.clock() == START_S + 1


def test_a_clock_set_back_while_the_server_was_away_is_reined_in(scene: Scene) -> None:
    scene.add_node()
    scene.arm(has_identity=False)
    token = scene.mint()
    Agent(scene).hello()
    scene.clock.now_s -= YEAR_S
    with scene.core.database.write() as connection:
        timeshift.rein_in(connection, scene.core.act("server"))
        assert connection.execute(select(claims.c.expires_s)).scalars().all() == [scene.clock.now_s + 3600.0] * 2
    scene.clock.now_s += 61
    Agent(scene).hello(token)
    with scene.core.database.write() as connection:
        assert [event.what for event in events.list_events(connection, alarms=True)] == ["clock stepped"]
        timeshift.rein_in(connection, scene.core.act("server"))
        assert len(events.list_events(connection, alarms=True)) == 1, "once"


def test_a_token_made_ahead_lives_as_long_as_was_said_from_the_start_on(scene: Scene) -> None:
    token = make_token(scene, HOUR_S)
    assert is_good(scene, token)
    scene.clock.now_s -= YEAR_S
    with scene.core.database.write() as connection:
        timeshift.rein_in(connection, scene.core.act("server"))
    (view,) = scene.admin("GET", "/tokens").json()
    now_s = scene.clock.now_s
    assert (view["created_s"], view["expires_s"], view["used_s"]) == (now_s, now_s + HOUR_S, now_s)
    assert is_good(scene, token)
    scene.clock.now_s += HOUR_S
    assert not is_good(scene, token)


def test_a_start_with_a_right_clock_takes_nothing_back(scene: Scene, tmp_path: Path) -> None:
    make_token(scene, HOUR_S)
    scene.add_node()
    scene.arm(has_identity=False)
    scene.mint()
    before = scene.state_dump()
    with scene.core.database.write() as connection:
        timeshift.rein_in(connection, scene.core.act("server"))
    assert scene.state_dump() == before
