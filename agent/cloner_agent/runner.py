"""Puts one attempt together on a real node: server, heartbeat, deploy, and the ending when it fails.

Only wiring; a test of the order uses `Deploy` with other tools.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloner_agent.attempt import Tools
from cloner_agent.board import Board
from cloner_agent.bundle import Gatherer, LogTail
from cloner_agent.client import Endpoint, Transport
from cloner_agent.console import Console
from cloner_agent.deploy import Deploy
from cloner_agent.ending import Ending
from cloner_agent.failures import failure_of
from cloner_agent.hardware import Hardware
from cloner_agent.heartbeat import Heartbeat
from cloner_agent.logqueue import LogQueue
from cloner_agent.neighbors import Neighbors
from cloner_agent.packs import HttpsPackSource
from cloner_agent.protocol import Interrupt
from cloner_agent.reporter import Reporter
from cloner_agent.screens import Screens
from cloner_agent.session import HttpsServer
from cloner_agent.site import BootArguments, Trust
from cloner_agent.version import agent_version
from cloner_core.atrest import CaptureReply
from cloner_core.erasing.words import EraseReply
from cloner_core.facts import Facts
from cloner_core.messages import BeatReply, Cause, Failure, HelloReply

if TYPE_CHECKING:
    from cloner_agent.capture.sink import CaptureSink

log = logging.getLogger(__name__)


def run_attempt(console: Console, arguments: BootArguments, trust: Trust, hardware: Hardware) -> None:
    """Run one attempt to its restart, shown on every screen; returns only when the restart did."""
    board = console.board or Board()
    board.server(f"{arguments.host}:{arguments.port}")
    # Before the key is made: who draws, or talks to strangers, shall not have it.
    with hardware.screens(board) as screens:
        _run(console, arguments, trust, hardware, board=board, screens=screens)


def _run(
    console: Console, arguments: BootArguments, trust: Trust, hardware: Hardware, *, board: Board, screens: Screens
) -> None:
    machine = hardware.machine
    # Made on the node, never written: whoever reads the credential off a screen cannot use it.
    key = Ed25519PrivateKey.generate()
    endpoint = Endpoint(arguments.host, arguments.port, trust.ca_pem)
    server = HttpsServer(endpoint, key, patience_s=hardware.patience_s)
    reporter = Reporter(console)
    logs = LogQueue()
    logging.getLogger().addHandler(logs)
    tail = LogTail()
    logging.getLogger().addHandler(tail)
    gatherer = Gatherer(hardware.run, hardware.efivars, tail, kernel_log=hardware.kernel_log, screen=board.text)
    gatherer.hide(arguments.claim)
    beats: list[Heartbeat] = []

    listening: list[Neighbors] = []

    def look() -> Facts:
        facts = hardware.probe(hardware.run, boot_mac=arguments.boot_mac)
        gatherer.see(facts)
        if not listening:  # from now on: a switch tells of itself every 30 s, and some deploys are not much longer
            listening.append(Neighbors(facts.nics, boot_mac=facts.boot_mac))
        return facts

    def explain(failure: Failure) -> None:
        server.bundle(gatherer.bundle(failure, agent_version=agent_version()))

    def accepted(reply: HelloReply | EraseReply | CaptureReply) -> None:
        gatherer.hide(*_secrets_of(reply))
        board.task(reply.task)
        if reply.console is not None:
            gatherer.hide(reply.console.host_key.value, reply.console.password.digest)
            screens.open_console(reply.console)
        if hardware.set_clock(reply.server_time_s):
            server.trust_clock()
        heartbeat = Heartbeat(
            server,
            reply.beat_every_s,
            logs,
            explain=explain,
            neighbors=listening[0].heard,
            console=screens.report,
        )
        heartbeat.start()
        beats.append(heartbeat)
        reporter.follow(heartbeat.show, heartbeat.order)
        # After the start: the heartbeat's own copy of the server must not be interrupted.
        server.interrupted_by(reporter.check)

    reboot = _after_beats(beats, machine.reboot)

    tools = Tools(
        server=server,
        run=hardware.run,
        reporter=reporter,
        probe=look,
        packs=lambda task: HttpsPackSource(
            server.endpoint, server.credential, task.version.digest, partial(Transport, patience_s=hardware.patience_s)
        ),
        sink=lambda: _sink(server, hardware.patience_s, reporter.check),
        server_key=trust.server_key,
        machine=replace(machine, reboot=reboot, power_off=_after_beats(beats, machine.power_off)),
        accepted=accepted,
        target=hardware.target,
        efivars=hardware.efivars,
        workers=hardware.workers,
        stop_holders=hardware.stop_holders,
        wait_for_device=hardware.wait_for_device,
    )
    public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    deploy = Deploy(tools, claim=arguments.claim, public_key=public_key)
    try:
        deploy.run()
    except Exception as error:  # noqa: BLE001 — whatever it is, the server must hear of it
        failure = failure_of(error, reporter.stage, is_destroyed=deploy.record.is_destroyed)
        if failure.cause is Cause.INTERNAL:
            # Names and lines, no values: nothing secret can be in it.
            log.error("%s", "".join(traceback.format_tb(error.__traceback__)))
        server.interrupted_by(lambda: None)
        failure = gatherer.with_disk(failure)
        Ending(
            server,
            console,
            order=beats[0].order if beats else BeatReply,
            reboot=reboot,
            explain=explain,
            sleep=hardware.sleep,
        ).end(failure)


def _sink(server: HttpsServer, patience_s: float, interrupt: Interrupt) -> CaptureSink:
    from cloner_agent.atrest.sink import HttpsSink

    credentials, attempt = server.attempt
    return HttpsSink(
        server.endpoint, credentials, attempt, partial(Transport, patience_s=patience_s, interrupt=interrupt)
    )


def _after_beats(beats: list[Heartbeat], end: Callable[[], None]) -> Callable[[], None]:
    """Return what ends the machine by `end`, once the last beat was sent."""

    def act() -> None:
        for heartbeat in beats:
            heartbeat.stop()
        end()

    return act


def _secrets_of(reply: HelloReply | EraseReply | CaptureReply) -> tuple[str, ...]:
    confirm = reply.task.confirm if isinstance(reply, HelloReply) else None
    return (reply.credential.value, *(() if confirm is None else (confirm.secret.value,)))
