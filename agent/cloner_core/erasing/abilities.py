"""What a disk says it can do to erase itself: part of an inventory, and what the choice of a way rests on.

Everything here comes from the disk; an ability it does not tell of is one it does not have.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Minutes = Annotated[int, Meta(ge=0, le=1 << 16)]


class NvmeAbilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of an NVMe namespace and its controller: NVM Express Base Specification 2.0, figure 275 (Identify Controller)."""

    subsystem: Annotated[str, Meta(max_length=256)] = ""  # NQN; disks with the same one share their media
    namespaces: Annotated[int, Meta(ge=0, le=1 << 32)] = 0  # of the whole subsystem, attached or not; 0 unknown
    can_sanitize_block: bool = False
    can_sanitize_crypto: bool = False
    can_format: bool = False
    can_format_crypto: bool = False
    is_format_of_all: bool = False  # a format, or a secure erase by it, reaches every namespace


class AtaAbilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of an ATA disk: ACS-4, the Security feature set, and TRIM."""

    is_supported: bool = False
    is_enabled: bool = False  # a password is set
    is_locked: bool = False
    is_frozen: bool = False  # the firmware took the feature away until power is cut
    is_enhanced: bool = False  # ENHANCED SECURITY ERASE UNIT is offered
    minutes: Minutes = 0  # told for SECURITY ERASE UNIT; 0 not told
    enhanced_minutes: Minutes = 0
    is_zero_after_trim: bool = False  # RZAT: deterministic zeroes after TRIM


class EraseAbilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one disk, by its path in the same inventory."""

    path: Annotated[str, Meta(max_length=128)]
    can_discard: bool = False
    nvme: NvmeAbilities | None = None  # None: no NVMe device, or it did not answer
    ata: AtaAbilities | None = None  # None: no ATA disk, or it did not answer
