"""Answers netboot from the server's state: the node behind a MAC, the claim for its agent, its timeline."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from cloner_core.admin.nodes import NodeView
from cloner_core.admin.tasks import TaskState
from cloner_core.errors import RefusedError, UnreachableError
from cloner_core.messages import Cause
from cloner_core.sightings import BootStep
from cloner_pxe.decision import (
    LOCAL_ANSWERS_AN_HOUR,
    AnyAnswer,
    BootOrder,
    BootPolicy,
    LocalMethod,
    Netboot,
    NodeBoot,
    Script,
    ScriptKind,
    decide,
)
from cloner_pxe.dhcp_leases import Reservation
from cloner_pxe.events import Asker, EventKind, NetbootEvent
from cloner_pxe.request import BootRequest, Route
from cloner_pxe.scripts import AgentBoot
from cloner_server.backlog import give_back, take_all
from cloner_server.confirming import LOCAL_ANSWER
from cloner_server.core import Core
from cloner_server.installer import Installer
from cloner_server.offering import offer_for
from cloner_server.state import events, leases, machines, nodes, sightings
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act, DatabaseBusyError
from cloner_server.tasks import discovery, endings, waiting
from cloner_server.tasks.claims import mint_claim
from cloner_server.tasks.states import CLAIMABLE, Happening

log = logging.getLogger(__name__)

_HOUR_S = 3600.0
DISCOVER_ARGUMENT = "cloner.discover=1"
"""Has the agent tell its facts and restart; `cloner_agent.site` reads it."""
WAIT_ARGUMENT = "cloner.wait=1"
"""Has the agent wait for a multicast session."""
_SCRIPT_ROUTES = (Route.HTTP_SCRIPT, Route.GRUB_CFG)
_KEPT_EVENTS = 1000  # until they are written; a flood on the wire must not fill the database
_QUIET = (EventKind.OFFER, EventKind.ACK, EventKind.RELEASE, EventKind.TFTP_START)
_STEPS = {EventKind.TFTP_START: BootStep.LOADER}
_STEP_OF_ASKER = {
    Asker.FIRMWARE: BootStep.DHCP_FIRMWARE,
    Asker.IPXE: BootStep.DHCP_IPXE,
    Asker.SYSTEM: BootStep.DHCP_SYSTEM,
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """One step of a boot, by the card's MAC or, where the route does not tell it, by the address alone."""

    step: BootStep
    mac: str
    address: str
    time_s: float = field(compare=False)


@dataclass(slots=True)
class _Told:
    """An event of the wire; whether the audit admits it is asked once, for each question counts."""

    event: NetbootEvent
    is_admitted: bool | None = None


@dataclass(frozen=True, slots=True)
class News:
    """What the wire has shown and is to be written."""

    seen: list[_Seen]
    relayed: list[NetbootEvent]
    told: list[_Told]


