"""The restore stage of a node: packs over HTTPS through a link of 1 Gbit/s, into ext4 in memory (G19).

Two network namespaces and a veth pair; tc's token bucket caps the server's side. The agent's own HTTPS source asks a
small Starlette application that answers as the server does, without its tasks: the link and the node are measured.
"""

from __future__ import annotations

import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benches import disks, report
from benches.golden import FULL, SMALL, make_golden
from benches.memory import peak_of
from benches.node import open_store, run_capture, run_restore
from benches.report import Run, measure

_LINK_BPS = 1_000_000_000
_STAGE = "stage"  # seconds of the last restore stage
_SERVER, _PORT = "10.88.77.1", 8443
# Ethernet, IP, TCP with timestamps: 1448 of 1538 bytes on the wire are payload.
_PAYLOAD_SHARE = 1448 / 1538


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
        cap = ("tbf", "rate", f"{_LINK_BPS}bit", "burst", "256kb", "latency", "20ms")
        disks.sh("tc", "-n", server, "qdisc", "add", "dev", "wire", "root", *cap)
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


def node(place: Path, target: Path) -> None:
    """Restore as the agent does, from the server, and write down how long it took: an agent runs already by then."""
    from cloner_agent.client import Endpoint
    from cloner_agent.packs import HttpsPackSource
    from cloner_core.messages import Secret

    store = place / "store"
    version = open_store(store).version("golden").version
    endpoint = Endpoint(_SERVER, _PORT, (place / "ca.pem").read_text())
    begun = time.monotonic()
    run_restore(store, target, HttpsPackSource(endpoint, Secret("none"), version))
    (place / _STAGE).write_text(str(time.monotonic() - begun))


def main(argv: list[str]) -> int:
    """Run the bench; returns 1 when a restored tree was not the source."""
    options = report.options("restore", argv)
    evidence = report.Evidence("restore")
    shape = SMALL if options.small else FULL
    size_bytes = 2 * shape.data_bytes + (512 << 20)
    runs: list[Run] = []
    with disks.workspace() as place, disks.ext4(place, "source", size_bytes) as source, _link() as (server, client):
        make_golden(source, shape)
        run_capture(source, place / "store")
        _make_certificate(place)
        store = open_store(place / "store")
        packs = store.current_map(bytes.fromhex(store.version("golden").version)).packs
        stored = sum(pack.stored_size for pack in packs)
        floor_s = stored * 8 / (_LINK_BPS * _PAYLOAD_SHARE)
        inside = ("ip", "netns", "exec", client, sys.executable, "-m", "benches.restore", "node", str(place))
        with _serving(place, server):
            for _ in range(options.runs):
                with disks.ext4(place, "target", size_bytes) as target:
                    run = measure("restore", "cloner HTTPS", (*inside, str(target)))
                    same = disks.is_identical(source, target)
                    wall_s = float((place / _STAGE).read_text())
                    runs.append(Run(run.what, run.who, wall_s, run.user_s, run.system_s, stored, same))
                print(report.table(runs), flush=True)
            with disks.ext4(place, "target", size_bytes) as target:
                peak = peak_of((*inside, str(target)))
    wall_s = statistics.median(run.wall_s for run in runs)
    goals = {
        "G19 restore ÷ (compressed bytes ÷ link)": round(wall_s / (stored * 8 / _LINK_BPS), 3),
        "the same with the headers of the link": round(wall_s / floor_s, 3),
        "G16 peak MiB of all processes": peak.pss_bytes >> 20,
        "G16 peak MiB of the largest process": peak.rss_bytes >> 20,
    }
    print(json.dumps(goals, indent=1, ensure_ascii=False))
    if options.evidence:
        method = "tc tbf 1 Gbit/s between namespaces; server and node share the CPUs"
        print(evidence.write(runs, method=method, tls=ssl.OPENSSL_VERSION, goals=goals))
    return 0 if all(run.is_identical for run in runs) else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        node(Path(sys.argv[2]), Path(sys.argv[3]))
