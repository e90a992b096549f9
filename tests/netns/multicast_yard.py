"""A sender's namespace and some of receivers, on a bridge or an unruly wire; each datagram is a frame of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from cloner_core.image.digest import digest
from cloner_core.multicast.content import Content
from cloner_core.multicast.sealing import ReportOpener, Sealer
from cloner_core.multicast.sender import Pace, Sender, Sent
from cloner_core.multicast.session import (
    MASTER_BYTES,
    Leaving,
    Parcel,
    Session,
    fitting_block_bytes,
    group_key,
    receiver_key,
)
from cloner_core.multicast.wire import OVERHEAD_BYTES, PROOF_BYTES, VERSION
from cloner_multicast.feed import Feed, FeedState
from cloner_multicast.receiving import Seat
from cloner_multicast.sending import Sending
from cloner_multicast.sockets import Group, ReceiverSocket, SenderSocket
from netns.netboot_lab import inside

LINK = "eth0"
PORT = 47000
_GROUP, _GROUP6 = "239.255.71.1", "ff15::4711"
_CONTEXT = multiprocessing.get_context("fork")
_ENDS_S = 120.0
FORGED_BYTES = 1472
_FORGED_AT_ONCE = 20
_REPLAYED_MOST = 1000
_STREAM = slice(PROOF_BYTES + 4, PROOF_BYTES + 8)  # in a datagram
_SILENCE_S = 0.3  # by which an epoch is known to have ended
_SEATED_S = 20.0
LINGERS_S = 0.5
"""That a receiver stays after it has everything."""

Ended = tuple[int, list[int], Leaving | None, FeedState]
"""A receiver's number, the parcels it got as they should be, why it left, how far it was."""


def _ip(*argv: str) -> None:
    subprocess.run(("ip", *argv), check=True, stdout=subprocess.DEVNULL)


def _ip_exec(namespace: str, *argv: str) -> None:
    subprocess.run(("ip", "netns", "exec", namespace, *argv), check=True, capture_output=True)


@dataclass
class Yard:
    """The namespaces: number 0 is the sender's, the others have receivers."""

    name: str
    count: int
    network: str = "10.79.0."  # what an address begins with; "fe80::" has those of the link alone

    @property
    def hub(self) -> str:
        """The namespace that all links lead to, with the bridge, br0, where there is one."""
        return f"{self.name}-hub"

    @property
    def ports(self) -> list[str]:
        """The other ends of all links, in the hub."""
        return [f"p{number}" for number in range(self.count)]

    def of(self, number: int) -> str:
        return f"{self.name}-{number}"

    def address(self, number: int) -> str:
        return f"{self.network}{number + 1}"

    @property
    def is_v6(self) -> bool:
        return ":" in self.network

    def lose(self, number: int, part: float) -> None:
        """Have a receiver lose this part of what is sent to any group, by chance; 0 ends it."""
        chance = "" if part >= 1 else f"numgen random mod 10000 < {round(part * 10000)}"
        # As it leaves the hub: what arrives is joined before anybody could lose one datagram of it.
        table = f"""
        table netdev loss{number} {{}}
        delete table netdev loss{number}
        table netdev loss{number} {{
            chain leaving {{
                type filter hook egress device {self.ports[number]} priority 0;
                ip daddr 224.0.0.0/4 {chance} drop
                ip6 daddr ff10::/12 {chance} drop
            }}
        }}
        """
        subprocess.run(("ip", "netns", "exec", self.hub, "nft", "-f", "-"), input=table, text=True, check=True)

    def pids(self) -> list[int]:
        """Return the processes that are in any of the namespaces."""
        names = (self.hub, *(self.of(number) for number in range(self.count)))
        listed = [subprocess.run(("ip", "netns", "pids", name), check=True, capture_output=True) for name in names]
        return sorted(int(pid) for one in listed for pid in one.stdout.split())


