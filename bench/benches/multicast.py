"""One file to many receivers on one wire: ours, udpcast and uftp, alternately (G1 to G7).

A bridge and a network namespace for each host; every datagram crosses as a frame of its own. Loss is drawn for each
receiver, the link is capped at the sender (tc tbf). Everybody writes a file in memory; each is compared at the end.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benches import disks, report
from benches.memory import warm
from cloner_core.image.digest import digest
from cloner_core.multicast.sealing import ReportOpener, Sealer
from cloner_core.multicast.sender import Pace, Sender
from cloner_core.multicast.session import Parcel, Session, group_key, receiver_key
from cloner_multicast.feed import Feed
from cloner_multicast.receiving import Seat
from cloner_multicast.sending import Sending
from cloner_multicast.sockets import Group, SenderSocket
from netns.multicast_yard import LINK, PORT, Yard, yard
from netns.netboot_lab import inside

OURS, UDPCAST, UFTP = "cloner", "udpcast", "uftp"
_MIB = 1 << 20
_PARCEL_BYTES = 1_400_000  # what a pack of 4 MiB comes to
_PAYLOAD, _FRAME = 1448, 1514
_MASTER = bytes(range(32))
_GROUP = "239.255.71.1"
_UFTP_PUBLIC = "239.255.71.3"
_ENDS_S = 240.0
_UNCAPPED_BPS = 20e9


@dataclass(frozen=True, slots=True)
class Scene:
    """One way a wire can be."""

    receivers: int
    loss: float = 0.0
    cap_bps: float = 0.0  # 0: none
    mib: int = 256

    @property
    def name(self) -> str:
        cap = f"{self.cap_bps / 1e6:g} Mbit/s" if self.cap_bps else "no cap"
        return f"{self.receivers} × {self.loss:.0%}, {cap}"


SCENES = (
    Scene(1, mib=512),
    Scene(4),
    Scene(8, mib=128),
    Scene(8, 0.05, mib=128),
    Scene(1, cap_bps=1e9, mib=512),
    Scene(2, cap_bps=1e9, mib=512),
    Scene(2, 0.01, 1e9, 512),
    Scene(8, cap_bps=200e6, mib=128),
    Scene(8, 0.01, 200e6, 128),
    Scene(8, 0.05, 200e6, 128),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One transfer."""

    scene: str
    who: str
    seconds: float
    goodput_mbps: float  # of each receiver
    wire_share: float  # bytes on the sender's link over the bytes of the file, less one
    cpu_s_per_gib: float  # sender and all receivers
    share_of_link: float  # of what a capped link carries in blocks; 0 without a cap
    whole: int  # receivers whose file is the same


@dataclass(frozen=True, slots=True)
class Place:
    """Where one transfer happens."""

    made: Yard
    scene: Scene
    source: Path
    room: Path

    def target(self, number: int) -> Path:
        return self.room / f"got-{number}"


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


