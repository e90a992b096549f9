"""Takes the inventory of the machine it runs on, tells it to the server, and restarts.

It writes to no disk and to no firmware variable: it imports nothing that could (import rules), and probing only reads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.client import PATIENCE_S, Endpoint, Transport
from cloner_agent.console import Console
from cloner_agent.failures import failure_of
from cloner_agent.host import Runner, run
from cloner_agent.machine import reboot
from cloner_agent.probe import probe
from cloner_agent.site import BootArguments, Trust
from cloner_agent.version import agent_version
from cloner_core.errors import ClonerError
from cloner_core.facts import Facts
from cloner_core.messages import PROTOCOL, Discovered, DiscoverFailure, Hello, Stage
from cloner_core.sizes import format_bytes

log = logging.getLogger(__name__)

_PATH = "/agent/v1/discover"
_SHOWN_S = 15.0  # a failure, at the machine, before the restart
_FAIL_PATIENCE_S = 60.0


class Probe(Protocol):
    """How the machine is looked at."""

    def __call__(self, run: Runner, *, boot_mac: str = "") -> Facts:
        """See `cloner_agent.probe.probe`."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine beneath, as seams."""

    run: Runner = run
    probe: Probe = probe
    reboot: Callable[[], None] = reboot
    patience_s: float = PATIENCE_S
    sleep: Callable[[float], None] = time.sleep
    transport: Callable[[Endpoint, float], Transport] = field(
        default=lambda endpoint, patience_s: Transport(endpoint, patience_s=patience_s)
    )


def discover(console: Console, arguments: BootArguments, trust: Trust, machine: Surroundings) -> None:
    """Tell the facts to the server, or why they cannot be told, and restart; returns only when the restart did."""
    # Made here and kept nowhere: it shows the server that a repeated request is of the same agent.
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    transport = machine.transport(Endpoint(arguments.host, arguments.port, trust.ca_pem), machine.patience_s)
    console.marker("DISCOVER")
    why = "inventory told"
    try:
        facts = machine.probe(machine.run, boot_mac=arguments.boot_mac)
        hello = Hello(PROTOCOL, agent_version(), arguments.claim, key, facts)
        answer = transport.request("POST", _PATH, msgspec.json.encode(hello))
        told = msgspec.json.decode(answer, type=Discovered)
        disks = [f"{disk.path} ({disk.serial or 'no serial'}, {format_bytes(disk.size_bytes)})" for disk in facts.disks]
        console.line(f"{told.name}: inventory told; disks: {', '.join(disks) or 'none'}")
    except Exception as error:  # noqa: BLE001 — whatever it is, the server must hear of it
        failure = failure_of(error, Stage.HELLO, is_destroyed=False)
        console.failed(failure)
        _tell(transport, DiscoverFailure(arguments.claim, key, failure.message, failure.hint))
        why = "no inventory"
        machine.sleep(_SHOWN_S)
    console.reboot(why)
    machine.reboot()


def _tell(transport: Transport, failure: DiscoverFailure) -> None:
    try:
        transport.request("POST", f"{_PATH}/fail", msgspec.json.encode(failure), patience_s=_FAIL_PATIENCE_S)
    except (ClonerError, OSError) as error:
        # Untold, the server ends the discovery by itself when its time is over.
        log.warning("the server did not take the failure: %s", error)
