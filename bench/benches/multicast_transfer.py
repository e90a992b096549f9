"""One transfer of a file over multicast to many receivers: by us, by udpcast, by uftp, or by who only sends and counts.

A bridge and a network namespace for each host; every datagram crosses as a frame of its own. Everybody writes a file in
memory; each is compared at the end.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benches.memory import warm
from cloner_core.allocation import keep_freed_memory
from cloner_core.image.digest import digest
from cloner_core.multicast.content import SPARE_BYTES, Content
from cloner_core.multicast.sealing import ReportOpener, Sealer
from cloner_core.multicast.sender import Pace, Sender
from cloner_core.multicast.session import BLOCK_BYTES, Leaving, Parcel, Session, group_key, receiver_key
from cloner_core.multicast.wire import BURST_MOST, OVERHEAD_BYTES
from cloner_multicast.feed import Feed
from cloner_multicast.receiving import Seat
from cloner_multicast.sending import Sending
from cloner_multicast.sockets import Group, ReceiverSocket, SenderSocket
from cloner_server.multicast.parcels import ReadAhead
from netns.multicast_yard import FORGED_BYTES, LINK, PORT, Yard, forged
from netns.netboot_lab import inside

OURS, UDPCAST, UFTP, CEILING = "cloner", "udpcast", "uftp", "ceiling"
_MIB = 1 << 20
_PARCEL_BYTES = 1_400_000  # what a pack of 4 MiB comes to
PAYLOAD, FRAME = 1448, 1514
_SILENCE_S = 0.3  # after which nothing more is expected of who only sends
_TURN_S = 0.005  # between two looks whether the sender has finished
_FORGED_AT_ONCE, _FORGED_BURSTS = 16, 256
_MASTER = bytes(range(32))
_GROUP = "239.255.71.1"
_UFTP_PUBLIC = "239.255.71.3"
# Who takes this many times as long as the link would, and this much more, hangs.
_HUNG_TIMES, _HUNG_S = 4.0, 30.0
_HUNG_BPS = 200e6  # of a link without a cap
_UNCAPPED_BPS = 20e9


@dataclass(frozen=True, slots=True)
class Scene:
    """One way a wire can be."""

    receivers: int
    loss: float = 0.0
    cap_bps: float = 0.0  # 0: none
    mib: int = 256
    slow: float = 0.0  # of the cap's speed, at which the last receiver writes; 0: as fast as all
    late: float = 0.0  # part of the data that is sent before the last receiver comes
    forged: float = 0.0  # part of all datagrams on the wire that a stranger sends

    @property
    def name(self) -> str:
        cap = f"{self.cap_bps / 1e6:g} Mbit/s" if self.cap_bps else "no cap"
        slow = f", one at {self.slow:.0%}" if self.slow else ""
        late = f", one late by {self.late:.0%}" if self.late else ""
        forged = f", {self.forged:.0%} forged" if self.forged else ""
        return f"{self.receivers} × {self.loss:.0%}, {cap}{slow}{late}{forged}"

    @property
    def stranger(self) -> int:
        """The number of the host that is a stranger's; there is one when anything is forged."""
        return self.receivers + 1

    @property
    def served(self) -> int:
        """How many receivers multicast is to bring everything."""
        return self.receivers - bool(self.slow)


@dataclass(frozen=True, slots=True)
class Run:
    """One transfer. None: not to be measured here, or not to be had."""

    scene: str
    who: str
    is_hung: bool
    seconds: float  # of one that hung, after which it was killed
    goodput_mbps: float | None  # of each receiver
    wire_share: float  # bytes on the sender's link over the bytes of the file, less one
    cpu_s_per_gib: float  # sender and all receivers
    share_of_link: float | None  # of what a capped link carries in blocks
    whole: int  # receivers whose file is the same
    left_s: float | None = None  # when the slow one was sent away
    late_share: float | None = None  # datagrams of data beyond one transmission, over those before it could hear
    late_s: float | None = None  # from when the late one was let in until it could hear
    forged_share: float | None = None  # of the datagrams that the first receiver saw, those that it found forged


@dataclass(frozen=True, slots=True)
class Place:
    """Where one transfer happens."""

    made: Yard
    scene: Scene
    source: Path
    room: Path

    def target(self, number: int) -> Path:
        return self.room / f"got-{number}"

    @property
    def said(self) -> Path:
        """What a sender tells of itself, JSON."""
        return self.room / "said"

    @property
    def seated(self) -> Path:
        """When the late receiver began to hear, by the monotonic clock."""
        return self.room / "seated"

    @property
    def heard(self) -> Path:
        """What the first receiver tells of itself, JSON."""
        return self.room / "heard"