def _ours(place: Place) -> tuple[list[int], int]:
    size = place.source.stat().st_size
    file = os.open(place.source, os.O_RDONLY)

    def read(parcel: int) -> bytes:
        return os.pread(file, _PARCEL_BYTES, parcel * _PARCEL_BYTES)

    pieces = (read(parcel) for parcel in range(-(-size // _PARCEL_BYTES)))
    session = Session(1, [Parcel(digest(piece), len(piece)) for piece in pieces])
    count = place.scene.receivers
    pipes = [os.pipe() for _ in range(count)]  # one for each: what several read of one comes to them in pieces
    group = Group(_GROUP, PORT, LINK)

    def send() -> None:
        cap_bps = place.scene.cap_bps or _UNCAPPED_BPS
        opened = SenderSocket(group, place.made.address(0))
        sender = Sender(session, read, Pace(cap_bps, cap_bps / 50), time.monotonic())
        keys = [receiver_key(_MASTER, number) for number in range(count)]
        for number in range(count):
            sender.admit(number, time.monotonic())
        opener = ReportOpener(lambda number: keys[number] if number < count else None, 1)
        sending = Sending(sender, Sealer(group_key(_MASTER), 1, session.block_bytes), opener, opened)
        for _, tell in pipes:
            os.write(tell, (json.dumps(opened.address) + "\n").encode())
        while not sender.is_over:
            sending.run(time.monotonic() + 0.02)
            if sender.is_finished:
                sender.close()

    def receive(number: int) -> None:
        for _, tell in pipes:
            os.close(tell)
        address = json.loads(_read_line(pipes[number][0]))
        seat = Seat(1, number, group_key(_MASTER), receiver_key(_MASTER, number), (address[0], address[1]))
        feed = Feed(session, group, lambda _stream, _is_heard: seat)
        feed.start()
        fd = os.open(place.target(number), os.O_WRONLY | os.O_CREAT, 0o600)
        for parcel in feed.parcels():
            view = feed.find(parcel)
            assert view is not None
            os.pwrite(fd, view, parcel * _PARCEL_BYTES)
            view.release()
            feed.release(parcel)
        while feed.left is None and feed.state().done < len(session.parcels):
            time.sleep(0.005)
        os.close(fd)
        while os.read(pipes[number][0], 1):
            pass  # until the sender ends: a receiver that went without answering its last poll is waited for
        feed.stop()

    sender = _spawn(send, place.made.of(0))
    receivers = [_spawn(partial(receive, number), place.made.of(number + 1)) for number in range(count)]
    for fd in (file, *(fd for pipe in pipes for fd in pipe)):
        os.close(fd)
    return receivers, sender


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


WHO = {OURS: _ours, UDPCAST: _udpcast, UFTP: _uftp}


def _sent_bytes(made: Yard) -> int:
    argv = ("ip", "-n", made.of(0), "-s", "-j", "link", "show", LINK)
    return int(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)[0]["stats64"]["tx"]["bytes"])


def _transfer(place: Place, who: str) -> Run:
    warm()
    before = _sent_bytes(place.made)
    begun = time.monotonic()
    receivers, sender = WHO[who](place)
    ends = dict.fromkeys((*receivers, sender), 0.0)
    used = 0.0
    awaited = {sender} if who == UFTP else set(ends)  # its receivers wait for the next file
    while ends and time.monotonic() - begun < _ENDS_S:
        pid, _, usage = os.wait4(-1, os.WNOHANG)
        if not pid:
            if not awaited & set(ends):
                for left in ends:
                    os.kill(left, signal.SIGTERM)
            time.sleep(0.002)
            continue
        ended_s = time.monotonic()
        used += usage.ru_utime + usage.ru_stime
        if ends.pop(pid, None) is not None and pid in awaited and not awaited & set(ends):
            took_s = ended_s - begun
    if awaited & set(ends):
        took_s = math.inf
    for pid in ends:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    size = place.source.stat().st_size
    goodput = size * 8 / took_s
    link = place.scene.cap_bps * _PAYLOAD / _FRAME
    return Run(
        place.scene.name,
        who,
        round(took_s, 3),
        round(goodput / 1e6, 1),
        round((_sent_bytes(place.made) - before) / size - 1, 4),
        round(used / (size / (1 << 30)), 2),
        round(goodput / link, 4) if link else 0.0,
        _count_whole(place, who),
    )


def _count_whole(place: Place, who: str) -> int:
    wanted = digest(place.source.read_bytes())
    targets = [
        place.room / f"uftp-{number}" / place.source.name if who == UFTP else place.target(number)
        for number in range(place.scene.receivers)
    ]
    return sum(path.exists() and digest(path.read_bytes()) == wanted for path in targets)


def _table(runs: Sequence[Run]) -> str:
    lines = [f"{'':24} {'':8} {'Mbit/s':>8} {'of link':>8} {'wire':>7} {'CPU s/GiB':>10} {'whole':>6}"]
    for scene, who in dict.fromkeys((run.scene, run.who) for run in runs):
        own = [run for run in runs if (run.scene, run.who) == (scene, who)]

        def median(field: str, own: list[Run] = own) -> float:
            return statistics.median(float(getattr(run, field)) for run in own)

        lines.append(
            f"{scene:24} {who:8} {median('goodput_mbps'):8.0f} {median('share_of_link'):8.3f}"
            f" {median('wire_share'):7.1%} {median('cpu_s_per_gib'):10.1f} {sum(run.whole for run in own):6}"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run the bench; returns 1 when a file of ours was not whole."""
    options = report.options("multicast", argv, peers=(OURS, UDPCAST, UFTP))
    runs: list[Run] = []
    chance = random.Random(1)
    with disks.workspace() as room:
        for scene in SCENES:
            size = (scene.mib // 8 if options.small else scene.mib) * _MIB
            source = room / "file"
            with source.open("wb") as file:
                for _ in range(size // _MIB):
                    file.write(chance.randbytes(_MIB))
            with yard(scene.receivers) as made:
                for number in range(1, made.count):
                    made.lose(number, scene.loss)
                if scene.cap_bps:
                    rate = ("rate", f"{int(scene.cap_bps)}bit", "burst", "256kb", "latency", "50ms")
                    disks.sh("tc", "-n", made.of(0), "qdisc", "add", "dev", LINK, "root", "tbf", *rate)
                for _ in range(options.runs):
                    for who in WHO:
                        if who not in options.peers and who != OURS:
                            continue
                        with disks.workspace() as own:
                            runs.append(_transfer(Place(made, scene, source, own), who))
            print(_table([run for run in runs if run.scene == scene.name]), flush=True)
    print(_table(runs))
    if options.evidence:
        method = (
            "a bridge and namespaces; each datagram a frame; loss by nftables at each receiver; tc tbf at the sender"
        )
        print(report.write_evidence("multicast", runs, method=method))
    return 0 if all(run.whole == int(run.scene.split()[0]) for run in runs if run.who == OURS) else 1
