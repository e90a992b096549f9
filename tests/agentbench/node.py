"""A machine with one loop disk, and a deploy that can be run on it; only the network is false."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import msgspec

from agentbench.loop import LoopDisk, NodePrograms
from agentbench.scene import facts, layout, task
from agentbench.store_server import StoreServer
from cloner_agent.attempt import Tools
from cloner_agent.console import Console
from cloner_agent.deploy import Deploy
from cloner_agent.efivars import EfiVars
from cloner_agent.failures import failure_of
from cloner_agent.machine import Machine
from cloner_agent.probe import probe
from cloner_agent.reporter import Reporter
from cloner_core.efi import LoadOption, build_load_option, build_order
from cloner_core.errors import ClonerError
from cloner_core.facts import Facts
from cloner_core.layout import Layout
from cloner_core.messages import BeatReply, Failure, HelloReply, HostKey, Secret, Vaulted

MACHINE_ID = "0123456789abcdef0123456789abcdef"
PXE = LoadOption("UEFI PXEv4", bytes.fromhex("030b2500") + bytes(33) + bytes.fromhex("7fff0400"))
DISK = LoadOption("UEFI Misc Device", bytes.fromhex("02010c00d041030a000000000101060000027fff0400"))
VAULTED = Vaulted(
    machine_id=MACHINE_ID,
    host_keys=(
        HostKey(
            "ed25519",
            Secret("-----BEGIN OPENSSH PRIVATE KEY-----\nNODE01\n-----END OPENSSH PRIVATE KEY-----\n"),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDdUYXJhbnR1bGFUYXJhbnR1bGFUYXJhbnR1bGFU",
        ),
    ),
    random_seed=Secret("5a" * 512),
)


class Rebooted(Exception):
    """Stands for the restart, from which a real deploy does not return."""


@dataclass
class Node:
    """A machine with one loop disk, its firmware variables, a server, and a deploy that can be run."""

    server: StoreServer
    programs: NodePrograms
    disk: LoopDisk
    spare: LoopDisk  # seen by the deploy when named in `others`
    target: Path
    efivars: Path
    layout: Layout
    changes: dict[str, Any]
    order: BeatReply = field(default_factory=BeatReply)
    server_key: bytes = b""
    others: tuple[str, ...] = ()
    screen: TextIO = field(default_factory=io.StringIO)
    machine: Machine = field(default_factory=Machine)  # all but the restart, from which nobody could return
    variables: type[EfiVars] = EfiVars

    def probe(self) -> Facts:
        """Tell the truth about the disk, and say the machine is a UEFI one with a serial number on it."""
        names = {self.disk.name, *self.others}
        found = probe(self.programs, disk_names=names.__contains__).disks
        mine = [
            msgspec.structs.replace(d, serial="CL1" if d.path == self.disk.device else "X", is_mounted=False)
            for d in found
        ]
        return facts(*mine)

    def deploy(self) -> Failure | None:
        """Run it; None when it came to the restart."""
        one = task(self.layout, version=self.server.ref, **self.changes)
        self.server.hello_reply = HelloReply(Secret("c"), one, 0.0, 1.0)
        self.server.vault = VAULTED

        def reboot() -> None:
            raise Rebooted

        reporter = Reporter(Console(self.screen), order=lambda: self.order)
        tools = Tools(
            server=self.server,
            run=self.programs,
            reporter=reporter,
            probe=self.probe,
            packs=lambda _: self.server,
            server_key=self.server_key or self.server.key.public_key,
            machine=dataclasses.replace(self.machine, reboot=reboot),
            target=str(self.target),
            efivars=self.variables(self.efivars),
            workers=2,
        )
        deploy = Deploy(tools, claim="claim", public_key=bytes(32))
        try:
            deploy.run()
        except Rebooted:
            return None
        except (ClonerError, OSError) as error:
            return failure_of(error, reporter.stage, is_destroyed=deploy.record.is_destroyed)
        raise AssertionError("a deploy returned")


def make_node(directory: Path, server: StoreServer, disk: LoopDisk, spare: LoopDisk, target: Path) -> Node:
    """Return a machine that was started by PXE for its disk does not boot; its variables lie in `directory`."""
    efivars = directory / "efivars"
    efivars.mkdir()
    variables = EfiVars(efivars)
    variables.write("Boot0004", build_load_option(PXE))
    variables.write("Boot0001", build_load_option(DISK))
    variables.write("BootOrder", build_order((1, 4)))
    variables.write("BootCurrent", build_order((4,)))
    return Node(server, NodePrograms(directory / "esp"), disk, spare, target, efivars, layout(), {})