def _spawn(work: Callable[[], None], namespace: str) -> int:
    """Fork a process into a namespace; `work` may exec(2)."""
    pid = os.fork()
    if pid:
        return pid
    try:
        with inside(namespace):
            work()
        os._exit(0)
    except BaseException as fault:  # noqa: BLE001 - whatever it was, this process must not go on as the bench
        print(f"bench: {fault!r}", file=sys.stderr, flush=True)
        os._exit(1)


def _exec(*argv: str) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    os.execvp(argv[0], argv)


class _Ours:
    """Our sender and receivers, each a process; `pipes` tell receivers where the sender is."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._size = place.source.stat().st_size
        self._file = os.open(place.source, os.O_RDONLY)
        pieces = (self._read(parcel) for parcel in range(-(-self._size // _PARCEL_BYTES)))
        self._session = Session(1, [Parcel(digest(piece), len(piece)) for piece in pieces])
        self._count = place.scene.receivers
        self._pipes = [os.pipe() for _ in range(self._count)]  # what several read of one comes to them in pieces
        self._sitting = os.pipe()  # a byte of each receiver that can hear
        self._group = Group(_GROUP, PORT, LINK)

    def start(self) -> tuple[list[int], int]:
        made, count = self._place.made, self._count
        sender = _spawn(self._send, made.of(0))
        receivers = [_spawn(partial(self._receive, number), made.of(number + 1)) for number in range(count)]
        for fd in (self._file, *(fd for pipe in (*self._pipes, self._sitting) for fd in pipe)):
            os.close(fd)
        return receivers, sender

    def _read(self, parcel: int) -> bytes:
        return os.pread(self._file, _PARCEL_BYTES, parcel * _PARCEL_BYTES)

    def _read_encrypted(self, content: Content, parcel: int) -> memoryview:
        size = self._session.parcels[parcel].size
        room = bytearray(size + SPARE_BYTES)
        data = memoryview(room)[:size]
        os.preadv(self._file, [data], parcel * _PARCEL_BYTES)
        content.crypt(parcel, room, size)
        return data

    def _send(self) -> None:
        scene, place, session, count = self._place.scene, self._place, self._session, self._count
        cap_bps = scene.cap_bps or _UNCAPPED_BPS
        opened = SenderSocket(self._group, place.made.address(0))
        begun_s = time.monotonic()
        keep_freed_memory()  # as the process of a server does
        content = Content(group_key(_MASTER))
        source = ReadAhead(partial(self._read_encrypted, content), len(session.parcels))
        sender = Sender(session, source, Pace(cap_bps, cap_bps / 50), begun_s, is_gathering=True)
        keys = [receiver_key(_MASTER, number) for number in range(count)]
        opener = ReportOpener(lambda number: keys[number] if number < count else None, 1)
        sending = Sending(sender, Sealer(group_key(_MASTER), 1, session.block_bytes), opener, opened)

        def admit(number: int) -> None:
            sender.admit(number, time.monotonic())
            os.write(self._pipes[number][1], (json.dumps(opened.address) + "\n").encode())

        punctual = count - bool(scene.late)
        for number in range(punctual):
            admit(number)
        hearing = 0
        while hearing < punctual:  # as a server has its sessions begin
            if sending.run(time.monotonic() + 0.02, self._sitting[0]):
                hearing += len(os.read(self._sitting[0], punctual))
        begun_s = time.monotonic()
        sender.begin(begun_s)
        left_s: float | None = None
        admitted_s = 0.0  # of the late one
        sent = [(begun_s, 0)]  # datagrams with data in them by then
        while not sender.is_over:
            sending.run(time.monotonic() + _TURN_S)
            sent.append((time.monotonic(), sender.sent.datagrams - sender.sent.syncs))
            if scene.late and not admitted_s and sender.sent.blocks * BLOCK_BYTES >= scene.late * self._size:
                admitted_s = time.monotonic()
                admit(count - 1)
            if scene.slow and left_s is None and sender.members.members[count - 1].left is Leaving.SLOW:
                left_s = time.monotonic() - begun_s
            if sender.is_finished:
                sender.close()
        source.close()
        once = sum(session.blocks(parcel) for parcel in range(len(session.parcels)))
        told: dict[str, float] = {}
        if left_s is not None:
            told["left_s"] = round(left_s, 2)
        if scene.late:
            seated_s = float(place.seated.read_text())
            told["late_s"] = round(seated_s - admitted_s, 4)
            told["late_share"] = round((sent[-1][1] - once) / _sent_by(sent, seated_s), 4)
        place.said.write_text(json.dumps(told))

    def _receive(self, number: int) -> None:
        for _, tell in self._pipes:
            os.close(tell)
        address = json.loads(_read_line(self._pipes[number][0]))
        seat = Seat(1, number, group_key(_MASTER), receiver_key(_MASTER, number), (address[0], address[1]))
        feed = Feed(self._session, self._group, lambda _stream, _is_heard: seat)
        feed.start()
        while not feed.state().seated_s:
            time.sleep(0.001)
        os.write(self._sitting[1], b".")
        if self._place.scene.late and number == self._count - 1:
            self._place.seated.write_text(str(feed.state().seated_s))
        self._write(number, feed)
        while feed.left is None and feed.state().done < len(self._session.parcels):
            time.sleep(0.005)
        while os.read(self._pipes[number][0], 1):
            pass  # until the sender ends: a receiver that went without answering its last poll is waited for
        if self._place.scene.forged and not number:
            state = feed.state()
            forged_share = state.forged / (state.forged + state.datagrams)
            self._place.heard.write_text(json.dumps({"forged_share": round(forged_share, 4)}))
        feed.stop()

    def _write(self, number: int, feed: Feed) -> None:
        scene = self._place.scene
        slow_bps = scene.slow * scene.cap_bps if number == self._count - 1 else 0.0
        due_s = time.monotonic()
        fd = os.open(self._place.target(number), os.O_WRONLY | os.O_CREAT, 0o600)
        for parcel in feed.parcels():
            view = feed.find(parcel)
            assert view is not None
            os.pwrite(fd, view, parcel * _PARCEL_BYTES)
            if slow_bps:
                due_s = max(due_s, time.monotonic()) + len(view) * 8 / slow_bps
                time.sleep(max(0.0, due_s - time.monotonic()))
            view.release()
            feed.release(parcel)
        os.close(fd)


def _sent_by(sent: Sequence[tuple[float, int]], when_s: float) -> float:
    """Return how many datagrams were sent by a time, from (time, datagrams) in order."""
    after = min(bisect(sent, (when_s, 0)), len(sent) - 1)
    (begun_s, first), (ended_s, last) = sent[after - 1], sent[after]
    return first + (last - first) * (when_s - begun_s) / (ended_s - begun_s)


def _read_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(fd, 1)
    return line


def _udpcast(place: Place) -> tuple[list[int], int]:
    common = ("--nokbd", "--interface", LINK, "--mcast-rdv-address", "239.255.71.2", "--no-progress")
    receivers = [
        _spawn(partial(_exec, "udp-receiver", "--file", str(place.target(number)), *common), place.made.of(number + 1))
        for number in range(place.scene.receivers)
    ]
    cap = ("--max-bitrate", f"{int(place.scene.cap_bps * 0.98)}") if place.scene.cap_bps else ()
    wait = ("--min-receivers", str(place.scene.receivers), "--max-wait", "20")
    sender = ("udp-sender", "--file", str(place.source), *common, *wait, *cap, "--full-duplex")
    return receivers, _spawn(partial(_exec, *sender), place.made.of(0))


def _uftp(place: Place) -> tuple[list[int], int]:
    receivers = []
    for number in range(place.scene.receivers):
        folder = place.room / f"uftp-{number}"
        folder.mkdir()
        where = ("-I", LINK, "-M", _UFTP_PUBLIC, "-D", str(folder))
        argv = ("uftpd", "-d", *where, "-U", f"0x{number + 1:08X}", "-B", str(8 * _MIB))
        receivers.append(_spawn(partial(_exec, *argv), place.made.of(number + 1)))
    time.sleep(0.5)
    hosts = ",".join(f"0x{number + 1:08X}" for number in range(place.scene.receivers))
    rate = str(int(place.scene.cap_bps / 1000 * 0.97)) if place.scene.cap_bps else "-1"
    buffer = ("-B", str(8 * _MIB), "-b", "1440", "-Y", "none")
    sender = ("uftp", "-I", LINK, "-R", rate, "-H", hosts, *buffer, "-M", _UFTP_PUBLIC, "-P", "239.255.71.4")
    return receivers, _spawn(partial(_exec, *sender, str(place.source)), place.made.of(0))


def _ceiling(place: Place) -> tuple[list[int], int]:
    """Send bursts and count what arrives, with the same system calls and nothing else: no file, no word back."""
    group = Group(_GROUP, PORT, LINK)
    segment = BLOCK_BYTES + OVERHEAD_BYTES
    burst = bytes(BURST_MOST * segment)
    bursts = -(-place.source.stat().st_size // (BURST_MOST * BLOCK_BYTES))

    def send() -> None:
        time.sleep(_SILENCE_S)
        opened = SenderSocket(group, place.made.address(0))
        for _ in range(bursts):
            opened.send(burst, segment)

    def receive(number: int) -> None:
        opened = ReceiverSocket(group)
        poller = select.poll()
        poller.register(opened.fileno(), select.POLLIN)
        poller.poll()
        begun_s = ended_s = time.monotonic()
        came = 0
        while poller.poll(_SILENCE_S * 1000):
            while (read := opened.receive()) is not None:
                came += len(read[0])
            ended_s = time.monotonic()
        place.target(number).write_text(json.dumps(came / segment * BLOCK_BYTES * 8 / (ended_s - begun_s)))

    receivers = [_spawn(partial(receive, number), place.made.of(number + 1)) for number in range(place.scene.receivers)]
    return receivers, _spawn(send, place.made.of(0))


def _forge(place: Place, parent: int) -> None:
    """Be a stranger while `parent` lives: at the rate of the cap, send what looks like datagrams of the session."""
    scene = place.scene
    opened = SenderSocket(Group(_GROUP, PORT, LINK), place.made.address(scene.stranger))
    chance = random.Random(5)
    # Made once: what it takes to forge is not what forgeries cost.
    bursts = [b"".join(forged(chance, 1) for _ in range(_FORGED_AT_ONCE)) for _ in range(_FORGED_BURSTS)]
    rate_bps = (scene.cap_bps or _UNCAPPED_BPS) * scene.forged / (1 - scene.forged)
    due_s = time.monotonic()
    while os.getppid() == parent:
        for burst in bursts:
            opened.send(burst, FORGED_BYTES)
            due_s = max(due_s + _FORGED_AT_ONCE * FRAME * 8 / rate_bps, time.monotonic() - 0.02)
            time.sleep(max(0.0, due_s - time.monotonic()))


@contextmanager
def _stranger(place: Place) -> Iterator[None]:
    """Have a stranger about, where the scene has one."""
    if not place.scene.forged:
        yield
        return
    pid = _spawn(partial(_forge, place, os.getpid()), place.made.of(place.scene.stranger))
    is_there = False
    try:
        yield
        is_there = not os.waitpid(pid, os.WNOHANG)[0]
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if not is_there:
        sys.exit("bench: the stranger who forges datagrams has died")


WHO = {OURS: lambda place: _Ours(place).start(), UDPCAST: _udpcast, UFTP: _uftp, CEILING: _ceiling}


def _sent_bytes(made: Yard) -> int:
    argv = ("ip", "-n", made.of(0), "-s", "-j", "link", "show", LINK)
    return int(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)[0]["stats64"]["tx"]["bytes"])


def _wait(receivers: list[int], sender: int, who: str, hung_s: float) -> tuple[float, float]:
    """Wait until all have ended; return the seconds, `hung_s` when some had to be killed, and their CPU seconds."""
    begun, used, took_s = time.monotonic(), 0.0, hung_s
    ends = {*receivers, sender}
    awaited = {sender} if who == UFTP else ends.copy()  # its receivers wait for the next file
    try:
        while ends and time.monotonic() - begun < hung_s:
            for pid in list(ends):
                ended, _, usage = os.wait4(pid, os.WNOHANG)
                if ended:
                    used += usage.ru_utime + usage.ru_stime
                    ends.discard(pid)
            if took_s == hung_s and not awaited & ends:
                took_s = time.monotonic() - begun
                for left in ends:
                    os.kill(left, signal.SIGTERM)
            time.sleep(0.002)
    finally:
        for pid in ends:
            os.kill(pid, signal.SIGKILL)
            usage = os.wait4(pid, 0)[2]
            used += usage.ru_utime + usage.ru_stime
    return took_s, used


def transfer(place: Place, who: str) -> Run:
    """Run one; a receiver of `CEILING` counts and keeps nothing."""
    warm()
    before, scene, size = _sent_bytes(place.made), place.scene, place.source.stat().st_size
    hung_s = _HUNG_S + _HUNG_TIMES * size * 8 / (scene.cap_bps or _HUNG_BPS)
    with _stranger(place):
        took_s, used = _wait(*WHO[who](place), who, hung_s)
    is_hung = took_s >= hung_s
    goodput = size * 8 / took_s
    if who == CEILING:
        goodput = min(json.loads(place.target(number).read_text()) for number in range(scene.receivers))
    told = (path for path in (place.said, place.heard) if path.exists())
    said = {name: value for path in told for name, value in json.loads(path.read_text()).items()}
    return Run(
        scene.name,
        who,
        is_hung,
        round(took_s, 3),
        None if is_hung else round(goodput / 1e6, 1),
        round((_sent_bytes(place.made) - before) / size - 1, 4),
        round(used / (size / (1 << 30)), 2),
        round(goodput / (scene.cap_bps * PAYLOAD / FRAME), 4) if scene.cap_bps and not is_hung else None,
        _count_whole(place, who) if who != CEILING else scene.served,
        **said,
    )


def _count_whole(place: Place, who: str) -> int:
    wanted = digest(place.source.read_bytes())
    targets = [
        place.room / f"uftp-{number}" / place.source.name if who == UFTP else place.target(number)
        for number in range(place.scene.receivers)
    ]
    return sum(path.exists() and digest(path.read_bytes()) == wanted for path in targets)
