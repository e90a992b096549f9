"""A real relay between a real server and machines behind it: its wire has the data, the uplink has it once."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentbench.ground import ground
from cloner_core.errors import ExitStatus
from cloner_core.image.packmap import decode_map
from netns.multicast_room import Room
from netns.multicast_yard import LINK, Yard, yard
from netns.netboot_lab import inside
from serverbench.served import START

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(280)]

_MIB = 1 << 20
_UPLINK = "up0"
_HEAD, _RELAY = "10.80.0.1", "10.80.0.2"


def _ip(*argv: str) -> str:
    return subprocess.run(("ip", *argv), check=True, capture_output=True, text=True).stdout


@dataclass
class Rack(Room):
    """A room behind a machine that routes, and is its relay."""

    directory: Path = field(kw_only=True)
    rate: str = field(kw_only=True)
    relay: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the relay, and wait until the server has answered it."""
        self.relay = self.launch(self.fingerprint())
        assert self.relay.stdout is not None
        line = self.relay.stdout.readline()
        assert line.startswith("CLONER RELAY READY name=rack3"), (self.directory / "relay.log").read_text()

    def launch(self, fingerprint: str) -> subprocess.Popen[str]:
        token = self.directory / "relay.token"
        if not token.exists():
            token.touch(0o600)
            token.write_text(self.made.served.admin("POST", "/tokens", json={"relay": "rack3"})["token"])
        words = {
            "--server": f"{_HEAD}:{self.made.served.tls}",
            "--name": "rack3",
            "--token-file": str(token),
            "--fingerprint": fingerprint,
            "--interface": LINK,
            "--cache": str(self.directory / "cache"),
            "--rate": self.rate,
        }
        argv = [sys.executable, "-c", START, "relay", *(word for pair in words.items() for word in pair)]
        with inside(self.links.of(0)), (self.directory / "relay.log").open("a") as log:
            return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, stdin=subprocess.DEVNULL)

    def fingerprint(self) -> str:
        return hashlib.sha256((self.made.served.state / "site/ca.pem").read_bytes()).hexdigest()

    def kill(self) -> None:
        assert self.relay is not None
        self.relay.kill()
        self.relay.wait()

    def stop(self) -> None:
        if self.relay is not None and self.relay.poll() is None:
            self.kill()

    def begin(self, **words: Any) -> str:
        return super().begin(**{"relay": "rack3"} | words)

    def came_bytes(self) -> int:
        """Return what has come over the uplink into the rack: to the relay, and to nodes."""
        [told] = json.loads(_ip("-n", self.links.of(0), "-s", "-json", "link", "show", _UPLINK))
        return int(told["stats64"]["rx"]["bytes"])

    def damage_last_pack(self) -> None:
        """Change a byte of the pack that would be sent last."""
        [file] = (self.directory / "cache/maps").glob("*/map")
        pack = self.directory / "cache/packs" / decode_map(file.read_bytes()).packs[-1].digest.hex()
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)

    def require_exact(self) -> None:
        """Require that the biggest file of each clone is that of the golden machine."""
        golden = max(self.made.golden.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
        for one in self.machines:
            root = one.machine.disk.filesystem("ext4")
            assert root is not None
            assert (root / golden.relative_to(self.made.golden)).read_bytes() == golden.read_bytes()


@contextmanager
def routed(links: Yard) -> Iterator[str]:
    """Give the namespace of the server: its only way to the machines is through number 0, which routes."""
    head, relay = f"{links.name}-head", links.of(0)
    with ExitStack() as stack:
        _ip("netns", "add", head)
        stack.callback(_ip, "netns", "delete", head)
        _ip("-n", head, "link", "add", _UPLINK, "type", "veth", "peer", "name", _UPLINK, "netns", relay)
        for name, address in ((head, _HEAD), (relay, _RELAY)):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", _UPLINK)
            for link in (_UPLINK, "lo"):
                _ip("-n", name, "link", "set", link, "up")
        _ip("-n", head, "route", "add", "10.79.0.0/24", "via", _RELAY)
        for number in range(1, links.count):
            _ip("-n", links.of(number), "route", "add", "default", "via", links.address(0))
        subprocess.run(("ip", "netns", "exec", relay, "sysctl", "-qw", "net.ipv4.ip_forward=1"), check=True)
        yield head


@contextmanager
def racked(tmp_path: Path, machines: int, big_bytes: int, rate: str) -> Iterator[Rack]:
    with (
        yard(machines) as links,
        routed(links) as head,
        inside(head),
        ground(tmp_path, address=_HEAD, big_bytes=big_bytes, interface=_UPLINK) as made,
    ):
        for number in range(1, machines + 1):
            made.add().namespace = links.of(number)
        rack = Rack(made, links, directory=tmp_path, rate=rate)
        try:
            yield rack
        finally:
            rack.stop()


def test_a_rack_has_it_by_multicast_and_the_uplink_carries_it_once(tmp_path: Path) -> None:
    with racked(tmp_path, 4, 32 * _MIB, "200Mbit") as rack:
        rack.start()
        three = [one.machine.name for one in rack.machines[:3]]
        last = rack.machines.pop()
        rack.wait_called()
        before = rack.came_bytes()
        name = rack.begin(nodes=three)
        notes = rack.finish()
        came = rack.came_bytes() - before
        rack.until(lambda: rack.session(name)["state"] == "ended", "the session goes on")
        session = rack.session(name)
        count, data_bytes = session["parcels"], session["data_bytes"]
        assert (session["relay"], session["interface"]) == ("rack3", LINK)
        assert notes == [f"{count} of {count} packs came by multicast"] * 3
        assert data_bytes > 32 * _MIB
        assert data_bytes <= came < 1.2 * data_bytes
        rack.require_exact()
        rack.machines[:] = [last]
        rack.wait_called()
        before = rack.came_bytes()
        second = rack.begin(nodes=[last.machine.name])
        assert rack.finish() == [f"{count} of {count} packs came by multicast"]
        assert rack.came_bytes() - before < 0.2 * data_bytes, "all of it was there"
        assert rack.session(second)["parcels"] == count
        [listed] = rack.made.served.admin("GET", "/relays")
        assert (listed["is_present"], listed["interface"], listed["network"]) == (True, LINK, "10.79.0.1/24")
        assert listed["cache_used_bytes"] >= data_bytes - 4 * count


@pytest.mark.parametrize("is_damaged", [False, True], ids=["", "damaged"])
def test_a_relay_that_is_killed_and_started_again_goes_on(tmp_path: Path, is_damaged: bool) -> None:
    with racked(tmp_path, 2, 24 * _MIB, "40Mbit") as rack:
        rack.start()
        rack.wait_called()
        name = rack.begin()
        rack.until_written(name)
        rack.kill()
        if is_damaged:
            rack.damage_last_pack()
        rack.made.yard.wait(1)
        rack.start()
        notes = rack.finish()
        session = rack.session(name)
        count = session["parcels"]
        assert notes == [f"{count} of {count} packs came by multicast"] * 2
        assert session["epochs"] == (3 if is_damaged else 2), "one more ends at what it cannot read, which is mended"
        rack.require_exact()


def test_nodes_of_a_relay_that_is_gone_go_on_over_https_and_know_why(tmp_path: Path) -> None:
    with racked(tmp_path, 2, 24 * _MIB, "20Mbit") as rack:
        rack.start()
        rack.wait_called()
        name = rack.begin()
        rack.until_written(name)
        rack.kill()
        notes = rack.finish()
        assert all("relay rack3 has not been heard of for 40 s" in note for note in notes), notes
        assert not any(note.startswith("0 of") for note in notes)
        assert rack.session(name)["state"] == "failed"
        rack.require_exact()


def test_a_relay_talks_to_nobody_with_another_ca(tmp_path: Path) -> None:
    with racked(tmp_path, 0, _MIB, "20Mbit") as rack:
        other = rack.launch("ab" * 32)
        assert other.wait(60) == ExitStatus.INTEGRITY
        assert "shows a CA with SHA-256" in (tmp_path / "relay.log").read_text()
        rack.start()
        assert rack.relay is not None
        rack.relay.send_signal(signal.SIGTERM)
        assert rack.relay.wait(20) == ExitStatus.OK
        token = rack.made.served.admin("GET", "/tokens")[0]["id"]
        rack.start()
        rack.made.served.admin("DELETE", f"/tokens/{token}")
        assert rack.relay.wait(60) == ExitStatus.REFUSED, "its token was withdrawn"
