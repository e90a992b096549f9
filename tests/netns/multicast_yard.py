"""A bridge with a sender's namespace and some of receivers, each datagram a frame of its own, and loss at will."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from cloner_core.image.digest import digest
from cloner_core.multicast.sealing import ReportOpener, Sealer
from cloner_core.multicast.sender import Pace, Sender
from cloner_core.multicast.session import MASTER_BYTES, Parcel, Session, group_key, receiver_key
from cloner_multicast.feed import Feed
from cloner_multicast.receiving import Seat
from cloner_multicast.sending import Sending
from cloner_multicast.sockets import Group, SenderSocket
from netns.netboot_lab import inside

LINK = "eth0"
PORT = 47000
_GROUP = "239.255.71.1"
_CONTEXT = multiprocessing.get_context("fork")
_ENDS_S = 120.0
_SEATED_S = 20.0


def _ip(*argv: str) -> None:
    subprocess.run(("ip", *argv), check=True, stdout=subprocess.DEVNULL)


@dataclass
class Yard:
    """The namespaces: number 0 is the sender's, the others have receivers."""

    name: str
    count: int

    @property
    def hub(self) -> str:
        """The namespace of the bridge, br0; its port of namespace N is pN."""
        return f"{self.name}-hub"

    def of(self, number: int) -> str:
        return f"{self.name}-{number}"

    def address(self, number: int) -> str:
        return f"10.79.0.{number + 1}"

    def lose(self, number: int, part: float) -> None:
        """Have a receiver lose this part of what is sent to any group, by chance; 0 ends it."""
        chance = "" if part >= 1 else f"numgen random mod 10000 < {round(part * 10000)}"
        table = f"""
        table netdev loss {{}}
        delete table netdev loss
        table netdev loss {{
            chain arriving {{
                type filter hook ingress device {LINK} priority 0;
                ip daddr 224.0.0.0/4 {chance} drop
            }}
        }}
        """
        subprocess.run(("ip", "netns", "exec", self.of(number), "nft", "-f", "-"), input=table, text=True, check=True)


@contextmanager
def yard(receivers: int, *bridge: str) -> Iterator[Yard]:
    """Give a bridge and namespaces, gone afterwards; `bridge` are its options, it does not snoop unless they say so."""
    made = Yard(f"mc-{os.getpid()}-{random.randrange(1 << 16):x}", receivers + 1)
    hub = made.hub
    with ExitStack() as stack:
        for name in (hub, *(made.of(number) for number in range(made.count))):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
        _ip("-n", hub, "link", "add", "br0", "type", "bridge", *(bridge or ("mcast_snooping", "0")))
        _ip("-n", hub, "link", "set", "br0", "up")
        for number in range(made.count):
            name = made.of(number)
            _ip("-n", hub, "link", "add", f"p{number}", "type", "veth", "peer", "name", LINK, "netns", name)
            _ip("-n", hub, "link", "set", f"p{number}", "master", "br0", "up")
            _ip("-n", name, "address", "add", f"{made.address(number)}/24", "dev", LINK)
            for link in (LINK, "lo"):
                _ip("-n", name, "link", "set", link, "up")
            off = ("ethtool", "-K", LINK, "tx-udp-segmentation", "off", "tso", "off", "gro", "on")
            subprocess.run(("ip", "netns", "exec", name, *off), check=True, capture_output=True)
        yield made


