"""Packs over HTTPS from the real server to 1, 2, 4, 8 and 400 clients on a link of 1 Gbit/s, beside nginx (G12).

All of it runs in a network namespace of its own whose loopback is capped by tc. Clients are nodes: as many workers as a
restore has here, with the agent's own HTTP and the credential of a live attempt. Every pack is checked against its
digest.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches import disks, report
from benches.golden import MIB, SMALL, make_golden
from benches.node import open_store
from cloner_agent.client import Endpoint, Transport
from cloner_agent.restore.job import FETCHED_AT_ONCE
from cloner_agent.restore.workers import usual_workers
from cloner_agent.session import API
from cloner_core.image.digest import digest
from cloner_core.image.limits import PACK_STORED_BYTES
from cloner_core.messages import Secret
from serverbench.served import START, Served, node_of
from store_images import BOOTABLE

_CONGESTION = "cubic"  # what Linux has unless told otherwise; that of a virtual machine may have BBR
_LINK_BPS = 1_000_000_000
_FOR_S = 15.0  # an image takes one client 6 s, and eight of them 45: what a start costs is to weigh as it does there
_MANY, _PACKS_EACH, _PROCESSES = 400, 4, 4
_OURS, _THEIRS = "cloner", "nginx"


@dataclass(frozen=True, slots=True)
class Load:
    """What clients got at once from one server."""

    who: str
    clients: int
    got_bytes: int
    seconds: float
    fairness: float  # what the slowest client got ÷ what the fastest got
    cpu_s: float  # of the server

    @property
    def share(self) -> float:
        """How much of the link was content."""
        return self.got_bytes * 8 / self.seconds / _LINK_BPS

    @property
    def cpu_s_per_gib(self) -> float:
        """What the server's CPUs had to do."""
        return self.cpu_s / (self.got_bytes / (1 << 30))


@dataclass(frozen=True, slots=True)
class Site:
    """Where packs are: the endpoint, the credential, the name of each pack and its path."""

    endpoint: Endpoint
    credential: str
    paths: dict[str, str]

    def fetch(self, transport: Transport, name: str) -> int:
        """Return the bytes of a pack; exits when it is not the one that was asked for."""
        stored = transport.request(
            "GET", self.paths[name], credential=Secret(self.credential), limit_bytes=PACK_STORED_BYTES, read_s=60.0
        )
        if digest(stored).hex() != name:
            sys.exit(f"bench: pack {name} came as something else")
        return len(stored)


def _download(site: Site, number: int, start_at: float) -> tuple[int, float]:
    """Be one worker of a restore for a while, with as many packs at once; return the bytes and the seconds."""
    names = list(site.paths)
    transports = [Transport(site.endpoint) for _ in range(FETCHED_AT_ONCE)]
    for transport in transports:
        site.fetch(transport, names[0])  # connected, everybody
    time.sleep(max(0.0, start_at - time.time()))
    begun = time.monotonic()

    def fetch(lane: int) -> int:
        got, at = 0, number + lane
        while time.monotonic() - begun < _FOR_S:
            got += site.fetch(transports[lane], names[at % len(names)])
            at += FETCHED_AT_ONCE
        return got

    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        got = sum(pool.map(fetch, range(FETCHED_AT_ONCE)))
    return got, time.monotonic() - begun


def _load(site: Site, who: str, clients: int, cpu_s: Callable[[], float]) -> Load:
    start_at = time.time() + 1.5 + 0.2 * clients
    each = usual_workers()  # of a node like this machine
    processes = clients * each
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        running = pool.starmap_async(_download, [(site, 7 * number, start_at) for number in range(processes)])
        time.sleep(max(0.0, start_at - time.time()))
        before = cpu_s()
        got = running.get()
        spent = cpu_s() - before
    sizes = [sum(size for size, _ in got[at : at + each]) for at in range(0, processes, each)]
    return Load(who, clients, sum(sizes), max(seconds for _, seconds in got), min(sizes) / max(sizes), spent)


def _crowd(site: Site, count: int) -> int:
    """Be many clients at once, a few packs each; return the bytes that came."""
    names = list(site.paths)

    def client(number: int) -> int:
        transport = Transport(site.endpoint)
        got = sum(site.fetch(transport, names[(number + at) % len(names)]) for at in range(_PACKS_EACH))
        transport.close()
        return got

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(client, range(count)))


