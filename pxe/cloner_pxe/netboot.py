"""All of netboot on one interface, as the server starts and stops it: DHCP, router advertisements, TFTP.

HTTP is not here: the server's own web server mounts `cloner_pxe.http.answer_http`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

from cloner_core.errors import ClonerError
from cloner_pxe.decision import BootPolicy
from cloner_pxe.dhcp import DhcpConfig, DhcpServer
from cloner_pxe.dhcp_leases import LeaseStore
from cloner_pxe.dhcp_service import DhcpService
from cloner_pxe.directory import BootDirectory
from cloner_pxe.events import EventSink, NetbootEvent
from cloner_pxe.http import grub_answer
from cloner_pxe.loaders import DEBIAN_FOLDERS, find_loaders
from cloner_pxe.router import RouterService
from cloner_pxe.scripts import chain_to_server
from cloner_pxe.tftp import TftpService

log = logging.getLogger(__name__)

_GRUB_CFG_S = 2.0


class NetbootService:
    """Netboot on one interface, from `start` to `stop`, inside a running asyncio loop.

    `emit` is called in that loop, whatever thread an event comes from.
    """

    def __init__(
        self,
        interface: str,
        *,
        policy: BootPolicy,
        dhcp: DhcpConfig,
        directory: BootDirectory,
        leases: LeaseStore,
        emit: EventSink,
        loader_folders: Iterable[Path] = DEBIAN_FOLDERS,
    ) -> None:
        self._interface = interface
        self._policy = policy
        self._directory = directory
        self._emit = emit
        self._folders = tuple(loader_folders)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.dhcp = DhcpService(interface, DhcpServer(dhcp, leases), directory, emit)
        self.router = RouterService(interface)
        self.tftp: TftpService | None = None

    async def start(self, *, beside_another: bool = False) -> None:
        """Serve; raises NotFoundError for missing loaders and RefusedError as DhcpService and TftpService do.

        When it raises, nothing is left running.
        """
        self._loop = asyncio.get_running_loop()
        files = find_loaders(self._policy.offered_files - {"autoexec.ipxe"}, self._folders)
        self.tftp = TftpService(
            {**files, "autoexec.ipxe": chain_to_server(self._policy.http_base).encode()},
            self._emit_from_thread,
            dynamic=self._grub_cfg,
            interface=self._interface,
        )
        try:
            await self.dhcp.start(beside_another=beside_another)
            self.tftp.start()
        except ClonerError:
            await self.stop()
            raise
        self.router.start()

    async def stop(self) -> None:
        """Stop everything; the ports are free when it returns."""
        self.router.stop()
        await self.dhcp.stop()
        if self.tftp is not None:
            # In a thread: the TFTP thread may be waiting for this very loop.
            await asyncio.to_thread(self.tftp.stop)

    def _emit_from_thread(self, event: NetbootEvent) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._emit, event)

    def _grub_cfg(self, name: str, address: str) -> bytes | None:
        """Called in the TFTP thread: signed GRUB asks for /grub/grub.cfg and the file of its node."""
        if self._loop is None or not (name == "grub/grub.cfg" or name.startswith("grub/nodes/")):
            return None
        waiting = asyncio.run_coroutine_threadsafe(grub_answer(name.removeprefix("grub/"), self._directory), self._loop)
        try:
            answer = waiting.result(_GRUB_CFG_S)
        except (FutureTimeout, CancelledError, ClonerError) as fault:
            waiting.cancel()
            log.error("no grub.cfg for %s: %s", address, fault)
            return None
        return answer.body if answer.status == 200 else None