@dataclass(frozen=True, slots=True)
class BootDesk:
    """Implements what DHCP, TFTP and boot HTTP ask of the server."""

    core: Core
    policy: BootPolicy
    installer: Installer | None  # None: this server offers no agent
    server_url: str  # https://ADDRESS:8443, as nodes reach it
    network: ipaddress.IPv4Network | None = None
    kernel_arguments: tuple[str, ...] = ("console=tty0", "console=ttyS0", "panic=-1")
    _told: deque[_Told] = field(default_factory=lambda: deque(maxlen=_KEPT_EVENTS))
    _relayed: deque[NetbootEvent] = field(default_factory=lambda: deque(maxlen=_KEPT_EVENTS))
    _seen: deque[_Seen] = field(default_factory=lambda: deque(maxlen=_KEPT_EVENTS))

    async def lookup(self, mac: str, request: BootRequest) -> AnyAnswer:
        """Return what `request` gets; a script that is served is noted in the timeline."""
        if request.route in _SCRIPT_ROUTES:
            try:
                return await asyncio.to_thread(self._script, mac, request)
            except (DBAPIError, DatabaseBusyError) as fault:
                # A disk that is full keeps nothing in the timeline; a node in `local` must find its disk all the same.
                log.error("the timeline cannot be written: %s", getattr(fault, "orig", fault))
        return await asyncio.to_thread(self._look, mac, request)

    async def reservation(self, mac: str) -> Reservation | None:
        """Return the fixed address of a machine: the static one of its node's interface in our network."""
        return await asyncio.to_thread(self._reservation, mac)

    async def agent_boot(self, mac: str, request: BootRequest) -> AgentBoot:
        """Mint a claim and return the parts of the agent's boot; raises ClonerError when that cannot be now."""
        try:
            return await asyncio.to_thread(self._agent_boot, mac)
        except DBAPIError as fault:
            raise UnreachableError(f"no claim can be kept now: {fault.orig}") from fault

    def emit(self, event: NetbootEvent) -> None:
        """Take one event of the wire for housekeeping to write. Called from several threads."""
        if event.kind in _STEPS or event.asker is not None:
            step = _STEPS.get(event.kind) or _STEP_OF_ASKER[event.asker or Asker.SYSTEM]
            self.saw(step, mac=event.mac, address=event.address)
        if event.kind is EventKind.RELAY:  # apart: machines without number may ask, and alarms must not be pushed out
            self._relayed.append(event)
        elif event.kind not in _QUIET:
            self._told.append(_Told(event))

    def saw(self, step: BootStep, *, mac: str = "", address: str = "") -> None:
        """Take one step of a machine's boot for housekeeping to write. Called from several threads."""
        self._seen.append(_Seen(step, mac, address, self.core.clock()))

    @contextmanager
    def news(self) -> Iterator[News]:
        """Give what was taken since the last time; a block that raises gives it back, to be written later."""
        news = News(take_all(self._seen), take_all(self._relayed), take_all(self._told))
        try:
            yield news
        except BaseException:
            give_back(self._seen, news.seen)
            give_back(self._relayed, news.relayed)
            give_back(self._told, news.told)
            raise

    def record(self, connection: Connection, act: Act, news: News) -> None:
        """Write events and steps."""
        for one in {one: one for one in news.seen}.values():  # the last of each
            if name := nodes.name_of_mac(connection, one.mac or leases.mac_of(connection, one.address)):
                sightings.record(connection, Act(act.author, one.time_s), name, one.step, one.address)
        for event in {event.mac: event for event in news.relayed}.values():  # the last word of each machine
            if name := nodes.name_of_mac(connection, event.mac):
                nodes.remember_relay(connection, act, name, event.address)
        for told in news.told:
            event = told.event
            node = nodes.find_by_mac(connection, event.mac) if event.mac else None
            obj = f"node/{node.name}" if node else f"machine/{event.mac or event.address or 'unknown'}"
            alarm = event.kind in (EventKind.ALARM, EventKind.OTHER_DHCP, EventKind.POOL_EMPTY)
            is_ours = event.kind is EventKind.OTHER_DHCP and not event.mac  # answered our own probe
            source, is_known = event.mac or event.address, node is not None or is_ours
            if told.is_admitted is None:
                kind = event.kind.value
                told.is_admitted = self.core.audit.admit(act.now_s, source, kind, is_alarm=alarm, is_known=is_known)
            if not told.is_admitted:
                continue
            detail: dict[str, Any] = {"alarm": alarm, "is_network": True, "text": event.text}
            if is_ours:  # which asks once a minute
                seldom: dict[str, Any] = {"most": 1, "within_s": _HOUR_S}
                events.record_seldom(connection, act, obj, event.kind.value, **seldom, **detail)
            else:
                events.record(connection, act, obj, event.kind.value, **detail)

    @property
    def has_news(self) -> bool:
        """Whether there is something to write."""
        return bool(self._told or self._relayed or self._seen)

    def _look(self, mac: str, request: BootRequest) -> AnyAnswer:
        with self.core.database.read() as connection:
            node = nodes.find_by_mac(connection, mac) if mac else None
            return decide(self._state_of(connection, node, mac), request, self.policy)

    def _script(self, mac: str, request: BootRequest) -> AnyAnswer:
        act = self.core.act("boot")
        with self.core.database.write() as connection:
            node = nodes.find_by_mac(connection, mac)
            answer = decide(self._state_of(connection, node, mac), request, self.policy)
            if not isinstance(answer, Script):
                return answer
            obj = f"node/{node.name}" if node else f"machine/{mac}"
            what = LOCAL_ANSWER if answer.kind is ScriptKind.LOCAL else f"boot {answer.kind.value}"
            alarm = bool(answer.alarm)
            # What may be a boot loop is counted by its events, and its task fails at the fourth.
            is_counted = what == LOCAL_ANSWER and node is not None and self._unconfirmed(connection, node) is not None
            if is_counted or self.core.audit.admit(act.now_s, mac, what, is_alarm=alarm, is_known=node is not None):
                events.record(connection, act, obj, what, alarm=alarm, is_network=True, why=answer.why, mac=mac)
            if node is not None:
                step = BootStep.LOCAL if answer.kind is ScriptKind.LOCAL else BootStep.SCRIPT
                sightings.record(connection, act, node.name, step)
            if node is not None and answer.kind is ScriptKind.LOCAL:
                self._check_loop(connection, act, node)
            return answer

    def _state_of(self, connection: Connection, node: NodeView | None, mac: str) -> NodeBoot | None:
        if node is None:
            is_allowed = bool(mac) and machines.netboot_of(connection, mac) == Netboot.DISCOVER
            return NodeBoot(name=mac, netboot=Netboot.DISCOVER) if is_allowed else None
        live = rows.live_task(connection, node.name)
        known = nodes.last_facts(connection, node.name)
        offer = offer_for(self.core, connection, node.name, live.image if live is not None else node.image)
        return NodeBoot(
            name=node.name,
            netboot=Netboot(node.netboot),
            has_live_task=live is not None and TaskState(live.state) in CLAIMABLE,
            is_held=live is not None and TaskState(live.state) not in CLAIMABLE,
            local_method=LocalMethod(node.local_method),
            boot_order=BootOrder(node.boot_order),
            unconfirmed_local_answers_last_hour=self._local_answers(connection, node),
            memory_bytes=known[0].memory_bytes if known else None,
            agent_memory_bytes=offer.needed_bytes if offer.build else None,
        )

    def _unconfirmed(self, connection: Connection, node: NodeView) -> rows.AnyRow | None:
        """Return the task of `node` whose clone has not confirmed yet; None when there is none."""
        live = rows.live_task(connection, node.name)
        return live if live is not None and TaskState(live.state) is TaskState.UNCONFIRMED else None

    def _local_answers(self, connection: Connection, node: NodeView) -> int:
        """Count local answers since the receipt of an unconfirmed task, within the hour; 0 when there is none."""
        live = self._unconfirmed(connection, node)
        if live is None:
            return 0
        # The receipt by its place in the audit, not by its time: the clock may have been set back meanwhile.
        receipt = events.last_id_of(connection, f"task/{live.id}", Happening.RECEIPT.value)
        since_s = self.core.clock() - _HOUR_S
        return events.count_since(connection, f"node/{node.name}", LOCAL_ANSWER, since_s, after=receipt)

    def _check_loop(self, connection: Connection, act: Act, node: NodeView) -> None:
        seen = self._local_answers(connection, node)
        live = rows.live_task(connection, node.name)
        if seen > LOCAL_ANSWERS_AN_HOUR and live is not None:
            message = f"boot loop: sent to its disk {seen} times within an hour, and never confirmed"
            hint = "look at its console: the clone does not boot; its disk and boot entry are in the receipt"
            endings.fail_clone(connection, act, live, cause=Cause.BOOT_LOOP, message=message, hint=hint)

    def _reservation(self, mac: str) -> Reservation | None:
        with self.core.database.read() as connection:
            node = nodes.find_by_mac(connection, mac)
        if node is None or self.network is None:
            return None
        for interface in node.network.interfaces:
            for text in interface.addresses if interface.mac == mac else ():
                address = ipaddress.ip_interface(text).ip
                if address.version == 4 and address in self.network:
                    return Reservation(address=str(address), hostname=node.network.hostname)
        return None

    def file_of(self, kind: str, key: str) -> Path | None:
        """Return the kernel or initramfs that a boot script named by `key`; None when it is no longer offered."""
        usual = self.installer
        if usual is not None and (kind, key) == ("kernel", usual.kernel_key):
            return usual.kernel
        if usual is not None and (kind, key) == ("initramfs", usual.initramfs_key):
            return usual.initramfs
        return self.core.shelf.file_of(kind, key) if self.core.shelf else None

    def _installer_of(self, mac: str, usual: Installer) -> Installer:
        with self.core.database.read() as connection:
            node = nodes.find_by_mac(connection, mac)
            live = rows.live_task(connection, node.name) if node else None
            image = live.image if live is not None else node.image if node else ""
            build = offer_for(self.core, connection, node.name if node else "", image).build
        return self.core.shelf.installer(build) if self.core.shelf and build else usual

    def _agent_boot(self, mac: str) -> AgentBoot:
        if self.installer is None:
            raise RefusedError("this server has no installer", hint="cloner serve --installer DIR")
        installer = self._installer_of(mac, self.installer)  # may have to be put together, which takes its time
        with self.core.database.write() as connection:
            node, act, rules = nodes.find_by_mac(connection, mac), self.core.act("boot"), self.core.rules
            more: tuple[str, ...] = ()
            if node is None or Netboot(node.netboot) is Netboot.DISCOVER:
                token, more = discovery.mint_claim(connection, act, mac, rules), (DISCOVER_ARGUMENT,)
            elif Netboot(node.netboot) is Netboot.CLONER_MULTICAST and rows.live_task(connection, node.name) is None:
                token, more = waiting.mint_claim(connection, act, node.name, rules), (WAIT_ARGUMENT,)
            else:
                token = mint_claim(connection, act, node.name, rules)
        base = self.policy.http_base
        return AgentBoot(
            # The MAC names who asks: with a site's own DHCP the address alone would not.
            kernel_url=f"{base}/boot/kernel/{installer.kernel_key}?mac={mac.replace(':', '-')}",
            initramfs_url=f"{base}/boot/initramfs/{installer.initramfs_key}?mac={mac.replace(':', '-')}",
            server_url=self.server_url,
            claim=token,
            arguments=(*self.kernel_arguments, *more),
        )
