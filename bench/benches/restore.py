"""The restore stage of a node: packs over HTTPS or multicast, a link of 1 Gbit/s, into ext4 in memory (G19).

Network namespaces and veth pairs; tc's token bucket caps the server's side. The agent's own HTTPS source asks a
small Starlette application that answers as the server does, without its tasks: the link and the node are measured. A
session is sent by the process that a server starts for it, and the node sits and receives as the agent does.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import msgspec

from agentbench.server import FakeServer
from benches import disks, report
from benches.golden import FULL, SMALL, make_golden
from benches.memory import Peak, peak_of
from benches.node import IMAGE, open_store, run_capture, run_restore
from benches.report import Run, measure
from cloner_agent.restore.arrivals import Arrivals
from cloner_agent.restore.source import DirectorySource
from cloner_agent.restore.table import spill_tree
from cloner_agent.seating import Multicast, leave, take_seat
from cloner_core.image.packmap import PackRef
from cloner_core.messages import Secret
from cloner_core.multicast.session import MASTER_BYTES, VERSIONS, group_key, receiver_key
from cloner_core.seats import ParcelList, Seat, SeatRequest
from cloner_server.multicast.orders import InStore, SenderNews, SenderOrder, SenderPhase
from cloner_server.multicast.parcels import parcel_list
from cloner_server.multicast.supervisor import Running
from netns.multicast_yard import LINK, Yard, group, yard
from netns.netboot_lab import inside

_LINK_BPS = 1_000_000_000
_HTTPS, _MULTICAST = "HTTPS", "multicast"
_STAGE = "stage"  # seconds of the last restore stage
_SERVER, _PORT = "10.88.77.1", 8443
# Ethernet, IP, TCP with timestamps: 1448 of 1538 bytes on the wire are payload.
_PAYLOAD_SHARE = 1448 / 1538
_SEATED_S = 20.0
_DESK = "desk"  # socket where the node asks for its seat

Offer = Callable[[], AbstractContextManager[Sequence[str]]]
"""Has the image offered to one node; what that node is to run."""


def _cap(namespace: str, link: str, latency: str) -> None:
    rate = ("rate", f"{_LINK_BPS}bit", "burst", "256kb", "latency", latency)
    disks.sh("tc", "-n", namespace, "qdisc", "add", "dev", link, "root", "tbf", *rate)


@contextmanager
def _link() -> Iterator[tuple[str, str]]:
    """Give the names of two namespaces, server's and node's, joined by a capped link."""
    server, node = f"bench-s-{os.getpid()}", f"bench-n-{os.getpid()}"
    try:
        for name in (server, node):
            disks.sh("ip", "netns", "add", name)
        veth = ("type", "veth", "peer", "name", "wire", "netns", node)
        disks.sh("ip", "link", "add", "name", "wire", "netns", server, *veth)
        for name, address in ((server, _SERVER), (node, "10.88.77.2")):
            disks.sh("ip", "-n", name, "address", "add", f"{address}/24", "dev", "wire")
            disks.sh("ip", "-n", name, "link", "set", "wire", "up")
            disks.sh("ip", "-n", name, "link", "set", "lo", "up")
        _cap(server, "wire", "20ms")
        yield server, node
    finally:
        for name in (server, node):
            subprocess.run(("ip", "netns", "delete", name), check=False, stderr=subprocess.DEVNULL)


def _make_certificate(place: Path) -> None:
    """Make a CA and a certificate for the fixed name, as the server does."""
    subject = ("-subj", "/CN=cloner-server", "-addext", "subjectAltName=DNS:cloner-server")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(place / "key.pem"))
    subprocess.run(
        ("openssl", "req", "-x509", "-days", "2", *key, *subject, "-out", str(place / "ca.pem")),
        check=True,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def _serving(place: Path, namespace: str) -> Iterator[None]:
    argv = ("ip", "netns", "exec", namespace, sys.executable, "-m", "benches.restore", "serve", str(place))
    process = subprocess.Popen(argv)
    try:
        time.sleep(3)  # a bench may wait
        if process.poll() is not None:
            sys.exit("bench: the server did not start")
        yield
    finally:
        process.terminate()
        process.wait()


def serve(place: Path) -> None:
    """Answer for packs and placements, as the server does."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import FileResponse, Response
    from starlette.routing import Route

    store = open_store(place / "store")
    version = bytes.fromhex(store.version("golden").version)
    name = bytes.fromhex(store.signed_map(version).map)
    ordinals = {pack.digest.hex(): number for number, pack in enumerate(store.current_map(version).packs)}

    class PackResponse(FileResponse):
        chunk_size = 1 << 20

    async def pack(request: Request) -> Response:
        return PackResponse(store.pack_path(bytes.fromhex(request.path_params["name"])))

    async def placement(request: Request) -> Response:
        return Response(store.placement(name, ordinals[request.path_params["name"]]))

    base = "/agent/v1/versions/{version}"
    routes = [Route(f"{base}/packs/{{name}}", pack), Route(f"{base}/placements/{{name}}", placement)]
    uvicorn.run(
        Starlette(routes=routes),
        host=_SERVER,
        port=_PORT,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        ssl_certfile=str(place / "ca.pem"),
        ssl_keyfile=str(place / "key.pem"),
    )


