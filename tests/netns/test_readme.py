"""Every command of README.md, typed as it stands there, in a network of its own with a server made by the same page.

What the page writes outside the checkout lands in overlays that go with the namespace. A command that is new in the
page is a failure until it is listed here, with what it must answer or with what else runs it.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloner_initramfs import Cache, default_cache
from netns.netboot_lab import inside
from netns.talking_node import TalkingNode, Where
from serverbench.scene import facts
from vmlab.golden_busybox import golden_busybox
from vmlab.head import CHECKOUT, build_installer
from vmlab.lab import BRIDGE, SERVER_ADDRESS, Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

README = CHECKOUT / "README.md"
NODE, MAC = "node01", "52:54:00:12:34:56"
INTERFACE = "eth1"
SERVE, DEPLOY = "cloner serve", "cloner deploy --nodes node01 --wait"

ELSEWHERE = {
    # command: the file that runs it, and what it says there
    "./run demo": ("vm-tests/test_demo.py", '"-m", "vmlab.demo"'),
    "./run setup": ("run", 'as_root test; need_apt "${APT_PYTHON[@]}" "${APT_LAB[@]}"; need_venv'),
    "./run check": ("run", "./run check || status=1"),  # `./run test` begins with it
    "./run test": (".ci/run", "./run test"),
}
ANSWERS = {
    # command: what it must answer, as a pattern
    'ln -sf "$PWD/.venv/bin/cloner" /usr/local/sbin/cloner': r"\A\Z",
    "cloner --version": r"\Acloner \d+\.\d+",
    "cloner initramfs build --drivers full --out /var/lib/cloner-installer": r"drivers-full .* MiB(.|\n)*a node needs",
    "cloner serve --interface eth1 --dhcp 10.77.0.100-10.77.0.199 --installer /var/lib/cloner-installer": (
        r"^CLONER READY"
    ),
    "cloner status": r"dhcp 10\.77\.0\.100-10\.77\.0\.199 on eth1",
    "cloner disklayout-upload --disklayout one-disk --file /etc/cloner/one-disk.yaml": r"one-disk",
    "rsync -aHAXS --numeric-ids --one-file-system root@golden:/ /srv/golden/": r"\A\Z",
    "cloner new-image --root /srv/golden --image debian --disklayout one-disk --message 'first'": (
        r"debian:1  [0-9a-f]{64}"
    ),
    "cloner image-list": r"debian:1 ",
    "cloner node add node01 --mac 52:54:00:12:34:56 --address 10.77.0.11/24 --image debian --disklayout one-disk": (
        r"added node01"
    ),
    "cloner deploy --nodes node01 --dry-run": r"node01: debian:1 with layout one-disk:1",
    DEPLOY: r"Destroy the disks of 1 node\?(.|\n)*node01 .*done",
    "cloner receipt show node01": r"^confirmed +\d{4}-",
    "cloner receipt show node01 --json > /srv/node01-receipt.json": r"\A\Z",
    "cloner receipt verify --file /srv/node01-receipt.json": r"is signed by [0-9a-f]{64}",
    "cloner plan node01": r"DESTROYS what is on /dev/vda(.|\n)*mkfs\.ext4",
    "cloner node show node01": r"^netboot +local$",
    "cloner events --object node/node01": r"node/node01",
    "cloner store check --read-data": r"^faults +none$",
    "cloner store gc": r"removed 0 files",
}


def blocks(kind: str) -> list[str]:
    """Return what stands in the fenced blocks of one kind."""
    return [
        match[2] for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README.read_text(), re.M | re.S) if match[1] == kind
    ]


def commands() -> list[str]:
    """Return every command of the page, in its order."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@dataclass
class Reader:
    """Somebody who types what the page says, on a server of his own."""

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

    def type(self, command: str) -> str:
        """Run a command to its good end and return its stdout."""
        done = subprocess.run(
            self.argv(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
        )
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

    def deploy(self, command: str) -> str:
        """Type the command at a terminal, say yes, switch the node on, and return what the terminal showed."""
        ours, theirs = pty.openpty()
        child = subprocess.Popen(self.argv(command), stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        try:
            shown = read_until(ours, b"[y/N]")
            os.write(ours, b"y\n")
            wait_for(lambda: re.search(r"^netboot +cloner$", self.type("cloner node show node01"), re.M), 60)
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


@pytest.fixture
def reader() -> Iterator[Reader]:
    cache = Cache(default_cache())
    with Lab(title="readme") as lab:
        build_installer(cache, lab.directory / "downloaded", drivers="full")  # no mirror can be reached from inside
        yield Reader(lab, golden_busybox(cache))


def test_every_command_of_the_readme_is_known_and_what_does_not_run_here_runs_elsewhere() -> None:
    told = commands()
    assert [command for command in told if command not in ANSWERS and command not in ELSEWHERE] == []
    assert [command for command in (*ANSWERS, *ELSEWHERE) if command not in told] == []
    for command, (file, words) in ELSEWHERE.items():
        assert words in (CHECKOUT / file).read_text(), f"{command} is run by {file} no more"


def test_the_links_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert len(targets) > 4
    assert [target for target in targets if not (CHECKOUT / target).exists()] == []


def test_what_the_readme_says_to_type_works_in_its_order(reader: Reader) -> None:
    reader.sit_down()
    (layout,) = blocks("yaml")
    (path,) = re.findall(r"save this as `(\S+)`", README.read_text())
    for command in commands():
        if command in ELSEWHERE:
            continue
        if path in command:
            reader.save(layout, path)
        run = {SERVE: reader.start, DEPLOY: reader.deploy}.get(
            SERVE if command.startswith(SERVE) else command, reader.type
        )
        answer = run(command)
        assert re.search(ANSWERS[command], answer, re.M), f"{command} answered:\n{answer}"
    # "The node still asks the network first, and is sent on to its disk."
    with inside(reader.lab.name):
        assert reader.where.boot_script(MAC).rstrip().endswith("exit 1")
    # "Ctrl-C stops it."
    reader.server.send_signal(signal.SIGINT)
    assert reader.server.wait(30) == 0


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
