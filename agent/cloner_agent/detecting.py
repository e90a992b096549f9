"""Asks the tools of a machine what its disks hold and carry; what they say becomes a layout in `cloner_core.detection`.

Must not write, mount, assemble or open anything, nor judge what it hears.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cloner_agent.blockdevices import Properties, list_disks, mapped_name
from cloner_agent.host import Runner, ToolError
from cloner_agent.probe import udev_properties
from cloner_agent.signatures import LVM_CONFIG
from cloner_core import detection
from cloner_core.detection import ArrayTold, Block, BtrfsTold, Told
from cloner_core.fstab import entries

log = logging.getLogger(__name__)

OVERLAY = "cloner-over-"
"""How mappings begin that stand before members of arrays, so that nothing is written to these; no part of a layout."""

_TOOL_S = 60.0
_DEVICE_LINE = re.compile(r"^(MD_DEVICE_\S+_DEV)=(.*)$", re.MULTILINE)
_NOT_ASKED = re.compile(r"(ram|zram|sr|fd)[0-9]")
_BLKID_FOUND = (0, 2, 8)  # something, nothing, more than one thing
_MAX_TEXT_BYTES = 1 << 20
# not --readonly: it asks nobody which volumes are active
_REPORT = ("--reportformat", "json", "--units", "b", "--nosuffix", "--config", LVM_CONFIG)


def ask(
    run: Runner,
    *,
    tree: str = "/",
    root: str = "/",
    properties: Properties | None = None,
    disk_names: Callable[[str], bool] | None = None,
) -> Told:
    """Return what the tools of this machine say of its disks.

    `tree` is where the system is mounted that the layout is for; `root` stands before /sys and /proc. The callables
    replace udev, and what is a disk.
    """
    base, system = Path(root), Path(tree)
    lsblk, blkid = _listed(run)
    blocks = detection.parse_blocks(lsblk, blkid)
    mounts = _said(run, "findmnt", "--json", "--list", "--output", detection.FINDMNT_COLUMNS)
    has_lvm = any(block.filesystem == "LVM2_member" for block in blocks.values())
    fstab = _bytes(system / "etc/fstab")
    swaps = _bytes(base / "proc/swaps").decode(errors="replace") if tree == "/" else ""
    return Told(
        disks=list_disks(run, properties or udev_properties(), root=root, names=disk_names),
        lsblk=lsblk,
        blkid=blkid,
        arrays={
            block.path: _array(run, base, block.path)
            for block in blocks.values()
            if os.path.basename(block.path).startswith("md") and block.kind != "part"
        },
        logical=_said(run, "lvm", "lvs", *_REPORT, "-o", detection.LVS_FIELDS) if has_lvm else "",
        groups=_said(run, "lvm", "vgs", *_REPORT, "-o", detection.VGS_FIELDS) if has_lvm else "",
        physical=_said(run, "lvm", "pvs", *_REPORT, "-o", detection.PVS_FIELDS) if has_lvm else "",
        luks={
            block.path: _said(run, "cryptsetup", "luksDump", "--dump-json-metadata", block.path)
            for block in blocks.values()
            if block.filesystem == "crypto_LUKS"
        },
        btrfs=_btrfs(run, mounts, {block.path: block.uuid for block in blocks.values()}),
        mounts=mounts,
        fstab=fstab,
        crypttab=_bytes(system / "etc/crypttab").decode(errors="replace"),
        swapfiles=_swap_files(system, fstab, swaps),
        root=tree,
    )


def look_at_blocks(run: Runner, disks: Sequence[str]) -> dict[str, Block]:
    """Return `disks` and everything that lies on them by path, with what is recognised there."""
    return detection.parse_blocks(*_listed(run, disks)) if disks else {}


def _listed(run: Runner, disks: Sequence[str] = ()) -> tuple[str, str]:
    """Return what lsblk and blkid say of `disks` and of what lies on them; of all there are when none is named."""
    lsblk = _said(run, "lsblk", "--json", "--bytes", "--output", detection.LSBLK_COLUMNS, *disks)
    if OVERLAY in lsblk:
        shown = json.loads(lsblk, strict=False)
        lsblk = json.dumps(shown | {"blockdevices": _seen_through(shown.get("blockdevices", []))})
    return lsblk, _blkid(run, detection.parse_blocks(lsblk))


def _seen_through(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return devices as they are without overlays: what lies on one lies on the device beneath it."""
    found: list[dict[str, Any]] = []
    for row in rows:
        children = _seen_through(row.get("children") or [])
        found += children if str(row.get("name", "")).startswith(OVERLAY) else [row | {"children": children}]
    return found


def _said(run: Runner, *argv: str, accept: Sequence[int] = (0,)) -> str:
    """Return what a tool says; nothing when it is missing or fails, which leaves what it knows untold."""
    try:
        return run(argv, timeout_s=_TOOL_S, accept=accept).stdout
    except ToolError as error:
        log.warning("not told: %s", error)
        return ""


def _blkid(run: Runner, blocks: Mapping[str, Block]) -> str:
    """Return what lies on the devices, read from themselves; blkid would end at the first that is blank."""
    paths = (block.path for block in blocks.values() if block.size_bytes and not _NOT_ASKED.match(block.name))
    return "\n".join(_said(run, "blkid", "--probe", "--output", "export", path, accept=_BLKID_FOUND) for path in paths)


def _array(run: Runner, base: Path, path: str) -> ArrayTold:
    sysfs = base / "sys/block" / path.removeprefix("/dev/") / "md"
    export = _DEVICE_LINE.sub(partial(_beneath, base), _said(run, "mdadm", "--detail", "--export", path))
    return ArrayTold(export, _number(sysfs / "chunk_size"), _number(sysfs / "layout"))


def _beneath(base: Path, line: re.Match[str]) -> str:
    """Return a line of mdadm with the device beneath an overlay in place of it."""
    name = mapped_name(base, line[2].rpartition("/")[2])
    return f"{line[1]}=/dev/{name.removeprefix(OVERLAY)}" if name.startswith(OVERLAY) else line[0]


def _btrfs(run: Runner, mounts: str, uuids: Mapping[str, str]) -> dict[str, BtrfsTold]:
    """Return what is told of each btrfs that is mounted, by UUID; any of its mounts tells all."""
    found: dict[str, BtrfsTold] = {}
    for mounted in detection.parse_mounts(mounts):
        uuid = uuids.get(mounted.source, "")
        if mounted.filesystem == "btrfs" and uuid and uuid not in found:
            found[uuid] = BtrfsTold(
                subvolumes=_said(run, "btrfs", "subvolume", "list", mounted.target),
                snapshots=_said(run, "btrfs", "subvolume", "list", "-s", mounted.target),
                default=_said(run, "btrfs", "subvolume", "get-default", mounted.target),
                asked=mounted.within.strip("/"),
            )
    return found


def _swap_files(system: Path, fstab: bytes, swaps: str) -> dict[str, int]:
    """Return the size of each swap file of the system that is there, whether in use or only in fstab."""
    named: Sequence[str] = [entry.device for entry in entries(fstab) if entry.kind == "swap"]
    files = dict.fromkeys((*detection.parse_swap_files(swaps), *named))
    found = {}
    for path in files:
        if path.startswith("/") and not path.startswith("/dev/"):
            place = system / path.lstrip("/")
            if place.is_file():
                found[path] = place.stat().st_size
    return found


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TEXT_BYTES)
    except OSError:
        return b""


def _number(path: Path) -> int:
    text = _bytes(path).strip()
    return int(text) if text.isdigit() else 0
