"""The inventory from the agent's side: told once, its failure told too, then a restart; and only what reads is run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec

from agentbench.runner import FakeRunner, reads
from agentbench.sysfs import Sysfs
from cloner_agent.client import Endpoint, Transport
from cloner_agent.console import Console
from cloner_agent.discover import Surroundings, discover
from cloner_agent.host import Runner
from cloner_agent.probe import probe
from cloner_agent.protocol import ServerFault
from cloner_agent.site import BootArguments, Trust
from cloner_core.errors import UnreachableError
from cloner_core.facts import Facts
from cloner_core.messages import Discovered, DiscoverFailure, Fault, Hello

ARGUMENTS = BootArguments("10.0.0.1", 8443, "c" * 40, "52:54:00:00:00:01", is_debug=False, is_discover=True)


class _Server(Transport):
    def __init__(self, refusal: Exception | None = None) -> None:
        super().__init__(Endpoint("10.0.0.1", 8443, ""))
        self.refusal = refusal
        self.told: list[tuple[str, bytes]] = []

    def request(self, method: str, path: str, body: bytes = b"", **_: Any) -> bytes:
        self.told.append((path, body))
        if self.refusal is not None:
            raise self.refusal
        return msgspec.json.encode(Discovered("n01"))


def _run(machine: Sysfs, server: _Server, *, breaks: bool = False) -> tuple[str, list[str], FakeRunner]:
    said, done, runner = io.StringIO(), [], FakeRunner()

    def look(run: Runner, *, boot_mac: str = "") -> Facts:
        if breaks:
            raise OSError(5, "Input/output error")
        return probe(run, boot_mac=boot_mac, root=str(machine.root), properties=lambda _: {}, addresses=dict)

    surroundings = Surroundings(
        run=runner,
        probe=look,
        reboot=lambda: done.append("reboot"),
        sleep=lambda _: done.append("shown"),
        transport=lambda endpoint, patience_s: server,
    )
    discover(Console(said), ARGUMENTS, Trust("", b""), surroundings)
    return said.getvalue(), done, runner


def _machine(tmp_path: Path) -> Sysfs:
    sysfs = Sysfs(tmp_path)
    sysfs.disk("vda", "254:0", at="pci0000:00/0000:00:04.0/virtio2", serial="golden-1")
    sysfs.partition("vda", "vda1", "254:1")
    return sysfs


def test_the_facts_are_told_and_the_machine_restarts(tmp_path: Path) -> None:
    server = _Server()
    said, done, _ = _run(_machine(tmp_path), server)
    ((path, body),) = server.told
    hello = msgspec.json.decode(body, type=Hello)
    assert path == "/agent/v1/discover"
    assert (hello.claim, hello.facts.boot_mac) == (ARGUMENTS.claim, ARGUMENTS.boot_mac)
    assert [disk.serial for disk in hello.facts.disks] == ["golden-1"]
    assert done == ["reboot"]
    assert "n01: inventory told; disks: /dev/vda (golden-1" in said
    assert ARGUMENTS.claim not in said


def test_only_programs_that_read_are_run(tmp_path: Path) -> None:
    _, _, runner = _run(_machine(tmp_path), _Server())
    assert runner.ran, "the disk was looked into"
    assert [argv for argv in runner.ran if not reads(argv)] == []


def test_a_machine_that_cannot_be_looked_at_says_so_and_restarts(tmp_path: Path) -> None:
    server = _Server()
    said, done, _ = _run(_machine(tmp_path), server, breaks=True)
    ((path, body),) = server.told
    assert path == "/agent/v1/discover/fail"
    assert "Input/output error" in msgspec.json.decode(body, type=DiscoverFailure).message
    assert done == ["shown", "reboot"]
    assert "CLONER FAILED" in said


def test_a_server_that_refuses_or_is_away_does_not_keep_the_machine(tmp_path: Path) -> None:
    refusal = ServerFault(401, Fault("the claim is unknown or expired"))
    for number, fault in enumerate((refusal, UnreachableError("10.0.0.1 did not answer"))):
        (tmp_path / str(number)).mkdir()
        server = _Server(fault)
        said, done, _ = _run(_machine(tmp_path / str(number)), server)
        assert [path for path, _ in server.told] == ["/agent/v1/discover", "/agent/v1/discover/fail"]
        assert done == ["shown", "reboot"]
        assert fault.message in said