@contextmanager
def yard(receivers: int, *bridge: str, is_bridged: bool = True, network: str = Yard.network) -> Iterator[Yard]:
    """Give namespaces, gone afterwards; their links lead to a bridge, or to whoever carries frames between ports.

    `bridge` are options of the bridge; it does not snoop unless they say so.
    """
    made = Yard(f"mc-{os.getpid()}-{random.randrange(1 << 16):x}", receivers + 1, network)
    hub = made.hub
    with ExitStack() as stack:
        for name in (hub, *(made.of(number) for number in range(made.count))):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
        if is_bridged:
            _ip("-n", hub, "link", "add", "br0", "type", "bridge", *(bridge or ("mcast_snooping", "0")))
            _ip("-n", hub, "link", "set", "br0", "up")
        for number, port in enumerate(made.ports):
            name = made.of(number)
            _ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", LINK, "netns", name)
            _ip("-n", hub, "link", "set", port, *(("master", "br0") if is_bridged else ()), "up")
            length = ("/64", "nodad") if made.is_v6 else ("/24",)
            _ip("-n", name, "address", "add", made.address(number) + length[0], "dev", LINK, *length[1:])
            for link in (LINK, "lo"):
                _ip("-n", name, "link", "set", link, "up")
            # veth joins nothing that arrives unless what its peer sends could not have been joined before (veth.c).
            _ip_exec(hub, "ethtool", "-K", port, "tx-udp-segmentation", "off", "tso", "off")
            off: tuple[str, ...] = ("ethtool", "-K", LINK, "tx-udp-segmentation", "off", "tso", "off", "gro", "on")
            if not is_bridged:
                off += ("tx", "off")  # who carries frames in user space sees no checksum that is still to be made
            subprocess.run(("ip", "netns", "exec", name, *off), check=True, capture_output=True)
        yield made


@dataclass(frozen=True)
class Show:
    """One session: what is sent, and the board on which the server tells nodes which epoch it is."""

    contents: list[bytes]
    board: Path
    is_v6: bool = False

    @property
    def group(self) -> Group:
        return group(is_v6=self.is_v6)

    @property
    def block_bytes(self) -> int:
        return fitting_block_bytes(self.group.address)

    def session(self, stream: int = 0) -> Session:
        parcels = [Parcel(digest(content), len(content)) for content in self.contents]
        return Session(stream, parcels, self.block_bytes)

    def pin(self, epoch: dict[str, Any]) -> None:
        beside = self.board.with_suffix(".new")
        beside.write_text(json.dumps(epoch))
        beside.rename(self.board)

    def wait_seated(self, stream: int, numbers: Sequence[int]) -> None:
        """Wait until these nodes know the epoch."""
        ends_s = time.monotonic() + _SEATED_S
        while not set(numbers) <= self.seated(stream):
            assert time.monotonic() < ends_s, "nodes do not take their seats"
            time.sleep(0.02)

    def seated(self, stream: int) -> set[int]:
        """Return the nodes that know the epoch."""
        return self._noted(f"{stream}-seat")

    def leave(self, number: int) -> None:
        """Have the server know that a node needs nothing more under this number."""
        self._note("gone", number)

    def gone(self) -> set[int]:
        """Return the numbers that need nothing more."""
        return self._noted("gone")

    def hold(self) -> None:
        """Have the session go on though all have everything: somebody is to come."""
        self.board.with_suffix(".hold").touch()

    def let_go(self) -> None:
        """Take `hold` back."""
        self.board.with_suffix(".hold").unlink()

    @property
    def is_held(self) -> bool:
        return self.board.with_suffix(".hold").exists()

    def _note(self, what: str, number: int) -> None:
        self.board.with_suffix(f".{what}-{number}").touch()

    def _noted(self, what: str) -> set[int]:
        return {int(path.name.rpartition("-")[2]) for path in self.board.parent.glob(f"{self.board.stem}.{what}-*")}

    def join(self, number: int) -> Seat | str:
        """Return the seat of a node in the epoch there is; waits for the first one."""
        while not self.board.exists():
            time.sleep(0.02)
        epoch = json.loads(self.board.read_text())
        if epoch.get("over"):
            return "over"
        self._note(f"{epoch['stream']}-seat", number)  # its socket is open: nothing that is sent now is lost to it
        master = bytes.fromhex(epoch["master"])
        host, port = epoch["address"]
        return Seat(epoch["stream"], number, group_key(master), receiver_key(master, number), (host, port))


def group(*, is_v6: bool = False) -> Group:
    return Group(_GROUP6 if is_v6 else _GROUP, PORT, LINK)


