"""Boot code for BIOS as bytes: GRUB's boot sector and core image as they lie on a disk, and the stub before them.

A codec and nothing more; where the core goes is the plan's. Sources: GRUB 2.06 include/grub/i386/pc/boot.h,
util/setup.c; BIOS Boot Specification 1.01 §6.7.2 (int 18h: this device cannot boot, try the next).
"""

from __future__ import annotations

import struct

from cloner_core.errors import InvalidError

SECTOR_BYTES = 512
CODE_BYTES = 440
"""Of the first sector; behind it lie the disk's signature, the partition table and 55 AA."""
SIGNATURE = b"\x55\xaa"

_KERNEL_SECTOR, _BOOT_DRIVE, _DRIVE_CHECK = 0x5C, 0x64, 0x66
_BLOCK_LIST = struct.Struct("<QHH")  # first sector, sectors, segment
_BLOCK_LIST_AT = SECTOR_BYTES - _BLOCK_LIST.size
_SEGMENT = 0x820  # where diskboot.img loads what is behind it: 0x8000 + one sector
_STUB = b"\xcd\x18\xf4\xeb\xfd"  # int 18h; should it come back: hlt, and again


def stub_sector(current: bytes) -> bytes:
    """Return the first sector `current` with code that has the BIOS go on to its next device, the network.

    A sector with 55 AA and no code is executed all the same: SeaBIOS hangs in it.
    """
    _require(current)
    return _STUB.ljust(CODE_BYTES, b"\0") + current[CODE_BYTES:-2] + SIGNATURE


def boot_sector(current: bytes, boot_image: bytes, core_sector: int) -> bytes:
    """Return the first sector `current` with GRUB's `boot_image` (boot.img), which loads the core at `core_sector`."""
    _require(current)
    if len(boot_image) != SECTOR_BYTES or boot_image[-2:] != SIGNATURE:
        raise InvalidError("boot.img is not the boot sector of GRUB for BIOS")
    code = bytearray(boot_image[:CODE_BYTES])
    struct.pack_into("<Q", code, _KERNEL_SECTOR, core_sector)
    code[_BOOT_DRIVE] = 0xFF  # the drive that the BIOS says it started
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"  # some say a floppy drive when they started a disk
    return bytes(code) + current[CODE_BYTES:-2] + SIGNATURE


def embedded_core(core: bytes, first_sector: int) -> bytes:
    """Return GRUB's core image as it lies on a disk from `first_sector` on, in whole sectors.

    Raises InvalidError when `core` is no core image for disks.
    """
    sectors = -(-len(core) // SECTOR_BYTES)
    if sectors < 2 or sectors > 0xFFFF:
        raise InvalidError(f"a core image of {len(core)} bytes cannot be loaded")
    _, promised, segment = _BLOCK_LIST.unpack_from(core, _BLOCK_LIST_AT)
    if (promised, segment) != (sectors - 1, _SEGMENT):
        raise InvalidError("the core image does not begin with GRUB's loader for disks (diskboot.img)")
    whole = bytearray(core.ljust(sectors * SECTOR_BYTES, b"\0"))
    # The list grows downwards and ends at an entry of no sectors, which is what lies before the only one.
    _BLOCK_LIST.pack_into(whole, _BLOCK_LIST_AT, first_sector + 1, sectors - 1, _SEGMENT)
    return bytes(whole)


def _require(sector: bytes) -> None:
    if len(sector) != SECTOR_BYTES:
        raise InvalidError(f"a boot sector has {SECTOR_BYTES} bytes, not {len(sector)}")
