"""Multicast sessions at the command line: what is destroyed is said first, and watching ends with the truth."""

from __future__ import annotations

from io import StringIO
from typing import Any

import httpx2
import msgspec
import pytest
from rich.console import Console

from clibench.desk import Desk, InProcess
from cloner_cli.cv import cv_cloner
from cloner_cli.multicastview import begins, live_view, seat_counts, session_line, session_text
from cloner_core.admin.deploying import DiskAtRisk, Intent
from cloner_core.admin.sessions import (
    SeatState,
    SeatView,
    SessionIntent,
    SessionRequest,
    SessionState,
    SessionView,
    WaitingView,
)
from cloner_core.errors import ExitStatus, failed_status
from cloner_core.messages import Cause, Failure, Fault, Stage
from cloner_server.state import channels, nodes
from cloner_server.tasks import endings
from serverbench.scene import Agent, facts
from serverbench.sessions import Sessions as RealSessions

PATH = "/v1/multicast/sessions"
DISK = DiskAtRisk("/dev/vda", "SER\x1b[31mIAL", "VirtDisk", 8 << 30, ("/dev/vda1: ext4 'old'",))


def session(*seats: SeatView, **fields: Any) -> SessionView:
    told: dict[str, Any] = {
        "id": "3",
        "state": SessionState.SENDING,
        "image": "golden",
        "number": 1,
        "author": "tester",
        "created_s": 1000.0,
        "started_s": 1060.0,
        "ended_s": None,
        "why": "",
        "least": 0,
        "wait_s": 600.0,
        "priority": 0,
        "rate_bps": 700e6,
        "interface": "eth1",
        "group": "239.255.67.3",
        "port": 47003,
        "hops": 1,
        "seats": seats,
        "parcels": 10,
        "data_bytes": 40 << 20,
        "epochs": 1,
        "sent_bytes": 20 << 20,
        "blocks": 990,
        "combinations": 10,
        "reports": 7,
        "sending_bps": 650e6,
    }
    return SessionView(**{**told, **fields})


