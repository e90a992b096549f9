"""The sender's process as the server runs it: it gathers, sends a version of a store, dies, and another follows it."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloner_core.errors import ConflictError
from cloner_core.image.packmap import decode_map
from cloner_core.messages import Secret
from cloner_core.multicast.session import MASTER_BYTES, Leaving
from cloner_core.seats import make_parcel
from cloner_server.multicast.orders import InCache, InStore, SenderNews, SenderOrder, SenderPhase
from cloner_server.multicast.parcels import parcel_list
from cloner_server.multicast.supervisor import Running, Supervisor
from cloner_server.relay.cache import PackCache, held
from cloner_server.store.local import LocalStore
from netns.multicast_yard import Show, Yard, group, receive, start, yard
from netns.netboot_lab import inside
from store_images import Key, make_image

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.timeout(180)]

_CONTEXT = multiprocessing.get_context("fork")
_WAIT_S = 60.0


def a_store(tmp_path: Path) -> tuple[LocalStore, bytes]:
    """Return a store with a version of about 6 MB in a dozen packs, and the digest of its map."""
    chance = random.Random(7)
    store = LocalStore(tmp_path / "store", Key())
    image = make_image({b"%02d" % number: chance.randbytes(600_000) for number in range(10)}, pack_every=1)
    image.put(store)
    store.publish(image.draft)
    return store, bytes.fromhex(store.signed_map(image.version).map)


@dataclass
class Stage:
    """A yard, a store, and a supervisor in the namespace of the sender."""

    made: Yard
    store: LocalStore
    pack_map: bytes
    show: Show
    supervisor: Supervisor = field(default_factory=Supervisor)
    processes: list[BaseProcess] = field(default_factory=list)
    got: Any = field(default_factory=_CONTEXT.Queue)

    def order(self, stream: int = 1, rate_bps: float = 200e6, **other: Any) -> SenderOrder:
        where = self.show.group
        order = SenderOrder(
            session="s1",
            stream=stream,
            origin=InStore(str(self.store.files_root)),
            pack_map=self.pack_map.hex(),
            parcels=parcel_list(self.store, self.pack_map),
            interface=where.interface,
            source=self.made.address(0),
            group=where.address,
            port=where.port,
            rate_bps=rate_bps,
            floor_bps=rate_bps / 40,
            master=Secret(os.urandom(MASTER_BYTES).hex()),
            block_bytes=self.show.block_bytes,
        )
        return msgspec.structs.replace(order, **other)

    def start(self, order: SenderOrder) -> Running:
        """Start a sender and tell the nodes of it."""
        running = self.supervisor.start(order)
        until(running, lambda news: bool(news.address))
        where = {"stream": order.stream, "master": order.master.value, "address": running.address}
        self.show.pin(where)
        return running

    def receive(self, number: int) -> None:
        self.processes.append(start(receive, self.made.of(number + 1), self.show, number, self.got))

    def ended(self, count: int) -> list[tuple[int, list[int], Any]]:
        return sorted((self.got.get(timeout=_WAIT_S)[:3] for _ in range(count)), key=lambda one: one[0])

    @property
    def everything(self) -> list[int]:
        return list(range(len(self.show.contents)))


@contextmanager
def stage(tmp_path: Path, receivers: int, *bridge: str, network: str = Yard.network) -> Iterator[Stage]:
    store, pack_map = a_store(tmp_path)
    packs = decode_map(store.pack_map(pack_map)).packs
    contents = [
        make_parcel(store.placement(pack_map, ordinal), store.pack_path(pack.digest).read_bytes())
        for ordinal, pack in enumerate(packs)
    ]
    with yard(receivers, *bridge, network=network) as made, inside(made.of(0)):
        opened = Stage(made, store, pack_map, Show(contents, tmp_path / "board", made.is_v6))
        try:
            yield opened
        finally:
            opened.supervisor.close()
            for process in opened.processes:
                process.kill()
                process.join()


def until(running: Running, is_so: Callable[[SenderNews], bool], wait_s: float = _WAIT_S) -> SenderNews:
    """Wait for news; those of a process that has ended are the last."""
    ends_s = time.monotonic() + wait_s
    while not is_so(news := running.news()):
        assert not news.is_ended, news
        assert time.monotonic() < ends_s, news
        time.sleep(0.02)
    return news


def heard(news: SenderNews) -> int:
    return sum(one.heard_s is not None for one in news.receivers)


@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_a_version_is_sent_to_all_once_everybody_is_heard(tmp_path: Path, loss: float) -> None:
    with stage(tmp_path, 2) as it:
        for number in range(2):
            if loss:
                it.made.lose(number + 1, loss)
            it.receive(number)
        running = it.start(it.order())
        for number in range(2):
            running.admit(number)
        gathered = until(running, lambda news: heard(news) == 2)
        time.sleep(1.5)
        waited = running.news()
        running.begin()
        settled = until(running, lambda news: news.phase is SenderPhase.SETTLED)
        told = it.ended(2)
        running.stop()
        assert running.join(5)
        over = running.news()
    assert gathered.phase is waited.phase is SenderPhase.GATHERING
    assert (waited.sent.blocks, waited.begun, heard(waited)) == (0, 0, 2)
    assert waited.sent.syncs > gathered.sent.syncs
    assert told == [(number, it.everything, None) for number in range(2)]
    assert settled.begun == len(it.everything)
    assert (settled.sent.combinations > 0) == bool(loss)
    assert [(one.is_done, one.done, one.left) for one in settled.receivers] == [(True, len(it.everything), None)] * 2
    assert (over.phase, over.last_words) == (SenderPhase.OVER, "")
    assert not Path(f"/proc/{over.pid}").exists()


def test_a_version_is_sent_over_ipv6_and_nobody_is_asked_by_igmp(tmp_path: Path) -> None:
    with stage(tmp_path, 2, network="fe80::") as it:
        for number in range(2):
            it.made.lose(number + 1, 0.03)
            it.receive(number)
        running = it.start(it.order(query_every_s=60.0))
        for number in range(2):
            running.admit(number)
        until(running, lambda news: heard(news) == 2)
        running.begin()
        settled = until(running, lambda news: news.phase is SenderPhase.SETTLED)
        told = it.ended(2)
    assert told == [(number, it.everything, None) for number in range(2)]
    assert (settled.address, settled.sent.combinations > 0) == ("fe80::1", True)
    assert any("IGMP" in note for note in settled.notes)
    frames = settled.sent.datagrams * (1500 + 14)
    assert 0.9 * frames < settled.sent.wire_bytes <= frames, "headers of IPv6 are counted"


def test_who_comes_when_all_are_done_gets_everything_as_well(tmp_path: Path) -> None:
    with stage(tmp_path, 2) as it:
        it.receive(0)
        running = it.start(it.order())
        running.admit(0)
        running.begin()
        until(running, lambda news: news.phase is SenderPhase.SETTLED)
        time.sleep(1.0)
        it.receive(1)
        running.admit(1)
        until(running, lambda news: len(news.receivers) == 2 and news.phase is SenderPhase.SETTLED)
        assert it.ended(2) == [(number, it.everything, None) for number in range(2)]


@pytest.mark.parametrize("is_killed", [True, False], ids=["the sender dies", "the server restarts"])
def test_a_sender_that_ended_is_followed_by_another(tmp_path: Path, is_killed: bool) -> None:
    with stage(tmp_path, 2) as it:
        for number in range(2):
            it.receive(number)
        first = it.start(it.order(rate_bps=20e6))
        for number in range(2):
            first.admit(number)
        until(first, lambda news: heard(news) == 2)
        first.begin()
        half = len(it.everything) // 2
        pid = until(first, lambda news: news.begun >= half).pid
        if is_killed:
            os.kill(pid, signal.SIGKILL)
        else:
            it.supervisor.close()
            it.supervisor = Supervisor()
        assert first.join(5)
        dead = first.news()
        second = it.start(it.order(stream=2, first_parcel=dead.begun))
        for number in range(2):
            second.admit(number)
        second.begin()
        told = it.ended(2)
        last = until(second, lambda news: news.phase is SenderPhase.SETTLED)
    assert (dead.is_dead, dead.is_ended) == (is_killed, True)
    assert dead.last_words == ("it was ended by signal 9" if is_killed else "")
    assert half <= dead.begun < len(it.everything)
    assert told == [(number, it.everything, None) for number in range(2)]
    assert 0 < last.sent.blocks < sum(-(-len(content) // 1440) for content in it.show.contents)


def test_who_is_dismissed_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    with stage(tmp_path, 2) as it:
        for number in range(2):
            it.receive(number)
        running = it.start(it.order(rate_bps=20e6))
        for number in range(2):
            running.admit(number)
        until(running, lambda news: heard(news) == 2)
        running.begin()
        until(running, lambda news: news.begun > 1)
        running.dismiss(1, Leaving.SLOW)
        running.limit(200e6, 5e6)
        told = it.ended(2)
        news = until(running, lambda news: news.phase is SenderPhase.SETTLED)
    assert told[0] == (0, it.everything, None)
    assert told[1][2] is Leaving.SLOW
    assert [one.left for one in news.receivers] == [None, Leaving.SLOW]


def test_who_has_everything_by_the_servers_word_is_not_asked_any_more(tmp_path: Path) -> None:
    with stage(tmp_path, 1) as it:
        it.receive(0)
        running = it.start(it.order())
        running.admit(0)
        running.admit(1)  # which nobody hears
        until(running, lambda news: heard(news) == 1)
        running.begin()
        running.settle(1)
        news = until(running, lambda news: news.phase is SenderPhase.SETTLED, wait_s=4.0)  # sooner than it is silent
        assert it.ended(1) == [(0, it.everything, None)]
    assert [one.is_done for one in news.receivers] == [True, True]


def test_thousands_of_receivers_are_told_of(tmp_path: Path) -> None:
    with stage(tmp_path, 0) as it:
        running = it.start(it.order())
        for number in range(5000):
            running.admit(number)
        news = until(running, lambda news: len(news.receivers) == 5000, wait_s=20.0)
        after = until(running, lambda later: later.sent.syncs > news.sent.syncs + 10, wait_s=20.0)
    assert (heard(after), after.phase) == (0, SenderPhase.GATHERING)


def test_no_more_senders_run_than_may(tmp_path: Path) -> None:
    with stage(tmp_path, 0) as it:
        it.supervisor = Supervisor(most=1)
        first = it.start(it.order())
        with pytest.raises(ConflictError, match="1 senders run already"):
            it.supervisor.start(it.order(stream=2))
        first.stop()
        assert first.join(5)
        it.start(it.order(stream=2))


def test_a_pack_that_was_damaged_meanwhile_ends_the_sender_which_names_it(tmp_path: Path) -> None:
    with stage(tmp_path, 1) as it:
        order = it.order()
        pack = it.store.pack_path(decode_map(it.store.pack_map(it.pack_map)).packs[4].digest)
        pack.write_bytes(bytes(pack.stat().st_size))
        running = it.start(order)
        running.begin()
        assert running.join(20)
    assert running.news().is_dead
    assert f"(pack {pack.name}) is damaged" in running.news().last_words


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"source": "192.0.2.7"}, "nothing can be sent from 192.0.2.7 on eth0: Cannot assign requested address"),
        ({"interface": "nowhere0"}, "there is no network interface 'nowhere0'"),
        ({"group": "10.1.1.1"}, "10.1.1.1 is no multicast group"),
        ({"window_parcels": 1}, "a window of 1 parcels"),
    ],
)
def test_an_order_that_cannot_be_done_is_dead_and_says_why(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    with stage(tmp_path, 0) as it:
        running = it.supervisor.start(it.order(**other))
        assert running.join(20)
    assert running.news().is_dead
    assert words in running.news().last_words
    assert "Traceback" not in running.news().last_words


def test_a_sender_of_a_relay_sends_from_its_cache(tmp_path: Path) -> None:
    with stage(tmp_path, 1) as it, held(tmp_path / "cache"):
        cache = PackCache(tmp_path / "cache", 1 << 30)
        known = cache.keep_map(it.pack_map, it.store.pack_map(it.pack_map), parcel_list(it.store, it.pack_map))
        for ordinal, parcel in enumerate(it.show.contents):
            cache.keep_parcel(known, ordinal, parcel)
        it.receive(0)
        running = it.start(it.order(origin=InCache(str(tmp_path / "cache"))))
        running.admit(0)
        running.begin()
        until(running, lambda news: news.phase is SenderPhase.SETTLED)
        assert it.ended(1) == [(0, it.everything, None)]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with stage(tmp_path, 0) as it:
        running = it.supervisor.start(it.order(origin=InStore(str(tmp_path / "none"))))
        assert running.join(20)
    assert running.news().is_dead
    assert running.news().last_words == f"there is no store in {tmp_path / 'none'}"
    assert not (tmp_path / "none").exists()


def test_a_sender_changes_nothing_in_the_store(tmp_path: Path) -> None:
    with stage(tmp_path, 0) as it:
        order = it.order(rate_bps=1e9)
        before = {path: path.stat().st_mtime_ns for path in it.store.files_root.rglob("*")}
        running = it.start(order)
        running.begin()
        until(running, lambda news: news.begun == len(it.everything))
        assert {path: path.stat().st_mtime_ns for path in it.store.files_root.rglob("*")} == before


def test_nothing_is_left_of_senders_when_the_server_stops(tmp_path: Path) -> None:
    with stage(tmp_path, 0) as it:
        senders = [it.start(it.order(stream=stream)) for stream in range(1, 3)]
        stuck = senders[0].news().pid
        os.kill(stuck, signal.SIGSTOP)
        it.supervisor.close()
        with pytest.raises(ConflictError):
            it.supervisor.start(it.order(stream=3))
    assert [one.news().phase for one in senders] == [SenderPhase.OVER] * 2
    assert not any(Path(f"/proc/{one.news().pid}").exists() for one in senders)


def serve(it: Stage, told: Any) -> None:
    """Be a server that is killed."""
    running = Supervisor().start(it.order())
    told.put(until(running, lambda news: bool(news.address)).pid)
    time.sleep(_WAIT_S)


@pytest.mark.parametrize("is_stopped", [False, True], ids=["", "sender stopped"])
def test_a_sender_ends_with_a_server_that_is_killed(tmp_path: Path, is_stopped: bool) -> None:
    with stage(tmp_path, 0) as it:
        told = _CONTEXT.Queue()
        server = start(serve, it.made.of(0), it, told)
        it.processes.append(server)
        pid = told.get(timeout=_WAIT_S)
        if is_stopped:  # its pipe closes unseen: the kernel has to end it
            os.kill(pid, signal.SIGSTOP)
        server.kill()
        server.join()
        ends_s = time.monotonic() + 3
        while is_alive(pid) and time.monotonic() < ends_s:
            time.sleep(0.02)
        assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


SNOOPING = ("mcast_snooping", "1", "mcast_membership_interval", "200", "mcast_querier_interval", "300")
"""A switch that forgets within two seconds (hundredths) who wants what."""


@pytest.mark.parametrize("query_every_s", [0.0, 0.5], ids=["nobody asks", "the sender asks"])
def test_a_switch_that_snoops_knows_who_wants_a_session_as_long_as_somebody_asks(
    tmp_path: Path, query_every_s: float
) -> None:
    """Once it has forgotten, a bridge of Linux sends to all ports; many a switch sends to none."""
    with stage(tmp_path, 2, *SNOOPING) as it:
        it.receive(0)
        running = it.start(it.order(query_every_s=query_every_s))
        running.admit(0)
        time.sleep(6.0)  # three times as long as the switch remembers
        wanted_at = members(it.made.hub)
        running.begin()
        news = until(running, lambda news: news.phase is SenderPhase.SETTLED)
        others_bytes = passed_bytes(it.made.hub, "p2")
        assert it.ended(1) == [(0, it.everything, None)]
    assert news.notes == ()
    is_known = query_every_s > 0
    assert wanted_at == (["p1"] if is_known else [])
    assert (others_bytes < sum(map(len, it.show.contents)) / 10) == is_known


def members(hub: str) -> list[str]:
    """Return the ports that the bridge sends the group to."""
    told = subprocess.run(("bridge", "-json", "-n", hub, "mdb", "show"), check=True, capture_output=True).stdout
    entries = msgspec.json.decode(told)[0]["mdb"]
    return [entry["port"] for entry in entries if entry["grp"] == group().address]


def passed_bytes(hub: str, port: str) -> int:
    """Return what has gone out at a port of the bridge."""
    told = subprocess.run(("ip", "-json", "-s", "-n", hub, "link", "show", port), check=True, capture_output=True)
    count = msgspec.json.decode(told.stdout)[0]["stats64"]["tx"]["bytes"]
    assert isinstance(count, int)
    return count