def start(target: Callable[..., None], namespace: str, *arguments: Any) -> BaseProcess:
    """Have a process in a namespace."""

    def run() -> None:
        with inside(namespace):
            target(*arguments)

    process = _CONTEXT.Process(target=run)
    process.start()
    return process


def send(
    show: Show,
    address: str,
    numbers: Sequence[int],
    pace: Pace,
    told: Queue[Any],
    stream: int = 1,
    seated: int = 0,
) -> None:
    """Be the sender of an epoch until everybody has everything; it begins once the first `seated` know of it.

    Who takes a seat later and is none of `numbers` is admitted then.
    """
    master = os.urandom(MASTER_BYTES)
    session = show.session(stream)
    opened = SenderSocket(show.group, address)
    content = Content(group_key(master))
    sent = [content.encrypted(number, data) for number, data in enumerate(show.contents)]
    sender = Sender(session, sent.__getitem__, pace, time.monotonic(), first_combination=stream * 4099)
    known = sender.members.members
    for number in numbers:
        sender.admit(number, time.monotonic())
    opener = ReportOpener(lambda number: receiver_key(master, number) if number in known else None, stream)
    sending = Sending(sender, Sealer(group_key(master), stream, session.block_bytes), opener, opened)
    show.pin({"stream": stream, "master": master.hex(), "address": opened.address})
    show.wait_seated(stream, numbers[:seated])
    ends_s = time.monotonic() + _ENDS_S
    while not sender.is_over and time.monotonic() < ends_s:
        sending.run(min(ends_s, time.monotonic() + 0.2))
        is_held = show.is_held  # looked at first: who came before it was let go is admitted
        for number in show.seated(stream) - set(known):
            sender.admit(number, time.monotonic())
        for number in show.gone():
            sender.settle(number)
        if sender.is_finished and not is_held:
            show.pin({"over": True})
            sender.close()
    told.put((sender.sent, {number: one.left for number, one in known.items()}))


def receive(show: Show, number: int, told: Queue[Any], wait_s: float = 0.0, parcel_s: float = 0.0) -> None:
    """Be a node: take parcels, compare them, release them, each after `parcel_s`."""
    time.sleep(wait_s)
    feed = Feed(show.session(), show.group, lambda _stream, _is_heard: show.join(number))
    feed.start()
    got: list[int] = []
    for parcel in feed.parcels():
        content = feed.find(parcel)
        assert content is not None
        if bytes(content) == show.contents[parcel]:
            got.append(parcel)
        content.release()
        time.sleep(parcel_s)
        feed.release(parcel)
    deadline_s = time.monotonic() + 30
    while feed.left is None and feed.state().done < len(got) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    state = feed.state()
    time.sleep(LINGERS_S)  # the last report is on its way
    feed.stop()
    show.leave(number)
    told.put((number, sorted(got), feed.left, state))


def forge(address: str, for_s: float, stream: int = 1) -> None:
    """Be a stranger: send what looks like datagrams of the session, and what does not, to the group."""
    opened = SenderSocket(group(), address)
    ends_s = time.monotonic() + for_s
    chance = random.Random(5)
    while time.monotonic() < ends_s:
        opened.send(forged(chance, stream) * _FORGED_AT_ONCE, FORGED_BYTES)
        time.sleep(0.002)


def forged(chance: random.Random, stream: int) -> bytes:
    """Return what looks like a datagram of a sender, and is none."""
    header = bytes((VERSION, chance.randrange(1, 4), 0, chance.randrange(20))) + stream.to_bytes(4, "big")
    head = chance.randbytes(PROOF_BYTES) + header
    return head + chance.randbytes(FORGED_BYTES - len(head))


def replay(address: str, for_s: float, stream: int) -> None:
    """Be a stranger: keep what an epoch sends, and when it ends say it again and again.

    As it was, and as if it were of the next epoch, `stream`.
    """
    opened, sent = ReceiverSocket(group()), list[bytes]()
    ends_s, heard_s = time.monotonic() + for_s, time.monotonic()
    while not sent or time.monotonic() - heard_s < _SILENCE_S:
        assert time.monotonic() < ends_s, "there was no epoch, or it did not end"
        while (read := opened.receive()) is not None:
            data, size = read
            heard_s = time.monotonic()
            if data[_STREAM] != stream.to_bytes(4, "big"):
                sent = [*sent, *(data[at : at + size] for at in range(0, len(data), size))][-_REPLAYED_MOST:]
    again = SenderSocket(group(), address)
    while time.monotonic() < ends_s:
        for datagram in sent:
            again.send(datagram, len(datagram))
            again.send(datagram[: _STREAM.start] + stream.to_bytes(4, "big") + datagram[_STREAM.stop :], len(datagram))
            time.sleep(0.0005)


