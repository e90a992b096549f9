"""Somebody who types what a page of the documentation says, in a network of its own, on a server made by that page.

What a page writes outside the checkout lands in overlays that go with the namespace.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from netns.netboot_lab import inside
from netns.talking_node import TalkingNode, Where
from serverbench.scene import facts
from vmlab.head import CHECKOUT
from vmlab.lab import BRIDGE, SERVER_ADDRESS, Lab

NODE, MAC = "node01", "52:54:00:12:34:56"
INTERFACE = "eth1"
INSTALL = 'ln -sf "$PWD/.venv/bin/cloner" /usr/local/sbin/cloner'


@dataclass(frozen=True)
class Page:
    """One page of the documentation."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text()

    def blocks(self, kind: str) -> list[str]:
        """Return what stands in the fenced blocks of one kind."""
        found = re.finditer(r"^```(\w*)\n(.*?)^```$", self.text, re.M | re.S)
        return [match[2] for match in found if match[1] == kind]

    def commands(self) -> list[str]:
        """Return every command of the page, in its order."""
        lines = "".join(self.blocks("sh")).replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def saved_files(self) -> dict[str, str]:
        """Return the files the page asks to be saved, by the path that stands before each."""
        found = re.finditer(r"[Ss]ave this as\s+`(\S+)`.*?^```(?:yaml|csv)\n(.*?)^```$", self.text, re.M | re.S)
        return {match[1]: match[2] for match in found}

    def dead_links(self) -> list[str]:
        """Return the links within the documentation that lead nowhere; raises when there are hardly any."""
        targets = re.findall(r"\]\(([^)#:]+)\)", self.text)
        assert len(targets) > 2
        return [target for target in targets if not (self.path.parent / target).exists()]


@dataclass
class Reader:
    """Somebody who types, on a server of his own."""

    lab: Lab
    golden: Path
    shell: int = 0  # the process whose mounts all commands share

    def sit_down(self) -> None:
        """Make the server's interface, and give the folders that the page writes to an upper layer each."""
        for words in (["down"], ["name", INTERFACE], ["up"]):
            self.lab.run(["ip", "link", "set", INTERFACE if words == ["up"] else BRIDGE, *words])
        base = self.lab.directory
        lines = ["set -eu", f"mkdir {base}/srv", f"mount --bind {base}/srv /srv"]
        for folder in ("/etc", "/usr/local", "/var/lib"):
            name = folder.strip("/").replace("/", "-")
            lines += [f"mkdir {base}/{name} {base}/{name}-work"]
            layers = f"lowerdir={folder},upperdir={base}/{name},workdir={base}/{name}-work"
            lines += [f"mount -t overlay overlay -o {layers} {folder}"]
        lines += ["mount -t tmpfs tmpfs /run", f"touch {base}/seated", "exec sleep infinity"]
        child = self.lab.popen(["unshare", "--mount", "bash", "-c", "\n".join(lines)], log_name="seat")
        wait_for(lambda: (base / "seated").exists() or child.poll() is not None, 20)
        assert child.poll() is None, self.lab.evidence.path("seat.log").read_text()
        self.shell = child.pid

    def argv(self, command: str) -> list[str]:
        """Return what runs one command line there, in the checkout."""
        known = command.replace("root@golden:/", f"{self.golden}/")  # there is no second machine to log in to
        into = ["nsenter", "--target", str(self.shell), "--mount", f"--wdns={CHECKOUT}"]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return self.lab.inside([*into, "env", "-i", f"PATH={path}", "TERM=xterm", "HOME=/root", "bash", "-c", known])

    def attempt(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, good or bad."""
        return subprocess.run(
            self.argv(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
        )

    def type(self, command: str) -> str:
        """Run a command to its good end and return its stdout."""
        done = self.attempt(command)
        assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, command: str) -> str:
        """Start the server and return what it says when it is ready."""
        log = self.lab.directory / "serve.log"
        with log.open("wb") as out:
            child = subprocess.Popen(self.argv(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.server = child
        wait_for(lambda: b"CLONER READY" in log.read_bytes() or child.poll() is not None, 60)
        return log.read_text()

    def start_unit(self, command: str) -> str:
        """Do what systemd, which is not there, would do at this command: run the ExecStart of the unit."""
        unit = shlex.split(command)[-1]
        (starts,) = re.findall(r"^ExecStart=(.*)$", self.type(f"cat /etc/systemd/system/{unit}.service"), re.M)
        return self.start(starts)

    def stop(self) -> None:
        """Stop the server as Ctrl-C does."""
        self.server.send_signal(signal.SIGINT)
        assert self.server.wait(30) == 0

    def deploy(self, command: str) -> str:
        """Type the command at a terminal, say yes, switch the node on, and return what the terminal showed."""
        ours, theirs = pty.openpty()
        child = subprocess.Popen(self.argv(command), stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        try:
            shown = read_until(ours, b"[y/N]")
            os.write(ours, b"y\n")
            wait_for(lambda: re.search(r"^netboot +cloner$", self.type(f"cloner node show {NODE}"), re.M), 60)
            with inside(self.lab.name):
                node = TalkingNode(self.where, self.ca_pem(), facts(MAC))
                for _ in node.steps():
                    shown += read_until(ours, b"", 0.6)
                assert node.confirm() == 200
            shown += read_until(ours, None, 60)
            assert child.wait(60) == 0, shown
        finally:
            child.kill()
            child.wait()
            os.close(ours)
        return shown.decode().replace("\r\n", "\n")

    @property
    def where(self) -> Where:
        return Where(SERVER_ADDRESS, 8443, 8080)

    def ca_pem(self) -> str:
        return (self.lab.directory / "var-lib/cloner/site/ca.pem").read_text()

    def save(self, text: str, path: str) -> None:
        """Save a file as the page asks."""
        self.type(f"mkdir -p {Path(path).parent} && cat >{path} <<'END'\n{text}END")


def wait_for(condition: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def read_until(terminal: int, wanted: bytes | None, seconds: float = 30) -> bytes:
    """Return what a terminal shows until `wanted` is there; with b"" for a time, with None until it is closed."""
    shown, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not (wanted and wanted in shown):
        if select.select([terminal], [], [], left)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # Linux says so when the last writer has closed it
                return shown
    assert not wanted or wanted in shown, shown
    return shown