def _node(namespace: str, way: str, place: Path) -> tuple[str, ...]:
    return ("ip", "netns", "exec", namespace, sys.executable, "-m", "benches.restore", way, str(place))


@contextmanager
def _over_https(place: Path) -> Iterator[Offer]:
    _make_certificate(place)
    with _link() as (server, client), _serving(place, server):
        yield lambda: nullcontext(_node(client, _HTTPS, place))


@contextmanager
def _over_multicast(place: Path) -> Iterator[Offer]:
    with yard(1) as made:
        _cap(made.of(0), LINK, "50ms")
        streams = iter(range(1, 1 << 16))
        yield lambda: _session(place, made, next(streams))


@contextmanager
def _session(place: Path, made: Yard, stream: int) -> Iterator[Sequence[str]]:
    """Have a session gather; it begins when its one node hears, as a server has it begin."""
    master = os.urandom(MASTER_BYTES)
    order = _order(place, stream, master, made)

    def attend(running: Running) -> None:
        news = running.news()
        if news.phase is SenderPhase.GATHERING and any(one.heard_s is not None for one in news.receivers):
            running.begin()

    with inside(made.of(0)):  # so is the thread that starts the process
        running = Running(order, attend)
    try:
        host, port = _wait_address(running)
        seat = Seat(
            version=VERSIONS[0],
            stream=stream,
            number=0,
            group_key=Secret(group_key(master).hex()),
            own_key=Secret(receiver_key(master, 0).hex()),
            group=order.group,
            port=order.port,
            sender=host,
            sender_port=port,
            hops=order.hops,
            block_bytes=order.block_bytes,
            window_parcels=order.window_parcels,
        )
        with _desk(place / _DESK, running, seat):
            yield _node(made.of(1), _MULTICAST, place)
    finally:
        running.stop()
        running.join()


@contextmanager
def _desk(path: Path, running: Running, seat: Seat) -> Iterator[None]:
    """Admit the one node when it asks for its seat, as a server does."""

    class Desk(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            running.admit(seat.number)
            self.wfile.write(msgspec.json.encode(seat))

    with socketserver.ThreadingUnixStreamServer(str(path), Desk) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink()


def _order(place: Path, stream: int, master: bytes, made: Yard) -> SenderOrder:
    where, store = group(), open_store(place / "store")
    pack_map = bytes.fromhex(store.signed_map(bytes.fromhex(store.version(IMAGE).version)).map)
    return SenderOrder(
        session="bench",
        stream=stream,
        pack_map=pack_map.hex(),
        parcels=parcel_list(store, pack_map),
        origin=InStore(str(place / "store")),
        interface=where.interface,
        source=made.address(0),
        group=where.address,
        port=where.port,
        rate_bps=_LINK_BPS,
        floor_bps=_LINK_BPS / 40,
        master=Secret(master.hex()),
    )


def _wait_address(running: Running) -> tuple[str, int]:
    ends_s = time.monotonic() + _SEATED_S
    while (address := running.address) is None:
        news: SenderNews = running.news()
        if news.is_ended or time.monotonic() > ends_s:
            sys.exit(f"bench: the sender did not start: {news.last_words}")
        time.sleep(0.02)
    return address


_WAYS = {_HTTPS: _over_https, _MULTICAST: _over_multicast}


def node_https(place: Path, target: Path) -> None:
    """Restore as the agent does, from the server."""
    from cloner_agent.client import Endpoint
    from cloner_agent.packs import HttpsPackSource

    store = place / "store"
    version = open_store(store).version(IMAGE).version
    endpoint = Endpoint(_SERVER, _PORT, (place / "ca.pem").read_text())
    run_restore(store, target, HttpsPackSource(endpoint, Secret("none"), version))


class _SeatServer(FakeServer):
    """Gives the one seat there is."""

    def __init__(self, desk: Path, listed: ParcelList) -> None:
        super().__init__()
        self._desk = desk
        self.listed = listed

    def seat(self, request: SeatRequest, *, patience_s: float | None = None) -> Seat:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self._desk))
            return msgspec.json.decode(asking.makefile("rb").read(), type=Seat)