@dataclass(frozen=True)
class Show:
    """One session: what is sent, and the board on which the server tells nodes which epoch it is."""

    contents: list[bytes]
    board: Path

    def session(self, stream: int = 0) -> Session:
        return Session(stream, [Parcel(digest(content), len(content)) for content in self.contents])

    def pin(self, epoch: dict[str, Any]) -> None:
        beside = self.board.with_suffix(".new")
        beside.write_text(json.dumps(epoch))
        beside.rename(self.board)

    def wait_seated(self, stream: int, count: int) -> None:
        """Wait until so many nodes, the first ones, know the epoch."""
        ends_s = time.monotonic() + _SEATED_S
        while not all(self._place(stream, number).exists() for number in range(count)):
            assert time.monotonic() < ends_s, "nodes do not take their seats"
            time.sleep(0.02)

    def _place(self, stream: int, number: int) -> Path:
        return self.board.with_suffix(f".{stream}-{number}")

    def join(self, number: int) -> Seat | str:
        """Return the seat of a node in the epoch there is; waits for the first one."""
        while not self.board.exists():
            time.sleep(0.02)
        epoch = json.loads(self.board.read_text())
        if epoch.get("over"):
            return "over"
        self._place(epoch["stream"], number).touch()  # its socket is open: nothing that is sent now is lost to it
        master = bytes.fromhex(epoch["master"])
        host, port = epoch["address"]
        return Seat(epoch["stream"], number, group_key(master), receiver_key(master, number), (host, port))


def group() -> Group:
    return Group(_GROUP, PORT, LINK)


def start(target: Callable[..., None], namespace: str, *arguments: Any) -> BaseProcess:
    """Have a process in a namespace."""

    def run() -> None:
        with inside(namespace):
            target(*arguments)

    process = _CONTEXT.Process(target=run)
    process.start()
    return process


def send(
    show: Show, address: str, receivers: int, pace: Pace, told: Queue[Any], stream: int = 1, seated: int = 0
) -> None:
    """Be the sender of an epoch until everybody has everything; it begins once the first `seated` know of it."""
    master = os.urandom(MASTER_BYTES)
    session = show.session(stream)
    opened = SenderSocket(group(), address)
    sender = Sender(session, show.contents.__getitem__, pace, time.monotonic(), first_combination=stream * 4099)
    for number in range(receivers):
        sender.admit(number, time.monotonic())
    keys = [receiver_key(master, number) for number in range(receivers)]
    opener = ReportOpener(lambda number: keys[number] if number < receivers else None, stream)
    sending = Sending(sender, Sealer(group_key(master), stream, session.block_bytes), opener, opened)
    show.pin({"stream": stream, "master": master.hex(), "address": opened.address})
    show.wait_seated(stream, seated)
    ends_s = time.monotonic() + _ENDS_S
    while not sender.is_over and time.monotonic() < ends_s:
        sending.run(min(ends_s, time.monotonic() + 0.2))
        if sender.is_finished:
            show.pin({"over": True})
            sender.close()
    told.put((sender.sent, {number: one.left for number, one in sender.members.members.items()}))


def receive(show: Show, number: int, told: Queue[Any], wait_s: float = 0.0) -> None:
    """Be a node: take parcels, compare them, release them."""
    time.sleep(wait_s)
    feed = Feed(show.session(), group(), lambda _stream, _is_heard: show.join(number))
    feed.start()
    got: list[int] = []
    for parcel in feed.parcels():
        content = feed.find(parcel)
        assert content is not None
        if bytes(content) == show.contents[parcel]:
            got.append(parcel)
        content.release()
        feed.release(parcel)
    deadline_s = time.monotonic() + 30
    while feed.left is None and feed.state().done < len(got) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    state = feed.state()
    time.sleep(0.5)  # the last report is on its way
    feed.stop()
    told.put((number, sorted(got), feed.left, state))


def forge(address: str, for_s: float) -> None:
    """Be a stranger: send what looks like datagrams of the session, and what does not, to the group."""
    opened = SenderSocket(group(), address)
    ends_s = time.monotonic() + for_s
    chance = random.Random(5)
    while time.monotonic() < ends_s:
        head = bytes((1, chance.randrange(1, 4), 0, chance.randrange(20))) + (1).to_bytes(4, "big")
        one = head + chance.randbytes(1472 - len(head))
        opened.send(one * 20, 1472)
        time.sleep(0.002)