def alter(address: str, for_s: float, listens: Event) -> None:
    """Be a stranger: say again what the sender says, with other bytes below the same heads; `listens` is set before.

    Who has heard the sender takes no block twice; who has not takes this one.
    """
    opened, again, chance = ReceiverSocket(group()), SenderSocket(group(), address), random.Random(7)
    listens.set()
    ends_s = time.monotonic() + for_s
    while time.monotonic() < ends_s:
        while (read := opened.receive()) is not None:
            data, size = read
            for at in range(0, len(data), size):
                head, body = data[at : at + OVERHEAD_BYTES], data[at + OVERHEAD_BYTES : at + size]
                again.send(head + chance.randbytes(len(body)), size)
        time.sleep(0.001)


@dataclass
class Stage:
    """A yard, a session in it, and the processes that take part."""

    made: Yard
    show: Show
    pace: Pace = field(default_factory=lambda: Pace(200e6, 5e6))
    processes: list[BaseProcess] = field(default_factory=list)
    _sent: dict[int, Queue[Any]] = field(default_factory=dict)
    _got: dict[int, Queue[Any]] = field(default_factory=dict)

    @property
    def receivers(self) -> int:
        return self.made.count - 1

    def send(self, stream: int = 1, *, numbers: Sequence[int] | None = None, seated: int | None = None) -> BaseProcess:
        """Start the sender of an epoch, for these receivers, by default one in each namespace."""
        served = range(self.receivers) if numbers is None else numbers
        waited = len(served) if seated is None else seated
        told = self._sent[stream] = _CONTEXT.Queue()
        return self.start(send, 0, self.show, self.made.address(0), served, self.pace, told, stream, waited)

    def receive(
        self, number: int, wait_s: float = 0.0, *, place: int | None = None, parcel_s: float = 0.0
    ) -> BaseProcess:
        """Start a receiver, in a namespace of its own unless told; each parcel takes it so long."""
        # Each has a queue of its own: one that is killed while it writes keeps its lock for ever.
        told = self._got[number] = _CONTEXT.Queue()
        return self.start(receive, (number if place is None else place) + 1, self.show, number, told, wait_s, parcel_s)

    def start(self, what: Callable[..., None], where: int, *words: Any) -> BaseProcess:
        """Start a process in the namespace of this number."""
        return self.watch(start(what, self.made.of(where), *words))

    def watch(self, process: BaseProcess) -> BaseProcess:
        """Have a process ended with the stage."""
        self.processes.append(process)
        return process

    def ended(self, *numbers: int, within_s: float = 120.0) -> list[Ended]:
        """Return what became of these receivers; raises queue.Empty."""
        until_s = time.monotonic() + within_s
        return [self._got[number].get(timeout=max(0.1, until_s - time.monotonic())) for number in numbers]

    def total(self, stream: int = 1) -> Sent:
        """Return what an epoch sent in all."""
        sent, _ = self.fates(stream)
        return sent

    def fates(self, stream: int = 1) -> tuple[Sent, dict[int, Leaving | None]]:
        """Return what an epoch sent, and why each receiver it knew left it."""
        sent, left = self._sent[stream].get(timeout=60)
        assert isinstance(sent, Sent)
        return sent, left

    def end(self) -> None:
        """End every process."""
        for process in self.processes:
            process.kill()
            process.join()


@contextmanager
def stage(directory: Path, made: Yard, parcels: int, size: int = 1 << 20, seed: int = 0) -> Iterator[Stage]:
    """Give a session of parcels of half to whole `size` in a yard."""
    chance = random.Random(seed or parcels)
    contents = [chance.randbytes(chance.randrange(size // 2, size)) for _ in range(parcels)]
    opened = Stage(made, Show(contents, directory / "board", made.is_v6))
    try:
        yield opened
    finally:
        opened.end()
