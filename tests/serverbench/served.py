"""The real server as a process of its own on loopback, over a state directory that outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from cloner_core.image.compression import compress
from cloner_core.image.digest import digest
from cloner_core.layout import parse_layout
from cloner_initramfs.installer import LayerFacts, Manifest
from netns.talking_node import TalkingNode, Where
from serverbench.scene import LAYOUT, facts
from store_images import BOOTABLE, make_image, some_contents

START = "import sys; from cloner_cli.main import main; sys.exit(main())"
MAC = "52:54:00:00:00:01"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """One state directory and whichever process serves it."""

    base: Path
    tls: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    settings: dict[str, object] = field(default_factory=dict)  # more of server.toml
    address: str = "127.0.0.1"
    process: subprocess.Popen[str] | None = None

    @property
    def state(self) -> Path:
        return self.base / "state"

    @property
    def socket(self) -> Path:
        return self.base / "s.sock"

    @property
    def where(self) -> Where:
        return Where(self.address, self.tls, self.http)

    @property
    def log(self) -> Path:
        return self.base / "log"

    def arguments(self) -> list[str]:
        settings = {"state": str(self.state), "socket": str(self.socket), "tftp_port": 0} | self.settings
        file = self.base / "server.toml"
        file.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
        ports = ["--tls-port", str(self.tls), "--http-port", str(self.http)]
        return [
            sys.executable,
            "-c",
            START,
            "serve",
            "--config",
            str(file),
            "--address",
            self.address,
            *ports,
            *self.installer(),
        ]

    def installer(self) -> list[str]:
        """Lay down something that looks like an installer: nothing boots it here."""
        directory = self.base / "installer"
        if not directory.exists():
            directory.mkdir()
            parts = {"vmlinuz": b"kernel" * 1000, "base.cpio.zst": b"base" * 1000, "drivers-vm.cpio.zst": b"vm" * 1000}
            layers = []
            for name, content in parts.items():
                (directory / name).write_bytes(content)
                if name != "vmlinuz":
                    layers.append(
                        LayerFacts(name.removesuffix(".cpio.zst"), digest(content).hex(), len(content), 10_000)
                    )
            manifest = Manifest("6.1.0-test", digest(parts["vmlinuz"]).hex(), 1 << 20, tuple(layers))
            (directory / "installer.json").write_bytes(msgspec.json.encode(manifest))
        return ["--installer", str(directory)]

    def start(self) -> None:
        """Start and wait until every service is up."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.arguments(), stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("CLONER READY"), self.log.read_text()

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask the server to stop; return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def peak_rss_bytes(self) -> int:
        """Return the most memory the process that runs now had resident."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))

    def cpu_s(self) -> float:
        """Return the CPU time of the process that runs now."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc_pid_stat(5)

    def admin(self, method: str, path: str, **sent: Any) -> Any:
        """Send one request of an admin; return the decoded answer."""
        transport = httpx2.HTTPTransport(uds=str(self.socket), verify=False)  # no TLS here; its set-up costs most
        with httpx2.Client(transport=transport, base_url="http://c/v1", timeout=600) as client:
            answer = client.request(method, path, **sent)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def boot_script(self) -> str:
        """Ask for the boot script as iPXE does."""
        return self.where.boot_script(MAC)

    def fill(self) -> None:
        """Publish an image, upload a layout, add a node."""
        image = make_image(some_contents() | BOOTABLE)
        for segment in image.segments:
            path = f"/segments/{segment.ref.digest.hex()}"
            self.admin("PUT", path, params={"raw_size": len(segment.raw)}, content=compress(segment.raw))
        for pack in image.packs:
            self.admin("PUT", f"/packs/{pack.digest.hex()}", content=pack.stored)
        self.admin("POST", "/publish", content=msgspec.msgpack.encode(image.draft))
        self.admin("POST", "/layouts", content=msgspec.json.encode(parse_layout(LAYOUT)))
        self.admin("POST", "/nodes", json={"name": "n01", "macs": [MAC], "image": "golden", "layout": "simple"})


def node_of(served: Served) -> TalkingNode:
    """Return the first machine of a server."""
    ca = (served.base / "state/site/ca.pem").read_text()
    return TalkingNode(served.where, ca, facts(MAC))