class _Nowhere:
    """The way over HTTPS, which is not to be gone."""

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        sys.exit(f"bench: pack {ordinal} did not come by multicast")


def node_multicast(place: Path, target: Path) -> None:
    """Restore as the agent does, from the session."""
    opened = open_store(place / "store")
    version = bytes.fromhex(opened.version(IMAGE).version)
    packs, name = opened.current_map(version), bytes.fromhex(opened.signed_map(version).map)
    server = _SeatServer(place / _DESK, parcel_list(opened, name))
    arrivals = Arrivals(
        lambda: take_seat(server, version.hex(), packs, Multicast(), lambda _: None),
        _Nowhere(),
        len(packs.packs),
        leave=lambda left: leave(server, left),
    )
    spilled = spill_tree(opened.tree_root(version), DirectorySource(place / "store", name), target)
    arrivals.restore(target, spilled, packs)
    spilled.table.close()


def main(argv: list[str]) -> int:
    """Run the bench; returns 1 when a restored tree was not the source."""
    options = report.options("restore", argv, peers=tuple(_WAYS))
    evidence = report.Evidence("restore")
    shape = SMALL if options.small else FULL
    size_bytes = 2 * shape.data_bytes + (512 << 20)
    runs: list[Run] = []
    goals: dict[str, float] = {}
    with disks.workspace() as place, disks.ext4(place, "source", size_bytes) as source:
        make_golden(source, shape)
        run_capture(source, place / "store")
        store = open_store(place / "store")
        packs = store.current_map(bytes.fromhex(store.version(IMAGE).version)).packs
        stored = sum(pack.stored_size for pack in packs)
        for way in options.peers:
            with _WAYS[way](place) as offer:
                for _ in range(options.runs):
                    with disks.ext4(place, "target", size_bytes) as target, offer() as argv_node:
                        run = measure("restore", way, (*argv_node, str(target)))
                        same = disks.is_identical(source, target)
                        wall_s = float((place / _STAGE).read_text())
                        runs.append(Run(run.what, run.who, wall_s, run.user_s, run.system_s, stored, same))
                print(report.table(runs), flush=True)
                with disks.ext4(place, "target", size_bytes) as target, offer() as argv_node:
                    peak = peak_of((*argv_node, str(target)))
            goals |= _judge(way, [run.wall_s for run in runs if run.who == way], stored, peak)
    print(json.dumps(goals, indent=1, ensure_ascii=False))
    if options.evidence:
        method = "tc tbf 1 Gbit/s between namespaces; server and node share the CPUs"
        print(evidence.write(runs, method=method, tls=ssl.OPENSSL_VERSION, goals=goals))
    return 0 if all(run.is_identical for run in runs) else 1


def _judge(way: str, walls_s: Sequence[float], stored_bytes: int, peak: Peak) -> dict[str, float]:
    wall_s, link_s = statistics.median(walls_s), stored_bytes * 8 / _LINK_BPS
    return {
        f"G19 {way}: restore ÷ (compressed bytes ÷ link)": round(wall_s / link_s, 3),
        f"{way}: the same with the headers of the link": round(wall_s * _PAYLOAD_SHARE / link_s, 3),
        f"G16 {way}: peak MiB of all processes": peak.pss_bytes >> 20,
        f"G16 {way}: peak MiB of the largest process": peak.rss_bytes >> 20,
    }


if __name__ == "__main__":
    place_of_all = Path(sys.argv[2])
    if sys.argv[1] == "serve":
        serve(place_of_all)
    else:
        # An agent runs already by now, and has all it needs of Python.
        from cloner_agent import packs as _loaded  # noqa: F401

        begun_s = time.monotonic()
        {_HTTPS: node_https, _MULTICAST: node_multicast}[sys.argv[1]](place_of_all, Path(sys.argv[3]))
        (place_of_all / _STAGE).write_text(str(time.monotonic() - begun_s))
