"""The few effects on the running machine that are neither programs nor files of the target: sync, caches, restart.

Each is a field, so that a test restarts nothing.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from cloner_agent.flushing import sync_filesystem

log = logging.getLogger(__name__)

# include/uapi/linux/reboot.h, LINUX_REBOOT_CMD_…
_RESTART = 0x01234567
_POWER_OFF = 0x4321FEDC


def drop_caches() -> None:
    """Write back everything and forget page cache, entries and inodes, so that what is read next comes from disk."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3\n")
    except OSError as error:
        log.warning("caches not dropped (%s): each file is dropped alone", error.strerror)


def reboot() -> None:
    """Restart the machine at once; everything was unmounted and synced before. Needs CAP_SYS_BOOT."""
    _reboot(_RESTART)


def power_off() -> None:
    """Switch the machine off at once; as `reboot`."""
    _reboot(_POWER_OFF)


def _reboot(command: int) -> None:
    os.sync()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.reboot(ctypes.c_int(command)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "reboot(2)")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a deploy does to the machine as a whole."""

    sync: Callable[[], None] = os.sync  # of everything; says nothing of a write that fails
    sync_filesystem: Callable[[int], None] = sync_filesystem
    drop_caches: Callable[[], None] = drop_caches
    reboot: Callable[[], None] = reboot
    power_off: Callable[[], None] = power_off
