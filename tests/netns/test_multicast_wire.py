"""Sessions over real sockets and links: what is sent arrives, whole, whoever loses what."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from pathlib import Path

import pytest

from cloner_core.errors import InvalidError, RefusedError
from cloner_core.multicast.sender import Pace
from cloner_core.multicast.session import KEY_BYTES, Parcel, Session
from cloner_multicast.feed import Feed
from cloner_multicast.receiving import Seat
from cloner_multicast.sockets import Group, ReceiverSocket
from netns.multicast_yard import alter, forge, group, replay, stage, yard
from netns.netboot_lab import inside

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.timeout(180)]


@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_every_receiver_gets_every_parcel(tmp_path: Path, loss: float) -> None:
    with yard(3) as made, stage(tmp_path, made, 20) as it:
        if loss:
            for number in range(1, it.made.count):
                it.made.lose(number, loss)
        for number in range(3):
            it.receive(number)
        it.send()
        told, sent = it.ended(0, 1, 2), it.total()
    assert [one[:3] for one in told] == [(number, list(range(20)), None) for number in range(3)]
    assert all(state.forged == state.poisoned == 0 for *_, state in told)
    assert (sent.combinations > 0) == bool(loss)
    assert sent.blocks < 1.02 * sum(-(-len(content) // 1440) for content in it.show.contents)


@pytest.mark.parametrize("network", ["fd79::", "fe80::"], ids=["of the network", "of the link"])
@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_every_receiver_gets_every_parcel_over_ipv6_in_frames_that_fit(
    tmp_path: Path, loss: float, network: str
) -> None:
    with yard(3, network=network) as made, stage(tmp_path, made, 20) as it:
        if loss:
            for number in range(1, it.made.count):
                it.made.lose(number, loss)
        for number in range(3):
            it.receive(number)
        it.send()
        told, sent = it.ended(0, 1, 2), it.total()
        fragments = [snmp6(made.of(number), "Ip6FragCreates") for number in range(made.count)]
        octets, datagrams = snmp6(made.of(0), "Ip6OutMcastOctets"), sent.datagrams
    assert [one[:3] for one in told] == [(number, list(range(20)), None) for number in range(3)]
    assert all(state.forged == state.poisoned == 0 for *_, state in told)
    assert (sent.combinations > 0) == bool(loss)
    assert sent.blocks < 1.02 * sum(-(-len(content) // it.show.block_bytes) for content in it.show.contents)
    assert fragments == [0] * 4
    assert 1450 * sent.blocks < octets < 1500 * (datagrams + 20), "full frames of 1500 bytes, and no more of them"


def snmp6(namespace: str, counter: str) -> int:
    """Return a counter of IPv6 in a namespace (/proc/net/snmp6)."""
    argv = ("ip", "netns", "exec", namespace, "cat", "/proc/net/snmp6")
    rows = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    return int(dict(row.split() for row in rows)[counter])


@pytest.mark.parametrize("has_seat", [True, False])
def test_a_feed_ends_when_it_is_stopped_though_workers_live(has_seat: bool) -> None:
    seat = Seat(1, 0, bytes(KEY_BYTES), bytes(KEY_BYTES), ("10.79.0.1", 9))
    with yard(1) as made, inside(made.of(1)):
        feed = Feed(Session(1, [Parcel(bytes(32), 100_000)]), group(), lambda _stream, _: seat if has_seat else "none")
        feed.start()
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()  # with all that the feed had open
        process = feed._process
        assert process is not None
        try:
            while not (feed.state().seated_s if has_seat else feed.arrived() or feed.left):
                time.sleep(0.01)
            feed.stop()
        finally:
            worker.kill()
            worker.join()
    assert process.exitcode == 0, "it was killed"


def test_who_joins_late_costs_what_it_missed(tmp_path: Path) -> None:
    with yard(2) as made, stage(tmp_path, made, 30) as it:
        it.pace = Pace(100e6, 5e6)
        it.receive(0)
        it.receive(1, wait_s=1.0)
        it.send(seated=1)
        told, sent = it.ended(0, 1), it.total()
    assert [one[:3] for one in told] == [(number, list(range(30)), None) for number in range(2)]
    assert sent.blocks < 2 * sum(-(-len(content) // 1440) for content in it.show.contents)


def test_a_sender_that_was_killed_goes_on_as_another_epoch(tmp_path: Path) -> None:
    with yard(2) as made, stage(tmp_path, made, 40) as it:
        it.pace = Pace(100e6, 5e6)
        for number in range(2):
            it.receive(number)
        first = it.send()
        first.join(1.0)
        assert first.is_alive(), "it was to be killed in the middle"
        first.kill()
        it.send(stream=2, seated=0)  # they come when they have heard nothing for a while
        told, sent = it.ended(0, 1), it.total(2)
    assert [one[:3] for one in told] == [(number, list(range(40)), None) for number in range(2)]
    assert sent.blocks < 1.9 * sum(-(-len(content) // 1440) for content in it.show.contents)


def test_what_a_stranger_sends_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    with yard(2) as made, stage(tmp_path, made, 20) as it:
        it.receive(0)
        it.start(forge, 2, it.made.address(2), 20)
        it.send(seated=1)
        (told,) = it.ended(0)
    assert told[:3] == (0, list(range(20)), None)
    assert told[3].forged > 100
    assert told[3].poisoned == 0


def test_of_a_flood_of_forgeries_none_is_taken(tmp_path: Path) -> None:
    with yard(3) as made, stage(tmp_path, made, 30) as it:
        it.pace = Pace(100e6, 5e6)
        for number in range(2):
            it.receive(number)
        for place in (2, 3):  # each sends about as much as the session
            it.start(forge, place, made.address(place), 20)
        it.send(numbers=range(2))
        told, sent = it.ended(0, 1), it.total()
    assert [one[:3] for one in told] == [(number, list(range(30)), None) for number in range(2)]
    for *_, state in told:
        assert state.datagrams <= sent.datagrams, "only what was sent was taken"
        assert state.forged > sent.datagrams / 2
        assert state.poisoned == 0


def test_of_altered_datagrams_nothing_is_handed_on_and_soon_none_is_taken(tmp_path: Path) -> None:
    with yard(3) as made, stage(tmp_path, made, 30) as it:
        it.pace = Pace(100e6, 5e6)
        for number in range(2):
            made.lose(number + 1, 0.02)  # what is lost here comes altered
            it.receive(number)
        listens = multiprocessing.Event()
        it.start(alter, 3, made.address(3), 20, listens)
        assert listens.wait(20)
        it.send(numbers=range(2), seated=2)
        told, sent = it.ended(0, 1), it.total()
    assert [one[:3] for one in told] == [(number, list(range(30)), None) for number in range(2)]
    assert sent.altered, "nobody saw that anything was altered"
    assert all(state.poisoned <= 16 for *_, state in told), "what had no tag was taken for longer than a window"
    assert all(state.forged > 100 for *_, state in told), "altered datagrams are to be found out one by one"


def test_what_a_former_epoch_sent_is_not_taken_again(tmp_path: Path) -> None:
    with yard(2) as made, stage(tmp_path, made, 40) as it:
        it.pace = Pace(100e6, 5e6)
        it.receive(0)
        it.start(replay, 2, made.address(2), 60, 2)
        first = it.send(numbers=[0])
        first.join(1.0)
        assert first.is_alive(), "it was to be killed in the middle"
        first.kill()
        first.join()
        time.sleep(1.0)  # only the stranger is heard
        it.send(stream=2, numbers=[0], seated=1)
        (told,), sent = it.ended(0, within_s=30), it.total(2)  # the stranger goes on for longer
    assert told[:3] == (0, list(range(40)), None)
    assert told[3].forged > 100, "what was given the new number has the old key"
    assert told[3].poisoned == 0
    assert sent.blocks < 1.5 * sum(-(-len(content) // 1440) for content in it.show.contents)


@pytest.mark.parametrize(
    ("address", "port", "hops", "fault"),
    [("10.0.0.1", 4000, 1, "no multicast group"), ("239.1.1.1", 0, 1, "no port"), ("239.1.1.1", 4000, 0, "0 hops")],
)
def test_a_group_that_cannot_be_is_refused(address: str, port: int, hops: int, fault: str) -> None:
    with pytest.raises(InvalidError, match=fault):
        Group(address, port, "lo", hops)


def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(RefusedError, match="there is no network interface 'nowhere0'"):
        ReceiverSocket(Group("239.1.1.1", 4000, "nowhere0"))
