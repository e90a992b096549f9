"""What BIOS starts: a stub until the commit, GRUB's core image and boot code from then on.

Must not choose a place: the plan has them. A disk is written in whole sectors, made durable, and read back.
"""

from __future__ import annotations

import logging
import os

from cloner_agent.attempt import Attempt
from cloner_agent.confined import FILES, Program
from cloner_agent.failures import StageError
from cloner_agent.rooted import Rooted
from cloner_core.biosboot import CODE_BYTES, SECTOR_BYTES, boot_sector, embedded_core, stub_sector
from cloner_core.bootfiles import CoreImage
from cloner_core.bootfiles.bios import CONFIG
from cloner_core.errors import InvalidError
from cloner_core.messages import Cause
from cloner_core.sizes import format_bytes
from cloner_core.steps import BiosBoot, BiosPlace, BiosStub

log = logging.getLogger(__name__)

_MKIMAGE_S = 120.0
_CORE_BYTES = 16 << 20


def put_stub(attempt: Attempt, action: BiosStub) -> None:
    """Have BIOS go on to the network from this disk: power may be cut at any time from here to the commit."""
    current = _read(action.disk, 0, SECTOR_BYTES)
    _write(action.disk, 0, stub_sector(current))


def make_core(attempt: Attempt, core: CoreImage) -> None:
    """Have the image's own grub-mkimage make the core image in the clone, behind walls.

    Raises StageError (NOT_BOOTABLE) when it cannot.
    """
    argv = tuple(word.replace("{files}", FILES) for word in core.argv)
    program = Program(argv, timeout_s=_MKIMAGE_S, files={CONFIG: core.config})
    ended = attempt.tools.confine(attempt.tools.target, program)
    if not ended.is_good:
        raise StageError(
            Cause.NOT_BOOTABLE,
            f"{argv[0]} of the image {ended.tell()}: {' / '.join(ended.last_lines[-3:]) or 'it said nothing'}",
            hint="reinstall GRUB for BIOS on the golden node (Debian: grub-pc-bin) and capture again",
        )


def make_bootable(attempt: Attempt, action: BiosBoot) -> None:
    """Embed the core image on every disk, and only then write boot code, the last sector of a deploy."""
    core_path, boot_path = attempt.record.bios
    with Rooted(attempt.tools.target) as tree:
        core = tree.read(core_path, limit_bytes=_CORE_BYTES)
        boot_image = tree.read(boot_path, limit_bytes=SECTOR_BYTES)
    try:
        contents = {place: embedded_core(core, place.first_sector) for place in action.places}
        for place, content in contents.items():
            _check_room(place, len(content))
        for place, content in contents.items():
            _write_back(attempt, place.disk, place.first_sector * SECTOR_BYTES, content, "the core image")
        for place in action.places:
            wanted = boot_sector(_read(place.disk, 0, SECTOR_BYTES), boot_image, place.first_sector)
            _write_back(attempt, place.disk, 0, wanted, f"the boot code ({CODE_BYTES} bytes)")
    except InvalidError as error:
        raise StageError(Cause.NOT_BOOTABLE, error.message) from error
    log.info("BIOS starts GRUB from %s", ", ".join(place.disk for place in action.places))


def _check_room(place: BiosPlace, size: int) -> None:
    room = place.sectors * SECTOR_BYTES
    if size > room:
        raise StageError(
            Cause.NOT_BOOTABLE,
            f"GRUB's core image has {format_bytes(size)} and {place.disk} has room for {format_bytes(room)}",
            hint="make the bios-boot partition larger, or let the first partition begin at 1MiB",
        )


def _write_back(attempt: Attempt, disk: str, offset: int, content: bytes, what: str) -> None:
    _write(disk, offset, content)
    attempt.tools.machine.drop_caches()
    if _read(disk, offset, len(content)) != content:
        raise StageError(Cause.READBACK, f"{what} on {disk} is not as it was written")


def _write(disk: str, offset: int, content: bytes) -> None:
    fd = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.pwrite(fd, content, offset) != len(content):
            raise StageError(Cause.DISK_IO, f"{disk} took fewer bytes than were written at {offset}")
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(disk: str, offset: int, size: int) -> bytes:
    fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)
