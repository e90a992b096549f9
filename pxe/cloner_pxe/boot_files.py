"""What TFTP hands out: loaders, the script newer iPXE looks for, and GRUB's files, made when asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

from cloner_core.errors import ClonerError
from cloner_pxe.decision import BootPolicy
from cloner_pxe.directory import Lookup
from cloner_pxe.http import grub_answer
from cloner_pxe.scripts import chain_to_server
from cloner_pxe.tftp import Content

log = logging.getLogger(__name__)

AUTOEXEC = "autoexec.ipxe"
_ANSWER_S = 2.0


def tftp_files(policy: BootPolicy, loaders: Mapping[str, Path]) -> dict[str, Content]:
    """Return the list TFTP serves: the loaders found, and `autoexec.ipxe`."""
    return {**loaders, AUTOEXEC: chain_to_server(policy.http_base).encode()}


class GrubFiles:
    """Makes `grub/grub.cfg` and `grub/nodes/MAC.cfg` for TFTP's thread, asking the server's state in its own loop.

    Called from the TFTP thread; must be made inside the running loop.
    """

    def __init__(self, directory: Lookup) -> None:
        self._directory = directory
        self._loop = asyncio.get_running_loop()

    def __call__(self, name: str, address: str) -> bytes | None:
        """Return the bytes of `name`; None when it is no file of GRUB's, or cannot be made now."""
        if not (name == "grub/grub.cfg" or name.startswith("grub/nodes/")) or self._loop.is_closed():
            return None
        waiting = asyncio.run_coroutine_threadsafe(grub_answer(name.removeprefix("grub/"), self._directory), self._loop)
        try:
            answer = waiting.result(_ANSWER_S)
        except (FutureTimeout, CancelledError, ClonerError) as fault:
            waiting.cancel()
            log.error("no %s for %s: %s", name, address, fault)
            return None
        return answer.body if answer.status == 200 else None
