"""`cloner serve` as it runs on a site: its own DHCP, TFTP and HTTP on one interface, a client across a bridge."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.netboot_lab import CLIENT_LINK, inside, lab_with_client
from vmlab.lab import BRIDGE, SERVER_ADDRESS, Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]
START = "import sys; from cloner_cli.main import main; sys.exit(main())"
BOUND = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace $ip/24 dev $interface
echo "$ip $siaddr $boot_file" >"$0.got"
"""


class Site:
    """A served lab: the server, and what the client and the command line do to it."""

    def __init__(self, server: Lab, client: Lab) -> None:
        self.server, self.client = server, client
        self.process: subprocess.Popen[bytes] | None = None
        self.socket = server.directory / "s.sock"

    def arguments(self, *more: str) -> list[str | Path]:
        file = self.server.directory / "server.toml"
        file.write_text(f'state = "{self.server.directory}/state"\nsocket = "{self.socket}"\n')
        return [sys.executable, "-c", START, "serve", "--config", file, "--interface", BRIDGE, *more]

    def start(self, *more: str) -> None:
        """Start and wait for the socket; the probe for other DHCP servers takes three seconds."""
        self.process = self.server.popen(self.arguments(*more))
        self.wait(lambda: self.socket.exists() and self.is_answering())

    def is_answering(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0 and bool(self.cloner("status"))

    def cloner(self, *arguments: str) -> str:
        """Run one command of the command line."""
        command = [sys.executable, "-c", START, "--socket", str(self.socket), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def curl(self, url: str) -> str:
        return self.client.run(["curl", "-sS", "--max-time", "20", url])

    def lease(self, *more: str) -> list[str]:
        """Get an address as a machine does; return it, the next server, and the boot file."""
        script = self.client.directory / "bound"
        got = Path(f"{script}.got")
        got.unlink(missing_ok=True)
        script.write_text(BOUND)
        script.chmod(0o755)
        self.client.run(["busybox", "udhcpc", "-i", CLIENT_LINK, "-f", "-q", "-n", "-T", "1", "-s", script, *more])
        return got.read_text().split()

    @staticmethod
    def wait(condition: object, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.1)


@pytest.fixture
def site() -> Iterator[Site]:
    with lab_with_client() as (server, client):
        made = Site(server, client)
        yield made
        if made.process is not None and made.process.poll() is None:
            server.stop(made.process)


def mac_of(client: Lab) -> str:
    link = json.loads(client.run(["ip", "-json", "link", "show", CLIENT_LINK]))
    return str(link[0]["address"])


def test_a_machine_gets_address_loader_and_script_from_one_command(site: Site) -> None:
    site.start("--dhcp", "10.77.0.100-10.77.0.120")
    mac = mac_of(site.client)
    address, next_server, boot_file = site.lease("-V", "PXEClient:Arch:00007:UNDI:003016", "-x", "0x5d:0007")
    assert address.startswith("10.77.0.1")
    assert (next_server, boot_file) == (SERVER_ADDRESS, "snponly.efi")
    loader = Path("/usr/lib/ipxe/snponly.efi").read_bytes()
    fetched = site.client.directory / "loader"
    site.client.run(["curl", "-sS", "-o", fetched, f"tftp://{SERVER_ADDRESS}/snponly.efi"])
    assert fetched.read_bytes() == loader
    script = site.curl(f"http://{SERVER_ADDRESS}:8080/boot/ipxe?mac={mac}&platform=efi")
    assert script.rstrip().endswith("exit 1")
    site.cloner("node", "add", "n01", "--mac", mac)
    assert "netboot is local" in site.curl(f"http://{SERVER_ADDRESS}:8080/boot/ipxe?mac={mac}&platform=efi")
    site.lease("-V", "PXEClient:Arch:00007:UNDI:003016", "-x", "0x5d:0007")
    site.client.run(["curl", "-sS", "-o", fetched, f"tftp://{SERVER_ADDRESS}/snponly.efi"])
    site.lease()  # as an operating system
    steps = {"dhcp-firmware", "loader", "local", "dhcp-system"}
    site.wait(lambda: steps <= set(site.cloner("node", "show", "n01").split()))
    events = site.cloner("events")
    assert "n01" in events
    assert f"machine/{mac}" in events


def test_a_lease_outlives_the_server(site: Site) -> None:
    site.start("--dhcp", "10.77.0.100-10.77.0.120")
    first = site.lease()[0]
    assert site.process is not None
    site.process.kill()
    site.process.wait()
    site.start("--dhcp", "10.77.0.100-10.77.0.120")
    assert site.lease()[0] == first


def test_beside_another_dhcp_server_it_does_not_start_though_a_dhcp_client_holds_the_port(site: Site) -> None:
    site.start("--dhcp", "10.77.0.100-10.77.0.120")
    # A second server, across the bridge where the client is.
    site.client.run(["ip", "address", "add", "10.77.0.2/24", "dev", CLIENT_LINK])
    with inside(site.client.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as dhclient has it, for all interfaces
        client.bind(("", 68))
        own = [str(part) for part in site.arguments("--dhcp", "10.77.0.130-10.77.0.140")]
        own[own.index(BRIDGE)] = CLIENT_LINK
        file = Path(site.client.directory) / "server.toml"
        file.write_text(f'state = "{site.client.directory}/state"\nsocket = "{site.client.directory}/s.sock"\n')
        own[own.index("--config") + 1] = str(file)
        done = subprocess.run(own, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert SERVER_ADDRESS in done.stderr
    assert "Traceback" not in done.stderr
    assert "CLONER READY" not in done.stdout
