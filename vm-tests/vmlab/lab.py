"""The lab's network: a namespace with a bridge, a server address on it, and a tap per machine.

Nothing in it reaches the outside. Whatever happens, leaving the `with` block ends every program started through
the lab and removes the namespace; what a killed run left behind is removed by the next one.
Must not know QEMU; `machine` does.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vmlab import host
from vmlab.errors import LabError
from vmlab.evidence import Evidence

log = logging.getLogger(__name__)

PREFIX = "clonerlab"
NAME = re.compile(rf"{PREFIX}-(?P<pid>\d+)-(?P<start>\d+)-\d+")
BRIDGE = "br0"
SERVER_ADDRESS = "10.77.0.1"
SERVER_PREFIX = "10.77.0.1/24"
STOP_S = 5.0

_numbers = itertools.count()


class Lab:
    """One network namespace with its bridge; a context manager."""

    def __init__(self, *, title: str = "lab", keep_logs: bool = False) -> None:
        """Prepare names only; `title` names the folder of logs."""
        self.name = f"{PREFIX}-{os.getpid()}-{_start_ticks(os.getpid())}-{next(_numbers)}"
        self.evidence = Evidence(title, keep=keep_logs)
        self.directory = Path()
        self._taps = itertools.count()
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Make the namespace; raises LabError when not root or when the kernel refuses."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root to make a network namespace", hint="run it as root")
        remove_stale()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}."))
        try:
            self._make_network()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all programs, remove namespace and scratch; keep the logs when something failed."""
        self._tear_down()
        if kind is not None:
            self.evidence.failed = True
        self.evidence.close()

    def inside(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the argv that runs this program in the namespace.

        The kernel kills it when the thread that starts it ends, so that a killed test leaves no machine running:
        start programs from a thread that lives as long as they do.
        """
        return ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name, *map(str, argv)]

    def run(self, argv: Sequence[str | Path], *, timeout_s: float = 60, stdin: bytes = b"", check: bool = True) -> str:
        """Run a program in the namespace to its end and return its stdout; raises LabError as `host.run` does."""
        return host.run(self.inside(argv), timeout_s=timeout_s, stdin=stdin, check=check)

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        log_name: str = "",
        environment: dict[str, str] | None = None,
        directory: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the namespace; it is ended with the lab.

        With `log_name` its output goes to `<log_name>.log` among the evidence, else nowhere.
        """
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(self.evidence.open(f"{log_name}.log")) if log_name else subprocess.DEVNULL
            child = subprocess.Popen(
                self.inside(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment if environment is not None else host.ENVIRONMENT,
                cwd=directory,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def stop(self, child: subprocess.Popen[bytes]) -> int:
        """Ask a program started by `popen` to end, kill it after 5 s, and return its status."""
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
        return child.wait()

    def add_tap(self) -> str:
        """Make a tap on the bridge and return its name."""
        tap = f"tap{next(self._taps)}"
        self._ip("tuntap", "add", "dev", tap, "mode", "tap")
        self._ip("link", "set", tap, "master", BRIDGE, "up")
        return tap

    def _make_network(self) -> None:
        host.run(["ip", "netns", "add", self.name])
        self._ip("link", "set", "lo", "up")
        bridge = ("mcast_snooping", "0", "stp_state", "0", "forward_delay", "0")
        self._ip("link", "add", BRIDGE, "type", "bridge", *bridge)
        self._ip("address", "add", SERVER_PREFIX, "dev", BRIDGE)
        self._ip("link", "set", BRIDGE, "up")

    def _ip(self, *arguments: str) -> None:
        self.run(["ip", *arguments])

    def _tear_down(self) -> None:
        # Nobody looks at what they leave, and a server that is asked to end waits 3 s for machines that are gone.
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
        remove(self.name)
        shutil.rmtree(self.directory, ignore_errors=True)


def remove_stale() -> None:
    """Remove what lab runs whose process is gone left behind: namespaces, the programs in them, scratch folders."""
    names = [line.split(" ")[0] for line in host.run(["ip", "netns", "list"]).splitlines()]
    for name in names:
        if _is_stale(name):
            log.info("removing the namespace %s of a run that is gone", name)
            remove(name)
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*"):
        if _is_stale(path.name.partition(".")[0]):
            shutil.rmtree(path, ignore_errors=True)


def _is_stale(name: str) -> bool:
    match = NAME.fullmatch(name)
    return match is not None and _start_ticks(int(match["pid"])) != int(match["start"])


def remove(name: str) -> None:
    """Kill what still runs in a namespace of ours and delete it; nothing happens when there is none."""
    if not Path("/run/netns", name).exists():
        return
    for _ in range(50):
        pids = host.run(["ip", "netns", "pids", name], check=False).split()
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.05)
    host.run(["ip", "netns", "delete", name], check=False)


def _start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is none. Tells reused numbers apart."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[19])
