"""The head of the lab: a real `cloner serve` in the namespace, and the real `cloner` command against it.

What the tests and the demo share. Must not take short cuts: everything goes through the command line a person
would type, and what comes back is what he would read. Only what is waited for is asked of the server itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2

from cloner_initramfs import Cache
from vmlab import host
from vmlab.errors import LabError
from vmlab.initramfs import decompressed
from vmlab.lab import BRIDGE, SERVER_ADDRESS, Lab
from vmlab.machine import DirectBoot

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "server", "pxe", "initramfs", "cli", "vm-tests", "bench")
POOL = "10.77.0.100-10.77.0.199"
READY = b"CLONER READY"
START_S = 60
_LOOK_S = 0.5
_ENDED = ("done", "failed", "aborted", "frozen")


@dataclass(frozen=True, slots=True)
class Said:
    """What one `cloner` command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The result of a command run with --json."""
        return json.loads(self.out)


class Head:
    """One server of a lab with its state directory; it outlives stops and kills of the process."""

    def __init__(
        self, lab: Lab, installer: Path, *, more: Sequence[str] = (), lost_s: float | None = None, name: str = "head"
    ) -> None:
        """Prepare names; `installer` holds kernel and layers, `more` are further arguments of `cloner serve`.

        `lost_s` is how long an attempt may be silent, None for as long as by default.
        """
        self.lab = lab
        self.state = lab.directory / name
        self.socket = lab.directory / f"{name}.sock"
        self._name = name
        self._installer = installer
        self._more = (*more, *(() if lost_s is None else ("--config", str(_settings(lab, name, lost_s)))))
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it says that it is ready; raises LabError with its log otherwise."""
        argv = ["serve", "--state", str(self.state), "--interface", BRIDGE, "--address", SERVER_ADDRESS]
        argv += ["--dhcp", POOL, "--installer", str(self._installer), *self._more]
        log = self.lab.evidence.path(f"{self._name}.log")
        seen = log.stat().st_size if log.exists() else 0
        self._child = self.lab.popen(self._command(*argv), log_name=self._name, environment=environment())
        end = time.monotonic() + START_S
        while READY not in (said := log.read_bytes()[seen:]):
            if self._child.poll() is not None or time.monotonic() > end:
                raise LabError(f"cloner serve did not start:\n{said.decode(errors='replace')[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server as an administrator does."""
        if self._child is not None:
            self.lab.stop(self._child)

    def kill(self) -> None:
        """Kill the server without warning."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def cloner(
        self,
        *arguments: str | Path,
        timeout_s: float = 600,
        check: bool = True,
        more_environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Said:
        """Run one `cloner` command; with `check` raises LabError unless its status is 0."""
        done = subprocess.run(
            self.lab.inside(self._command(*map(str, arguments))),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment() | {"CLONER_INDEXES": str(self.state / "indexes")} | dict(more_environment),
            timeout=timeout_s,
            check=False,
        )
        said = Said(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        if check and said.status != 0:
            words = " ".join(map(str, arguments))
            raise LabError(f"cloner {words} ended with status {said.status}:\n{said.out[-2000:]}{said.err[-2000:]}")
        return said

    def json(self, *arguments: str | Path, timeout_s: float = 600) -> Any:
        """Run one `cloner` command with --json and return its result."""
        return self.cloner("--json", *arguments, timeout_s=timeout_s).json

    def popen(self, *arguments: str | Path, out: int | None = None) -> subprocess.Popen[bytes]:
        """Start one `cloner` command that shows its progress where our own output goes (or on descriptor `out`)."""
        argv = self.lab.inside(self._command(*map(str, arguments)))
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, env=environment())

    def wait_state(self, node: str, wanted: str, deadline_s: float) -> dict[str, Any]:
        """Wait until the node's newest task is in a state and return it.

        Raises LabError when it ends in another, or not within `deadline_s`.
        """
        state = self.wait_any_state(node, (wanted, *_ENDED), deadline_s)
        task = self.task(node)
        if state != wanted:
            log = self.cloner("task", "log", task["id"], check=False).out[-3000:]
            raise LabError(f"the task of {node} is {state}, not {wanted}: {task}\n{log}")
        return task

    def wait_any_state(self, node: str, states: Collection[str], deadline_s: float) -> str:
        """Wait until the node's newest task is in one of `states`, at most until the deadline; return its state.

        This asks the server itself: a command for each look would take a third of a core from the machines.
        """
        end = time.monotonic() + deadline_s
        while (state := self.state_of(node)) not in states and time.monotonic() < end:
            time.sleep(_LOOK_S)
        return state

    def state_of(self, node: str) -> str:
        """Return the state of a node's newest task, as the server tells it; LabError when there is none."""
        found = [task for task in self.ask("/tasks", node=node) if task["node"] == node]
        if not found:
            raise LabError(f"{node} has no task")
        return str(max(found, key=lambda task: float(task["created_s"]))["state"])

    def ask(self, path: str, **query: str) -> Any:
        """Ask the server what it has at a path of its API, as its administrator; for looks that are many."""
        transport = httpx2.HTTPTransport(uds=str(self.socket), verify=False)  # no TLS here; its set-up costs most
        with httpx2.Client(transport=transport, base_url="http://c/v1", timeout=60) as client:
            answer = client.get(path, params=query)
        if answer.status_code != 200:
            raise LabError(f"{path} answered {answer.status_code}: {answer.text[:1000]}")
        return answer.json()

    def task(self, node: str) -> dict[str, Any]:
        """Return the newest task of a node."""
        tasks = [task for task in self.json("task", "list", "--node", node) if task["node"] == node]
        if not tasks:
            raise LabError(f"{node} has no task")
        return dict(max(tasks, key=lambda task: float(task["created_s"])))

    def direct_boot(self, mac: str) -> DirectBoot:
        """Return what a machine needs to start the agent without the network's help, its claim included.

        Asks for the boot script as iPXE would, so the claim is one like any other. The initramfs is not compressed.
        """
        url = f"http://{SERVER_ADDRESS}:8080/boot/ipxe?mac={mac.replace(':', '-')}&platform=efi"
        script = self.fetch(url).decode()
        kernel = re.search(r"^kernel\s+(?:--\S+\s+\S+\s+)*(\S+)\s+(.*?)(?: \|\|.*)?$", script, re.MULTILINE)
        initrd = re.search(r"^initrd\s+(?:--\S+\s+\S+\s+)*(\S+)", script, re.MULTILINE)
        if not kernel or not initrd:
            raise LabError(f"the server offers {mac} no agent:\n{script}")
        own = mac.replace(":", "-")
        files = self.lab.directory / f"{own}.kernel", self.lab.directory / f"{own}.initramfs"
        contents = [self.fetch(urllib.parse.urljoin(url, found[1])) for found in (kernel, initrd)]
        for path, content in zip(files, (contents[0], decompressed(contents[1])), strict=True):
            path.write_bytes(content)
        return DirectBoot(*files, kernel[2])

    def fetch(self, url: str) -> bytes:
        """Fetch a URL from inside the namespace."""
        program = "import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1]).read())"
        return host.run_bytes(self.lab.inside([sys.executable, "-c", program, url]), timeout_s=60)

    def _command(self, *arguments: str) -> list[str]:
        start = "import sys; from cloner_cli.main import main; sys.exit(main())"
        return [sys.executable, "-c", start, "--socket", str(self.socket), *arguments]


def _settings(lab: Lab, name: str, lost_s: float) -> Path:
    path = lab.directory / f"{name}.toml"
    path.write_text(f"lost_s = {lost_s}\n")
    return path


def environment() -> dict[str, str]:
    """Return the environment of our own programs in the lab: this checkout's code, no settings of the host."""
    path = os.pathsep.join(str(CHECKOUT / name) for name in PACKAGES)
    return {**host.ENVIRONMENT, "PYTHONPATH": path, "TERM": os.environ.get("TERM", "dumb")}


def build_installer(cache: Cache, place: Path, *, drivers: str = "vm") -> Path:
    """Put kernel and layers into `place` as an administrator does, and return it; quick when the cache has them."""
    argv = [sys.executable, "-m", "cloner_initramfs", "--out", str(place), "--cache", str(cache.root)]
    done = subprocess.run([*argv, "--drivers", drivers], env=environment(), capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"the installer could not be built:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return place