def _many(site: Site, cpu_s: Callable[[], float]) -> Load:
    before, begun = cpu_s(), time.monotonic()
    with multiprocessing.get_context("fork").Pool(_PROCESSES) as pool:
        got = pool.starmap(_crowd, [(site, _MANY // _PROCESSES)] * _PROCESSES)
    return Load(_OURS, _MANY, sum(got), time.monotonic() - begun, 1.0, cpu_s() - before)


@contextmanager
def _nginx(room: Path, served: Served, names: list[str]) -> Iterator[tuple[Site, Callable[[], float]]]:
    """Serve the same packs with the same certificate by nginx."""
    port = served.tls + 1
    site = served.state / "site"
    certificate, key = site / "server.pem", site / "server.key"
    root = room / "nginx"
    root.mkdir()
    for name in names:
        shutil.copyfile(served.state / "store/packs" / name[:2] / name, root / name)
    (room / "nginx.conf").write_text(
        f"user root; worker_processes 1; daemon off; pid {room}/nginx.pid; error_log {room}/nginx.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port} ssl; root {root};"
        f" ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; }} }}\n"
    )
    process = subprocess.Popen(("nginx", "-c", str(room / "nginx.conf")))
    try:
        time.sleep(1)  # a bench may wait
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        endpoint = Endpoint("127.0.0.1", port, (site / "ca.pem").read_text())
        yield Site(endpoint, "none", {name: f"/{name}" for name in names}), lambda: sum(map(_cpu_s, workers))
    finally:
        process.terminate()
        process.wait()


def _cpu_s(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc_pid_stat(5)


def _fill(served: Served, tree: Path) -> Site:
    """Have the server keep an image, and a live attempt that may have it."""
    served.fill()
    argv = [sys.executable, "-c", START, "--socket", str(served.socket), "new-image", "--root", str(tree)]
    subprocess.run(
        (*argv, "--image", "golden", "--disklayout", "simple", "--yes"),
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "CLONER_INDEXES": str(tree.parent / "indexes")},
    )
    served.admin("POST", "/deploy", json={"nodes": ["n01"]})
    node = node_of(served)
    node.hello()
    version = node.reply.task.version.digest
    packs = open_store(served.state / "store").current_map(bytes.fromhex(version)).packs
    names = [pack.digest.hex() for pack in packs]
    return Site(
        Endpoint("127.0.0.1", served.tls, (served.state / "site/ca.pem").read_text()),
        node.reply.credential.value,
        {name: f"{API}/versions/{version}/packs/{name}" for name in names},
    )


def _measure(room: Path, runs: int) -> tuple[list[Load], int]:
    """Return what was measured, and the most memory our server had."""
    tree = room / "tree"
    tree.mkdir()
    make_golden(tree, SMALL)
    for path, content in BOOTABLE.items():
        file = tree / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    served = Served(room)
    served.start()
    loads: list[Load] = []
    try:
        site = _fill(served, tree)
        with _nginx(room, served, list(site.paths)) as (theirs, their_cpu_s):
            for _ in range(runs):
                for clients in (1, 2, 4, 8):
                    loads.append(_load(site, _OURS, clients, served.cpu_s))
                    loads.append(_load(theirs, _THEIRS, clients, their_cpu_s))
                print(_table(loads), flush=True)
        loads.append(_many(site, served.cpu_s))
        return loads, served.peak_rss_bytes()
    finally:
        served.stop()


def _groups(loads: list[Load]) -> dict[tuple[str, int], list[Load]]:
    keys = dict.fromkeys((load.who, load.clients) for load in loads)
    return {key: [load for load in loads if (load.who, load.clients) == key] for key in keys}


def _median(loads: list[Load], of: Callable[[Load], float]) -> float:
    return statistics.median(of(load) for load in loads)


def _table(loads: list[Load]) -> str:
    lines = [f"{'':8} clients  share of link  slowest ÷ fastest  CPU s/GiB"]
    for (who, clients), own in _groups(loads).items():
        share, fairness = _median(own, lambda load: load.share), _median(own, lambda load: load.fairness)
        cpu = _median(own, lambda load: load.cpu_s_per_gib)
        lines.append(f"{who:8} {clients:7}  {share:13.3f}  {fairness:17.2f}  {cpu:9.2f}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run the bench; exits when a pack was not what was asked for."""
    options = report.options("https", argv)
    if os.environ.get("BENCH_INSIDE") != "1":
        again = (sys.executable, "-m", "benches", "https", *argv)
        return subprocess.run(
            ("unshare", "-n", *again), env={**os.environ, "BENCH_INSIDE": "1"}, check=False
        ).returncode
    evidence = report.Evidence("https")
    disks.sh("ip", "link", "set", "lo", "mtu", "1500", "up")
    cap = ("tbf", "rate", f"{_LINK_BPS}bit", "burst", "256kb", "latency", "20ms")
    disks.sh("tc", "qdisc", "add", "dev", "lo", "root", *cap)
    for where in ("127.0.0.0/8", "127.0.0.1"):
        route = ("dev", "lo", "proto", "kernel", "scope", "host", "src", "127.0.0.1", "congctl", _CONGESTION)
        disks.sh("ip", "route", "replace", "table", "local", "local", where, *route)
    with disks.workspace() as room:
        loads, peak_bytes = _measure(room, options.runs)
    print(_table(loads))
    groups = _groups(loads)
    few = [own for (who, clients), own in groups.items() if who == _OURS and clients != _MANY]
    goals = {
        "G12 least share of the link": round(min(_median(own, lambda load: load.share) for own in few), 3),
        "G12 least of slowest ÷ fastest": round(min(_median(own, lambda load: load.fairness) for own in few), 3),
        "G12 CPU s/GiB": {
            f"{who}, {clients}": round(_median(own, lambda load: load.cpu_s_per_gib), 2)
            for (who, clients), own in groups.items()
        },
        "G12 packs asked for and got by 400 clients": _MANY * _PACKS_EACH,
        "peak MiB of the server": peak_bytes // MIB,
    }
    print(json.dumps(goals, indent=1, ensure_ascii=False))
    if options.evidence:
        method = f"loopback of a namespace, MTU 1500, tc tbf 1 Gbit/s, {_CONGESTION}; server and clients share the CPUs"
        print(evidence.write(loads, method=method, tls=ssl.OPENSSL_VERSION, goals=goals))
    return 0
