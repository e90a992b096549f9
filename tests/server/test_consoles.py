"""Consoles from the server's side: host keys, passwords by scope, what guesses become, and how one is reached."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from cloner_core.admin.consoles import ConsoleView, PasswordView
from cloner_core.admin.nodes import NodeView
from cloner_core.admin.tasks import EventView, Status
from cloner_core.identity import ssh_fingerprint
from cloner_core.messages import Beat, BeatReply, Cause, ConsoleReport, Failure, PasswordHash, Progress, Stage
from cloner_core.passwords import DEFAULT_PASSWORD, hash_password, is_password
from cloner_server import vault
from cloner_server.consoles import console_key, default_warning, host_key_line
from cloner_server.state import events
from serverbench.scene import Agent, Scene

OURS = hash_password("correct horse", bytes(16))


def password_of(scene: Scene, name: str = "n01") -> PasswordHash:
    """Return what the next agent of a node is told."""
    agent = Agent(scene)
    reply = agent.hello(scene.mint(name))
    assert reply.console is not None
    agent.told("rebooting", dict[str, object])
    scene.clock.now_s += 100
    return reply.console.password


def set_password(scene: Scene, scope: str, *names: str, password: PasswordHash | None = OURS) -> int:
    body = {"scope": scope, "names": names, "password": password}
    return scene.admin("POST", "/console/passwords", body).status_code


def heard(scene: Scene, what: str = "") -> list[EventView]:
    with scene.core.database.read() as connection:
        return [event for event in events.list_events(connection, obj="node/n01") if what in event.what]


def beat(agent: Agent, report: ConsoleReport) -> None:
    agent.told("beat", BeatReply, Beat(progress=Progress(stage=Stage.RESTORE), console=report))


@pytest.fixture
def armed(scene: Scene) -> Scene:
    scene.add_node(groups=("rack1", "odd"))
    scene.arm()
    return scene


def test_each_node_has_a_host_key_of_its_own_that_stays_and_is_none_of_the_clones(armed: Scene) -> None:
    reply = Agent(armed).hello()
    assert reply.console is not None
    key = load_ssh_private_key(reply.console.host_key.value.encode(), None)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    secret = console_key(armed.core.site.vault_key)
    assert line == host_key_line(secret, "n01")
    assert len({host_key_line(secret, name) for name in ("n01", "n02", "N01", "")}) == 4
    assert host_key_line(console_key(bytes(32)), "n01") != line
    with armed.core.database.read() as connection:
        clone = vault.open_identity(connection, "n01", armed.core.site.vault_key)
    assert line not in {one.public for one in clone.host_keys}


def test_nothing_of_the_console_is_kept_in_the_database_or_shown(armed: Scene) -> None:
    reply = Agent(armed).hello()
    assert reply.console is not None
    dump = repr(armed.state_dump())
    assert reply.console.host_key.value.splitlines()[1] not in dump
    assert reply.console.password.digest not in dump
    assert "PRIVATE KEY" not in repr(reply)
    assert reply.console.password.digest not in repr(reply)


def test_the_narrowest_password_counts_and_taking_it_away_brings_the_wider_one_back(armed: Scene) -> None:
    assert is_password(DEFAULT_PASSWORD, password_of(armed))
    by_name = {}
    # Of two groups the first by name counts.
    for scope, name, source in (
        ("site", "", "site"),
        ("group", "rack1", "group rack1"),
        ("group", "odd", "group odd"),
        ("node", "n01", "node"),
    ):
        by_name[name] = hash_password(f"password of {scope} {name}", bytes(16))
        assert set_password(armed, scope, *filter(None, (name,)), password=by_name[name]) == 200
        view = msgspec.json.decode(armed.admin("GET", "/nodes/n01").content, type=NodeView)
        assert view.console_password == source
    assert password_of(armed) == by_name["n01"]
    for scope, name, wider in (("node", "n01", "odd"), ("group", "odd", "rack1"), ("group", "rack1", "")):
        set_password(armed, scope, name, password=None)
        assert password_of(armed) == by_name[wider]
    assert {event.what for event in heard(armed, "console password")} == {
        "console password set",
        "console password reset",
    }


@pytest.mark.parametrize(
    ("scope", "names", "status"),
    [
        ("site", ("n01",), 400),
        ("node", (), 400),
        ("node", ("n01", "n99"), 404),
        ("group", ("rack9",), 404),
        ("rack", ("n01",), 400),
    ],
)
def test_a_password_for_nobody_is_refused_and_changes_nothing(
    armed: Scene, scope: str, names: tuple[str, ...], status: int
) -> None:
    before = armed.state_dump()
    assert set_password(armed, scope, *names) == status
    assert armed.state_dump() == before


def test_the_password_everybody_knows_cannot_be_set_and_a_dry_run_sets_none(armed: Scene) -> None:
    before = armed.state_dump()
    assert set_password(armed, "site", password=hash_password(DEFAULT_PASSWORD, b"0123456789abcdef")) == 400
    body = {"scope": "site", "password": OURS, "dry_run": True}
    answer = armed.admin("POST", "/console/passwords", body)
    assert [view.scope for view in msgspec.json.decode(answer.content, type=list[PasswordView])] == ["site"]
    assert armed.state_dump() == before


def test_the_default_is_warned_of_until_no_console_takes_it(armed: Scene) -> None:
    def warning() -> str:
        shown = msgspec.json.decode(armed.admin("GET", "/status").content, type=Status).warnings
        with armed.core.database.read() as connection:
            assert (default_warning(connection),) == (shown or ("",))
        return "".join(shown)

    armed.add_node("n02", "52:54:00:00:00:02")
    assert "2 nodes" in warning()
    set_password(armed, "group", "rack1")
    assert "1 node takes" in warning()
    set_password(armed, "node", "n02")
    assert warning() == ""
    set_password(armed, "node", "n02", password=None)
    set_password(armed, "site")
    assert warning() == ""


def test_guesses_become_events_at_most_one_a_minute_and_an_alarm_at_each_tenfold(armed: Scene) -> None:
    agent = Agent(armed)
    agent.hello()
    for second in range(30):
        armed.clock.now_s += 2
        beat(agent, ConsoleReport(is_open=True, guesses=second // 2, last_from="10.0.0.66"))
    found = heard(armed, "console guessed")
    assert [event.is_alarm for event in found] == [False, True]
    assert found[-1].detail["last_from"] == "10.0.0.66"
    armed.clock.now_s += 2
    for guesses in (100, 0, 100, 9, 99):  # one that counts up and down is heard once
        beat(agent, ConsoleReport(is_open=True, guesses=guesses, last_from="10.0.0.67"))
    assert [event.is_alarm for event in heard(armed, "console guessed")] == [False, True, True]


def test_views_are_told_once_a_minute(armed: Scene) -> None:
    agent = Agent(armed)
    agent.hello()
    for views in range(1, 41):
        armed.clock.now_s += 2
        beat(agent, ConsoleReport(is_open=True, views=views))
    assert len(heard(armed, "console viewed")) == 2


def reach(scene: Scene) -> ConsoleView:
    return msgspec.json.decode(scene.admin("GET", "/nodes/n01/console").content, type=ConsoleView)


def test_the_console_is_reached_where_the_agent_was_last_heard_from(armed: Scene) -> None:
    assert armed.admin("GET", "/nodes/n01/console").status_code == 409
    armed.sent_from = "10.77.0.101"
    agent = Agent(armed)
    agent.hello()
    first = reach(armed)
    assert (first.address, first.is_open, first.user, first.port) == ("10.77.0.101", False, "ssh", 22)
    assert first.fingerprint == ssh_fingerprint(first.host_key)
    armed.sent_from = "10.77.0.102"
    beat(agent, ConsoleReport(is_open=True))
    assert (reach(armed).address, reach(armed).is_open) == ("10.77.0.102", True)
    agent.fail(Failure(Stage.RESTORE, Cause.DISK_IO, "it broke", "mend it", is_destroyed=True))
    assert reach(armed).address == "10.77.0.102", "a node that holds has its console"
    agent.told("rebooting", dict[str, object])
    refused = armed.admin("GET", "/nodes/n01/console")
    assert refused.status_code == 409
    assert "runs no agent" in refused.text


def test_an_attempt_without_an_address_is_said_to_have_none(armed: Scene) -> None:
    Agent(armed).hello()
    refused = armed.admin("GET", "/nodes/n01/console")
    assert refused.status_code == 409
    assert "address" in refused.text


def test_a_site_without_consoles_tells_agents_nothing_and_warns_of_nothing(armed: Scene) -> None:
    rules = dataclasses.replace(armed.core.rules, console_key=b"")
    without = Scene(dataclasses.replace(armed.core, rules=rules), armed.clock, armed.image)
    assert Agent(without).hello().console is None
    assert without.admin("GET", "/nodes/n01/console").status_code == 409
    assert msgspec.json.decode(without.admin("GET", "/nodes/n01").content, type=NodeView).console_password == "off"
    assert msgspec.json.decode(without.admin("GET", "/status").content, type=Status).warnings == ()
