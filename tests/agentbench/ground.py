"""A real server with a published image, and a yard of simulated machines before it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agentbench.golden import make_golden
from agentbench.simulated import make_machine
from agentbench.wire import Wire
from agentbench.yard import Running, Yard
from cloner_agent.capture.job import CaptureOptions, capture
from cloner_agent.host import run
from cloner_agent.site import Trust
from cloner_core.layout import parse_layout
from cloner_server.site import open_site
from cloner_server.store.local import LocalSink, LocalStore
from serverbench.served import START, Served

IMAGE = "golden"
LAYOUT = """{"name": "simple", "disks": [{"id": "system", "select": {"serial": "SIM*"}, "partitions": [
  {"role": "esp", "size": "512MiB", "content": {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi"}},
  {"role": "swap", "size": "256MiB", "content": {"type": "swap"}},
  {"role": "root", "size": "rest", "content": {"type": "filesystem", "kind": "ext4", "mount": "/"}}]}]}"""


@dataclass
class Ground:
    """The server, the yard and the golden tree."""

    served: Served
    yard: Yard
    golden: Path
    directory: Path

    def add(self, *, has_wire: bool = False, node: dict[str, Any] | None = None, **fields: Any) -> Running:
        """Put one more machine into the yard, and make it a node of the server."""
        number = len(self.yard.machines) + 1
        name = f"n{number:03d}"
        machine = make_machine(
            self.directory / "machines" / name, self.directory / "bulk" / name, name, number, **fields
        )
        spec = {"name": machine.name, "macs": [machine.mac], "image": IMAGE, "layout": "simple"} | (node or {})
        self.served.admin("POST", "/nodes", json=spec)
        return self.yard.add(machine, self.directory / f"{name}.console", self.wire() if has_wire else None)

    def wire(self) -> Wire:
        """Return a cable to the API of nodes."""
        site = self.served.state / "site"
        made = Wire(self.served.tls, site / "server.pem", site / "server.key")
        made.start()
        return made

    def deploy(self, *machines: Running, **fields: Any) -> None:
        """Arm a deploy of these machines (all)."""
        chosen = [one.machine.name for one in machines or self.yard.machines]
        self.served.admin("POST", "/deploy", json={"nodes": chosen, "limit": len(chosen)} | fields)

    def task(self, one: Running) -> dict[str, Any]:
        """Return the newest task of a machine."""
        tasks: list[dict[str, Any]] = self.served.admin("GET", "/tasks", params={"node": one.machine.name})
        return tasks[0]

    def settle(self, deadline_s: float = 60.0) -> None:
        """Wait until no task goes on: what an agent could not tell for want of a network it tells a little later."""
        end = time.monotonic() + deadline_s
        while left := [task for task in self.tasks() if task["state"] in ("booting", "running", "lost")]:
            assert time.monotonic() < end, f"still {[(one['node'], one['state'], one['stage']) for one in left[:9]]}"
            self.yard.wait(0.2)

    def tasks(self) -> list[dict[str, Any]]:
        """Return all tasks."""
        found: list[dict[str, Any]] = self.served.admin("GET", "/tasks", params={"limit": 10_000})
        return found

    def cloner(self, *words: str, accept: Collection[int] = (0,)) -> Any:
        """Type one command on the server; return what it says as JSON."""
        argv = [sys.executable, "-c", START, *words, "--json", "--socket", str(self.served.socket)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode in accept, f"{words}: status {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    def times(self, what: str) -> int:
        """Return how often something happened, by the server's events."""
        return sum(event["what"] == what for event in self.events(after=0, limit=10_000))

    def events(self, **query: Any) -> list[dict[str, Any]]:
        """Return what the server has noted."""
        found: list[dict[str, Any]] = self.served.admin("GET", "/events", params=query)
        return found


Spoil = Callable[[Path], object] | None
"""What is done to the pack of an image after it was published."""


def _publish(store: LocalStore, golden: Path, image: str) -> Path:
    """Capture a tree and return one pack that only this version has."""
    before = set(store.files.root.glob("packs/*/*"))
    capture(golden, LocalSink(store), CaptureOptions(image=image, architecture="x86_64"))
    return min(set(store.files.root.glob("packs/*/*")) - before)


@contextlib.contextmanager
def ground(
    directory: Path,
    images: Mapping[str, Spoil] | None = None,
    *,
    address: str = "127.0.0.1",
    big_bytes: int = 100_000,
    **settings: object,
) -> Iterator[Ground]:
    """Give a running server with one image and one layout; `settings` go into server.toml.

    It listens at `address`. The image's biggest file has `big_bytes`.

    Of `images` there is one more each, spoilt; one named "kernelless" has no kernel.
    """
    served = Served(directory, settings=settings, address=address)
    machines = directory / "machines"
    machines.mkdir()
    with contextlib.ExitStack() as made:
        run(("mount", "-t", "tmpfs", "-o", "mode=0700", "simulated", str(machines)))
        made.callback(run, ("umount", str(machines)))
        site, _ = open_site(served.state, time.time())
        golden = _publish_all(LocalStore(served.state / "store", site), directory, images or {}, big_bytes)
        made.callback(_end, served)
        served.start()
        served.admin("POST", "/layouts", content=msgspec.json.encode(parse_layout(LAYOUT)))
        yard = Yard(served.where, Trust(site.ca_pem.decode(), site.public_key))
        made.callback(yard.close)
        yield Ground(served, yard, golden, directory)


def _publish_all(store: LocalStore, directory: Path, images: Mapping[str, Spoil], big_bytes: int) -> Path:
    """Publish the image and the spoilt ones; return the golden tree."""
    golden = make_golden(directory / "golden", big_bytes=big_bytes, documents=20)
    _publish(store, golden, IMAGE)
    for name, spoil in images.items():
        other = make_golden(directory / name, big_bytes=100_000, documents=20)
        for kernel in other.glob("boot/vmlinuz-*") if name == "kernelless" else ():
            kernel.unlink()
        pack = _publish(store, other, name)
        if spoil is not None:
            spoil(pack)
    return golden


def _end(served: Served) -> None:
    if served.process is not None and served.process.poll() is None:
        served.kill()
