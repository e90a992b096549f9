"""Sessions of a real server with simulated machines on real links: called, cloned, none worse off than over HTTPS."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentbench.ground import ground
from agentbench.yard import End
from netns.multicast_room import Room
from netns.multicast_yard import yard
from netns.netboot_lab import inside
from serverbench.served import Served

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(280)]
_MIB = 1 << 20


@contextmanager
def room(tmp_path: Path, machines: int, big_bytes: int, mbps: float) -> Iterator[Room]:
    with (
        yard(machines) as links,
        inside(links.of(0)),
        ground(tmp_path, address=links.address(0), big_bytes=big_bytes, interface="eth0", multicast_mbps=mbps) as made,
    ):
        for number in range(1, machines + 1):
            made.add().namespace = links.of(number)
        yield Room(made, links)


def senders_of(served: Served) -> list[int]:
    """Return the processes that send for this server."""
    assert served.process is not None
    threads = Path(f"/proc/{served.process.pid}/task").glob("*/children")
    children = [int(word) for file in threads for word in file.read_text().split()]
    return [pid for pid in children if b"multicast.process" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Room]:
    with room(tmp_path, 3, 8 * _MIB, 100.0) as made:
        yield made


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Room]:
    with room(tmp_path, 2, 40 * _MIB, 40.0) as made:
        yield made


def test_who_waits_is_called_and_cloned_by_multicast(small: Room) -> None:
    small.links.lose(2, 0.03)
    small.links.lose(3, 1.0)
    small.wait_called()
    name = small.begin()
    notes = small.finish()
    small.until(lambda: small.session(name)["state"] == "ended", "the session goes on")
    session = small.session(name)
    count = session["parcels"]
    assert notes[:2] == [f"{count} of {count} packs came by multicast"] * 2
    assert notes[2].startswith(f"0 of {count} packs came by multicast; the others over HTTPS: ")
    assert [seat["state"] for seat in session["seats"]] == ["written", "written", "https"]
    assert "IGMP snooping" in session["seats"][2]["why"]
    assert session["epochs"] == 1
    assert all(one.ends == [End.RESTARTED, End.CLONE] for one in small.machines), "one restart: into the clone"


def test_a_server_that_dies_in_the_middle_goes_on(slow: Room) -> None:
    slow.wait_called()
    name = slow.begin()
    slow.until_written(name)
    slow.made.served.kill()
    slow.made.yard.wait(2)
    slow.made.served.start()
    notes = slow.finish()
    session = slow.session(name)
    count = session["parcels"]
    assert notes == [f"{count} of {count} packs came by multicast"] * 2
    assert session["epochs"] == 2


def test_a_sender_that_dies_in_the_middle_is_followed_by_another(slow: Room) -> None:
    slow.wait_called()
    name = slow.begin()
    slow.until(lambda: slow.session(name)["state"] == "sending", "it does not begin")
    slow.made.yard.wait(2)
    [sender] = senders_of(slow.made.served)
    os.kill(sender, signal.SIGKILL)
    notes = slow.finish()
    session = slow.session(name)
    count = session["parcels"]
    assert notes == [f"{count} of {count} packs came by multicast"] * 2
    assert session["epochs"] == 2
    slow.until(lambda: slow.session(name)["state"] == "ended", "the session goes on")
    slow.until(lambda: not senders_of(slow.made.served), "its sender stays")


def test_one_that_comes_late_gets_all_of_it(slow: Room) -> None:
    slow.wait_called(1)
    name = slow.begin(least=1)
    slow.until(lambda: slow.session(name)["state"] == "sending", "it does not begin")
    slow.made.yard.wait(1)
    slow.made.yard.switch_on(slow.machines[1])
    notes = slow.finish()
    count = slow.session(name)["parcels"]
    assert notes == [f"{count} of {count} packs came by multicast"] * 2


def test_one_that_dies_in_the_middle_takes_another_seat(slow: Room) -> None:
    slow.wait_called()
    name = slow.begin()
    slow.until_written(name)
    slow.machines[0].kill_agent()
    slow.until(lambda: slow.made.task(slow.machines[0])["state"] == "failed", "nobody told of its death")
    slow.made.served.admin("POST", f"/tasks/{slow.made.task(slow.machines[0])['id']}/retry")
    notes = slow.finish()
    count = slow.session(name)["parcels"]
    assert notes == [f"{count} of {count} packs came by multicast"] * 2
    assert slow.machines[0].ends == [End.DIED, End.RESTARTED, End.CLONE]
    slow.until(lambda: slow.session(name)["state"] == "ended", "the session goes on")
    assert {seat["state"] for seat in slow.session(name)["seats"]} <= {"written", "https"}


def test_one_that_waits_for_the_others_can_be_aborted(slow: Room) -> None:
    slow.wait_called(1)
    name = slow.begin()
    one = slow.machines[0]
    slow.until(lambda: slow.session(name)["seats"][0]["state"] == "hearing", "it does not hear")
    assert slow.session(name)["state"] == "gathering", "the other one was never switched on"
    assert slow.made.task(one)["stage"] == "restore"
    slow.made.served.admin("POST", f"/tasks/{slow.made.task(one)['id']}/abort")
    slow.made.yard.run([one], deadline_s=60)
    assert one.end is End.HOLDING
    slow.until(lambda: slow.session(name)["seats"][0]["state"] == "out", "its seat is not free")
    assert "waiting for the session to begin" in one.console.read_text()


def test_a_session_that_is_stopped_leaves_nobody_behind(slow: Room) -> None:
    slow.wait_called()
    name = slow.begin()
    slow.until_written(name)
    slow.made.served.admin("POST", f"/multicast/sessions/{name}/stop")
    notes = slow.finish()
    assert all("; the others over HTTPS: " in note for note in notes)
    assert not any(note.startswith("0 of") for note in notes)
