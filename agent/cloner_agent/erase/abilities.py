"""Asks each disk how it can be erased: sysfs, the NVMe controller, ATA IDENTIFY. Writes nothing.

A disk that does not answer has no abilities; must not guess.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloner_agent.host import Runner, ToolError
from cloner_core.erasing.abilities import AtaAbilities, EraseAbilities, NvmeAbilities
from cloner_core.facts import Disk

log = logging.getLogger(__name__)

_ASK_S = 30.0
_SECURITY = re.compile(r"^Security:.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_FLAG = re.compile(r"^\s+(not)?\s*(supported: enhanced erase|supported|enabled|locked|frozen)\s*$", re.MULTILINE)
_MINUTES = re.compile(r"(\d+)min for (ENHANCED )?SECURITY ERASE UNIT")
_ZEROES = "Deterministic read ZEROs after TRIM"
_FORMAT_NVM = 1 << 1  # OACS, Optional Admin Command Support
_FORMAT_ALL, _ERASE_ALL, _CRYPTO = 1 << 0, 1 << 1, 1 << 2  # FNA, Format NVM Attributes
_SANITIZE_CRYPTO, _SANITIZE_BLOCK = 1 << 0, 1 << 1  # SANICAP


def ask_abilities(run: Runner, disks: Sequence[Disk], *, root: str = "/") -> tuple[EraseAbilities, ...]:
    """Return the abilities of each disk with a medium; `root` stands before /sys."""
    return tuple(_of_disk(run, Path(root), disk) for disk in disks if disk.size_bytes)


def _of_disk(run: Runner, base: Path, disk: Disk) -> EraseAbilities:
    queue = base / "sys/block" / disk.path.removeprefix("/dev/") / "queue"
    nvme = ata = None
    try:
        if disk.bus == "nvme":
            nvme = _nvme(run, disk.path)
        elif disk.bus == "ata":
            ata = parse_identify(run(("hdparm", "-I", disk.path), timeout_s=_ASK_S).stdout)
    except (ToolError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: how it can erase itself is not known: %s", disk.path, error)
    return EraseAbilities(disk.path, can_discard=_number(queue / "discard_max_bytes") > 0, nvme=nvme, ata=ata)


def _nvme(run: Runner, path: str) -> NvmeAbilities:
    told = read_json(run, ("nvme", "id-ctrl", path, "--output-format=json"))
    sanitize, format_, attributes = int(told["sanicap"]), int(told["oacs"]), int(told["fna"])
    return NvmeAbilities(
        subsystem=str(told.get("subnqn") or told["sn"]).strip()[:256],
        namespaces=_namespaces(run, path),
        can_sanitize_block=bool(sanitize & _SANITIZE_BLOCK),
        can_sanitize_crypto=bool(sanitize & _SANITIZE_CRYPTO),
        can_format=bool(format_ & _FORMAT_NVM),
        can_format_crypto=bool(format_ & _FORMAT_NVM and attributes & _CRYPTO),
        is_format_of_all=bool(attributes & (_FORMAT_ALL | _ERASE_ALL)),
    )


def _namespaces(run: Runner, path: str) -> int:
    """Count all namespaces, or the attached ones where the controller keeps no others; 0 when it tells neither."""
    for options in (("--all",), ()):
        try:
            told = read_json(run, ("nvme", "list-ns", path, *options, "--output-format=json"))
            return len(told["nsid_list"])
        except (ToolError, ValueError, KeyError) as error:
            log.debug("%s: %s", path, error)
    return 0


def parse_identify(text: str) -> AtaAbilities:
    """Return what `hdparm -I` prints of security and TRIM."""
    section = _SECURITY.search(text)
    said = section[0] if section else ""
    flags = {name: not negated for negated, name in _FLAG.findall(said)}
    minutes = {bool(enhanced): min(int(count), 1 << 16) for count, enhanced in _MINUTES.findall(said)}
    zeroes = next((line for line in text.splitlines() if _ZEROES in line), "")
    return AtaAbilities(
        is_supported=flags.get("supported", False),
        is_enabled=flags.get("enabled", False),
        is_locked=flags.get("locked", False),
        is_frozen=flags.get("frozen", False),
        is_enhanced=flags.get("supported: enhanced erase", False),
        minutes=minutes.get(False, 0),
        enhanced_minutes=minutes.get(True, 0),
        is_zero_after_trim=zeroes.lstrip().startswith("*"),
    )


def read_json(run: Runner, argv: tuple[str, ...]) -> dict[str, Any]:
    """Return the object a program prints; raises ValueError when it is none."""
    told = json.loads(run(argv, timeout_s=_ASK_S).stdout)
    if not isinstance(told, dict):
        raise ValueError(f"{argv[0]} {argv[1]} told {type(told).__name__}, no object")
    return told


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
