"""Waits for a multicast session: tells what the machine is, says that it is there, and does what the server answers.

It writes to no disk and to no firmware variable: it imports nothing that could (import rules), and probing only reads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from math import inf

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.client import Endpoint, Transport
from cloner_agent.console import Console
from cloner_agent.discover import Surroundings
from cloner_agent.failures import StageError, failure_of
from cloner_agent.site import BootArguments, Trust
from cloner_agent.version import agent_version
from cloner_core.decoding import UNREADABLE
from cloner_core.facts import Facts
from cloner_core.messages import PROTOCOL, Cause, Stage
from cloner_core.seats import HELD_S, CheckIn, WaitHello, WaitReply

log = logging.getLogger(__name__)

_PATH = "/agent/v1/wait"
_READ_S = HELD_S + 20  # an answer that was held, and a network that is slow
_SOONEST_S = 2.0  # between two check-ins, when the server holds none
_SAID_S = 60.0  # between two lines that say the same
_SHOWN_S = 15.0  # a failure, at the machine, before the restart


def wait_for_session(
    console: Console,
    arguments: BootArguments,
    trust: Trust,
    machine: Surroundings,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Return the claim of the task that the node is called to; restart the machine when it is to leave, or cannot wait.

    A server that is away is waited for, however long. After a restart that did not come it returns "".
    """
    console.marker("WAIT")
    try:
        reply = _obeyed(console, _replies(arguments, trust, machine, clock), clock)
        if reply.order == "go":
            if reply.claim is None:
                raise StageError(Cause.PROTOCOL, "the server calls this node to a task and gives it no claim")
            console.line(f"{reply.node}: called: {reply.text}")
            return reply.claim.value
        console.line(f"{reply.node}: waits no longer: {reply.text}")
        why = "waiting ended"
    except Exception as error:  # noqa: BLE001 — whatever it is, a person at the machine must see it
        console.failed(failure_of(error, Stage.HELLO, is_destroyed=False))
        machine.sleep(_SHOWN_S)
        why = "it cannot wait"
    console.reboot(why)
    machine.reboot()
    return ""


def _replies(
    arguments: BootArguments, trust: Trust, machine: Surroundings, clock: Callable[[], float]
) -> Iterator[WaitReply]:
    """Say hello, then check in for as long as somebody wants the answers."""
    # Made here and kept nowhere: it shows the server that a repeated request is of the same agent.
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    transport = machine.transport(Endpoint(arguments.host, arguments.port, trust.ca_pem), inf)
    facts = machine.probe(machine.run, boot_mac=arguments.boot_mac)
    hello = WaitHello(PROTOCOL, agent_version(), arguments.claim, key, facts, link_mbps=_link_mbps(facts))
    yield _asked(transport, _PATH, hello)
    message = CheckIn(arguments.claim, key)
    while True:
        began_s = clock()
        yield _asked(transport, f"{_PATH}/check-in", message)
        if (early_s := _SOONEST_S - (clock() - began_s)) > 0:
            machine.sleep(early_s)


def _obeyed(console: Console, replies: Iterator[WaitReply], clock: Callable[[], float]) -> WaitReply:
    """Return the first reply that has the node do anything but wait; show what it waits for."""
    since_s, said, said_s = 0.0, "", -inf
    for reply in replies:
        if reply.order != "wait":
            return reply
        since_s = since_s or reply.server_time_s
        if reply.text != said or clock() - said_s >= _SAID_S:
            said, said_s = reply.text, clock()
            since = time.strftime("%H:%M", time.gmtime(since_s))
            minutes = max(0.0, reply.server_time_s - since_s) / 60
            console.line(f"{reply.node}: waits since {since} UTC ({minutes:.0f} min): {reply.text}")
    raise AssertionError("there is always another reply")


def _asked(transport: Transport, path: str, message: WaitHello | CheckIn) -> WaitReply:
    answer = transport.request("POST", path, msgspec.json.encode(message), read_s=_READ_S)
    try:
        return msgspec.json.decode(answer, type=WaitReply)
    except UNREADABLE as error:
        raise StageError(
            Cause.PROTOCOL, f"the server's answer to a node that waits is not understood: {error}"
        ) from error


def _link_mbps(facts: Facts) -> int:
    return next((nic.speed_mbps for nic in facts.nics if nic.mac == facts.boot_mac), 0)