class Sessions(httpx2.BaseTransport):
    """What a server says of multicast, in place of it; all else goes to the real one."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.rest: InProcess = desk.transport
        self.asked: list[SessionRequest] = []
        self.queries: list[str] = []
        self.waiting: list[WaitingView] = []
        self.view = session(SeatView("n01", SeatState.HEARING, "1"), SeatView("n02", SeatState.AWAITED, "2"))
        self.notes: tuple[str, ...] = ()
        self.refuses = ""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if not path.startswith("/v1/multicast") or self.rest.is_away or self.rest.is_wedged:
            return self.rest.handle_request(request)
        self.queries.append(request.url.query.decode())
        if path == "/v1/multicast/waiting":
            return self._answer(self.waiting)
        if path == PATH:
            return self._answer([self.view]) if request.method == "GET" else self._ordered(request.read())
        if path.removeprefix(f"{PATH}/").partition("/")[0] != self.view.id:
            return self._answer(Fault(error=f"there is no session {path}", status=ExitStatus.NOT_FOUND), 404)
        return self._answer(self.view)

    def _ordered(self, body: bytes) -> httpx2.Response:
        request = msgspec.json.decode(body, type=SessionRequest)
        self.asked.append(request)
        if self.refuses:
            return self._answer(Fault(error=self.refuses, status=ExitStatus.REFUSED), 409)
        tasks = {}
        if not request.dry_run:
            first = int(self.desk.scene.arm(*request.nodes))
            tasks = {name: str(first + at) for at, name in enumerate(request.nodes)}
        intents = tuple(
            Intent(name, request.image, 1, "simple", 1, (DISK,), True, task_id=tasks.get(name, ""))
            for name in request.nodes
        )
        told = SessionIntent(intents, request.rate_bps or 700e6, "239.255.67.3", 47003, self.notes)
        return self._answer(told if request.dry_run else msgspec.structs.replace(told, id="3"))

    @staticmethod
    def _answer(value: object, status: int = 200) -> httpx2.Response:
        return httpx2.Response(status, content=msgspec.json.encode(value))


@pytest.fixture
def two(desk: Desk) -> Desk:
    desk.scene.add_node("n01")
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    return desk


@pytest.fixture
def sessions(two: Desk) -> Sessions:
    made = Sessions(two)
    two.transport = made  # type: ignore[assignment]  # it takes requests as the other does
    return made


IMAGE = ("multicast-image", "--image", "golden", "--nodes", "n[01-02]")


def test_what_would_be_destroyed_is_shown_and_nothing_is_armed_without_a_yes(two: Desk, sessions: Sessions) -> None:
    sessions.notes = ("eth1 does not tell its speed: 1 Gbit/s is taken",)
    result = two.refused(*IMAGE)
    assert result.exit_code == ExitStatus.REFUSED
    assert "--yes" in result.stderr
    assert "DESTROYS /dev/vda (VirtDisk serial SER\\x1b[31mIAL, 8.0 GiB): /dev/vda1: ext4 'old'" in result.stderr
    assert "to 2 nodes, 239.255.67.3:47003, at most 700 Mbit/s; begins when all hear, or 10 min" in result.stderr
    assert "note: eth1 does not tell its speed" in result.stderr
    assert [request.dry_run for request in sessions.asked] == [True]


def test_no_is_no(two: Desk, sessions: Sessions) -> None:
    two.has_terminal = True
    assert two.refused(*IMAGE, typed="n\n").exit_code == ExitStatus.REFUSED
    assert [request.dry_run for request in sessions.asked] == [True]


def test_a_dry_run_says_everything_and_arms_nothing(two: Desk, sessions: Sessions) -> None:
    result = two.run(*IMAGE, "--dry-run", "--start-now")
    assert result.exit_code == 0
    assert "begins with the first that hears" in result.stdout
    assert "DESTROYS /dev/vda" in result.stdout
    assert [request.dry_run for request in sessions.asked] == [True]


def test_what_was_shown_is_what_is_armed(two: Desk, sessions: Sessions) -> None:
    two.has_terminal = True
    result = two.run(*IMAGE, typed="y\n")
    assert (result.exit_code, result.stdout) == (0, "session 3\n")
    trial, order = sessions.asked
    assert (order.dry_run, order.version) == (False, 1)
    assert order.shown is not None
    assert [intent.node for intent in order.shown] == ["n01", "n02"]
    assert trial == msgspec.structs.replace(order, dry_run=True, shown=None, version=None)


def test_every_option_reaches_the_server(two: Desk, sessions: Sessions) -> None:
    words = ("--min", "2", "--wait", "90s", "--rate", "700Mbit", "--priority", "-3", "--override-image", "--hops", "4")
    assert two.run(*IMAGE, *words, "-l", "simple", "--dry-run").exit_code == 0
    (asked,) = sessions.asked
    assert (asked.least, asked.wait_s, asked.rate_bps, asked.priority) == (2, 90.0, 700e6, -3)
    assert (asked.override_image, asked.hops, asked.layout, asked.start_now) == (True, 4, "simple", False)


def test_rates_may_be_given_in_bytes(two: Desk, sessions: Sessions) -> None:
    two.run(*IMAGE, "--rate", "10MB", "--dry-run")
    assert sessions.asked[0].rate_bps == 80e6


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--image", "nowhere"], ExitStatus.NOT_FOUND, "no such image: nowhere"),
        (["--image", "golden:77"], ExitStatus.NOT_FOUND, "no such image: golden:77"),
        (["--image", "golden", "--nodes", "n77"], ExitStatus.NOT_FOUND, "no such node: n77"),
        (["--image", "golden", "--min", "3"], ExitStatus.USAGE, "--min 3: 2 nodes are named"),
        (["--image", "golden", "--start-now", "--wait", "9s"], ExitStatus.USAGE, "--start-now"),
        (["--image", "golden", "--rate", "700M"], ExitStatus.USAGE, "'700M' is not a rate"),
        (["--image", "golden", "--wait", "10m"], ExitStatus.USAGE, "'10m' is not a time"),
        (["--image", "golden", "--hops", "256"], ExitStatus.USAGE, "256"),
        (["--image", "golden", "--timeout", "9"], ExitStatus.USAGE, "--watch"),
        (["--image", "a b", "--min", "9"], ExitStatus.USAGE, "--min 9"),
    ],
)
def test_a_wrong_line_is_refused_before_the_server_is_asked(
    two: Desk, sessions: Sessions, words: list[str], status: ExitStatus, told: str
) -> None:
    result = two.refused("multicast-image", "--nodes", "n[01-02]", *words, "--yes")
    assert (result.exit_code, sessions.asked) == (status, [])
    assert told in result.stderr


def test_above_the_limit_yes_is_not_enough(two: Desk, sessions: Sessions) -> None:
    result = two.refused(*IMAGE, "--max", "1", "--yes")
    assert (result.exit_code, "--max 2" in result.stderr) == (ExitStatus.REFUSED, True)
    assert [request.dry_run for request in sessions.asked] == [True]


def test_what_the_server_refuses_is_told_as_it_says(two: Desk, sessions: Sessions) -> None:
    sessions.refuses = "n02 is in session 2"
    result = two.refused(*IMAGE, "--yes")
    assert (result.exit_code, "n02 is in session 2" in result.stderr) == (ExitStatus.REFUSED, True)


def succeed(two: Desk, agent: Agent) -> None:
    body, _ = agent.deploy()
    with two.scene.core.database.write() as connection:
        endings.accept_confirm(connection, two.scene.core.act("clone"), agent.confirmation(body))


def test_watching_ends_when_every_node_is_done(two: Desk, sessions: Sessions) -> None:
    agent = Agent(two.scene)

    def world(turn: int) -> None:
        if turn == 1:
            sessions.view = session(SeatView("n01", SeatState.HTTPS, "1", "nothing of 239.255.67.3 arrived in 5 s", 4))
            agent.hello()
        if turn == 2:
            succeed(two, agent)
            sessions.view = msgspec.structs.replace(sessions.view, state=SessionState.ENDED, why="all have it")

    sessions.view = session(SeatView("n01", SeatState.AWAITED, "1"), state=SessionState.QUEUED)
    two.on_sleep = world
    result = two.run("multicast-image", "-i", "golden", "-n", "n01", "--yes", "--watch", "--json")
    assert result.exit_code == 0, result.stderr
    told = msgspec.json.decode(result.stdout)
    assert (told["session"]["state"], [task["state"] for task in told["tasks"]]) == ("ended", ["done"])
    for line in (
        "session 3  queued  1 awaited",
        "n01  https  4 of 10 parcels  nothing of 239.255.67.3 arrived in 5 s",
        "session 3  ended, all have it  1 https",
        "n01  done",
    ):
        assert line in result.stderr


def test_a_node_that_fails_is_the_status_of_the_watch(two: Desk, sessions: Sessions) -> None:
    two.scene.arm("n01")
    agent = Agent(two.scene)

    def world(turn: int) -> None:
        if turn == 1:
            agent.hello()
            agent.fail(Failure(Stage.RESTORE, Cause.NETWORK, "gone", "look", True))
            sessions.view = session(SeatView("n01", SeatState.OUT, "1"), state=SessionState.ENDED)

    sessions.view = session(SeatView("n01", SeatState.HEARING, "1"))
    two.on_sleep = world
    result = two.run("multicast-show", "3", "--watch")
    assert result.exit_code == failed_status(1)
    assert "n01: failed in stage restore" in result.stderr


def test_a_watch_keeps_to_its_time_though_the_server_hangs(two: Desk, sessions: Sessions) -> None:
    two.scene.arm("n01")
    sessions.view = session(SeatView("n01", SeatState.AWAITED, "1"))

    def world(turn: int) -> None:
        sessions.rest.is_wedged = turn > 2

    two.on_sleep = world
    result = two.run("multicast-show", "3", "--watch", "--timeout", "10")
    assert result.exit_code == ExitStatus.TIMEOUT
    assert two.now_s <= 15


def test_a_restart_of_the_server_goes_unnoticed_while_watching(two: Desk, sessions: Sessions) -> None:
    two.scene.arm("n01")
    sessions.view = session(SeatView("n01", SeatState.AWAITED, "1"))

    def world(turn: int) -> None:
        sessions.rest.is_away = 2 < turn < 9
        if turn == 12:
            with two.scene.core.database.write() as connection:
                endings.abort_task(connection, two.scene.core.act("test"), "1")

    two.on_sleep = world
    result = two.run("multicast-show", "3", "--watch")
    assert (result.exit_code, "task 1 is aborted" in result.stderr) == (failed_status(1), True)


@pytest.mark.parametrize("verb", ["multicast-show", "multicast-stop", "multicast-start"])
def test_a_session_that_is_not_there_is_not_found(two: Desk, sessions: Sessions, verb: str) -> None:
    assert two.refused(verb, "9").exit_code == ExitStatus.NOT_FOUND


def test_who_waits_is_shown(two: Desk, sessions: Sessions) -> None:
    sessions.waiting = [
        WaitingView("n01", "golden", 1000.0, 1030.0, "10.0.0.5", 1000, 4 << 30, ("/dev/vda 20 GiB",)),
        WaitingView("n02", "", None, None, "", 0, 0, (), note="has not netbooted yet"),
    ]
    shown = two.run("multicast-status").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["NODE", "n01", "n02"]
    assert "1 Gbit/s  4.0 GiB  /dev/vda 20 GiB" in shown[1]
    assert shown[2].endswith("has not netbooted yet")
    assert [view["node"] for view in two.json("multicast-status", "-n", "n02")] == ["n02"]
    assert two.refused("multicast-status", "-n", "n77").exit_code == ExitStatus.NOT_FOUND
    sessions.waiting = []
    nobody = two.run("multicast-status")
    assert (nobody.stdout, "no node waits" in nobody.stderr) == ("", True)


def test_sessions_are_listed_and_those_that_are_over_when_asked(two: Desk, sessions: Sessions) -> None:
    listed = two.run("multicast-list").stdout
    assert "3        sending  golden:1  n[01-02]  1 awaited, 1 hearing  700 Mbit/s" in listed
    two.run("multicast-list", "--all")
    assert sessions.queries == ["all=false", "all=true"]


def test_a_session_tells_what_it_sent_and_what_became_of_each_node(two: Desk, sessions: Sessions) -> None:
    sessions.view = session(
        SeatView("n01", SeatState.WRITTEN, "1", parcels=10, loss=0.004),
        SeatView("n02", SeatState.HTTPS, "2", "too slow\x1b[2J for the others", 4),
    )
    shown = two.run("multicast-show", "3").stdout
    for text in (
        "when every node hears, or 10 min after the first seat",
        "eth1, 239.255.67.3:47003, hops 1, priority 0",
        "650 Mbit/s of 700 Mbit/s",
        "20.0 MiB: 990 blocks and 10 combinations (1.0% repair); 7 reports came",
        "1 https, 1 written",
        "too slow\\x1b[2J for the others",
        "n01   written  10 of 10  0.4%",
    ):
        assert text in shown
    assert shown.index("n02   https") < shown.index("n01   written"), "what wants a look stands first"
    assert two.json("multicast-show", "3")["combinations"] == 10


def test_a_group_of_ipv6_is_shown_in_brackets(two: Desk, sessions: Sessions) -> None:
    sessions.view = msgspec.structs.replace(session(), group="ff15::c10e:1")
    assert "eth1, [ff15::c10e:1]:47003, hops 1" in two.run("multicast-show", "3").stdout


def test_a_live_view_has_a_line_a_node_and_says_why(two: Desk) -> None:
    two.scene.arm("n01", "n02")
    view = session(
        SeatView("n01", SeatState.HEARING, "1", parcels=5, loss=0.01),
        SeatView("n02", SeatState.HTTPS, "2", "it hears, but its answers do not arrive", 2),
    )
    console = Console(width=160, record=True, file=StringIO())
    console.print(live_view(view, [two.scene.task("1")]))
    lines = console.export_text().splitlines()
    assert lines[0].startswith("session 3  sending  1 https, 1 hearing  650 Mbit/s  1.0% repair  7 reports")
    assert lines[1].split()[0] == "n02"
    assert "answers do not arrive" in lines[1]
    assert "5 of 10 parcels, 1.0% lost" in lines[2]


def test_nothing_is_divided_by_nothing() -> None:
    empty = session(state=SessionState.QUEUED, parcels=0, blocks=0, combinations=0, sent_bytes=0, least=4)
    assert session_line(empty) == "session 3  queued"
    assert (seat_counts(empty), begins(empty)) == ("", "when 4 of 0 nodes hear, or 10 min after the first seat")
    assert "state    queued" in session_text(empty)
    assert begins(msgspec.structs.replace(empty, start_now=True)) == "with the first node that hears"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("multicast-image --server=head --image=golden --nodes=n01,n02 --yes", 0),
        ("multicast-status --server=head", 0),
        ("multicast-list", 0),
        ("multicast-show 3", 0),
        ("multicast-new-session --image=golden", ExitStatus.USAGE),
    ],
)
def test_cv_cloner_has_the_verbs(two: Desk, sessions: Sessions, line: str, status: int) -> None:
    assert two.run(*line.split(), program=cv_cloner).exit_code == status


def test_a_channel_names_the_version(two: Desk, sessions: Sessions) -> None:
    with two.scene.core.database.write() as connection:
        channels.set_channel(connection, two.scene.core.act("test"), "golden", "prod", 1)
    assert two.run("multicast-image", "-i", "golden:prod", "-n", "n01", "--yes").exit_code == 0
    assert [request.version for request in sessions.asked] == ["prod", 1]


def test_the_whole_of_a_session_before_the_real_server(two: Desk) -> None:
    real = RealSessions(two.scene)
    two.has_terminal = True
    before = two.scene.state_dump()
    dry = two.run(*IMAGE, "--dry-run").stdout
    assert "by multicast to 2 nodes, 239.255.67.1:47000, at most 700 Mbit/s; begins when all hear, or 10 min" in dry
    assert "n01: golden:1 with layout simple:1" in dry
    assert two.scene.state_dump() == before
    assert two.run(*IMAGE, "--wait", "90s", "--rate", "100Mbit", typed="y\n").stdout == "session 1\n"
    view = real.show()
    assert (view.wait_s, view.rate_bps, [seat.node for seat in view.seats]) == (90.0, 100e6, ["n01", "n02"])
    assert (two.scene.netboot("n01"), two.scene.task("1").version) == ("cloner-multicast", 1)
    assert "1        queued  golden:1  n[01-02]  2 awaited  100 Mbit/s" in two.run("multicast-list").stdout
    assert [each["session"] for each in two.json("multicast-status")] == ["1", "1"]
    again = two.refused(*IMAGE, "--yes")
    assert (again.exit_code, "n01 is in session 1" in again.stderr) == (ExitStatus.REFUSED, True)
    assert "n01   awaited" in two.run("multicast-show", "1").stdout


def test_a_rate_above_the_link_is_refused_before_anything_is_armed(two: Desk) -> None:
    RealSessions(two.scene)
    result = two.refused(*IMAGE, "--rate", "2Gbit", "--yes")
    assert (result.exit_code, "2 Gbit/s is above the 1 Gbit/s of eth0" in result.stderr) == (ExitStatus.REFUSED, True)


@pytest.mark.parametrize("happens", [True, False])
def test_only_what_was_shown_is_armed_by_the_real_server(two: Desk, happens: bool) -> None:
    RealSessions(two.scene)

    def meanwhile() -> None:
        if happens:
            with two.scene.core.database.write() as connection:
                nodes.remember_facts(connection, two.scene.core.act("test"), "n01", facts(serial="NEW"))

    two.has_terminal, two.on_ask = True, meanwhile
    result = two.run(*IMAGE, typed="y\n")
    assert result.exit_code == (ExitStatus.CONFLICT if happens else 0)
    assert (two.scene.netboot("n01") == "cloner-multicast") is not happens


def test_a_session_is_begun_by_hand_and_stopped_after_a_yes(two: Desk) -> None:
    real = RealSessions(two.scene)
    assert two.run(*IMAGE, "--yes").exit_code == 0
    before = two.scene.state_dump()
    assert "session 1 (queued) would begin with whoever hears" in two.run("multicast-start", "1", "--dry-run").stdout
    assert two.scene.state_dump() == before
    assert two.run("multicast-start", "1").exit_code == 0
    assert "with the first node that hears" in two.run("multicast-show", "1").stdout
    assert two.refused("multicast-stop", "1").exit_code == ExitStatus.REFUSED
    two.has_terminal = True
    assert two.refused("multicast-stop", "1", typed="n\n").exit_code == ExitStatus.REFUSED
    assert "session 1 would be stopped" in two.run("multicast-stop", "1", "--dry-run").stdout
    assert real.state() is SessionState.QUEUED
    result = two.run("multicast-stop", "1", typed="y\n")
    assert (result.exit_code, real.state()) == (0, SessionState.STOPPED)
    assert "session 1  stopped, stopped by tester  2 https" in result.stdout
    for verb in ("multicast-stop", "multicast-start"):
        ended = two.refused(verb, "1", "--yes") if verb == "multicast-stop" else two.refused(verb, "1")
        assert (ended.exit_code, "session 1 is stopped" in ended.stderr) == (ExitStatus.REFUSED, True)
    assert two.run("multicast-list").stdout.count("\n") == 1
    assert "stopped by tester" in two.run("multicast-list", "--all").stdout
