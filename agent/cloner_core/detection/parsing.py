"""What the tools say, read into values. A line or a field that is not understood is left out.

Must not judge what is found.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.detection.told import BtrfsTold
from cloner_core.layout import Unlock

_SUBVOLUME = re.compile(r"^ID (\d+) gen \d+ .*?top level (\d+) .*?path (.+)$", re.MULTILINE)
_DEFAULT = re.compile(r"^ID (\d+)", re.MULTILINE)
_TOP_ID = 5  # BTRFS_FS_TREE_OBJECTID
_PCRS = range(24)


class Block(msgspec.Struct, frozen=True):
    """One block device as lsblk shows it."""

    path: str
    name: str  # of a mapping: what stands in /dev/mapper
    kind: str  # "disk", "part", "raid1", "lvm", "crypt", "mpath", "loop"
    size_bytes: int
    filesystem: str  # "" nothing known, or more than one thing
    uuid: str
    label: str
    part_uuid: str
    children: tuple[str, ...]  # paths of what lies on it


class ArraySeen(msgspec.Struct, frozen=True):
    """What mdadm tells of an array."""

    level: str
    metadata: str
    name: str  # without the name of its host
    size: int  # members it is made for
    members: tuple[str, ...]
    spares: tuple[str, ...]
    container: str  # that it lies in; "" none


class LogicalSeen(msgspec.Struct, frozen=True):
    """What LVM tells of a logical volume."""

    group: str
    name: str
    size_bytes: int
    kind: str  # "linear", "thin", "raid1"
    origin: str  # of a snapshot
    is_active: bool
    stripes: int


class GroupSeen(msgspec.Struct, frozen=True):
    """What LVM tells of a volume group."""

    name: str
    extent_bytes: int
    size_bytes: int
    free_bytes: int
    is_exported: bool
    missing: int  # physical volumes


class MountSeen(msgspec.Struct, frozen=True):
    """Something that is mounted now."""

    source: str
    target: str
    filesystem: str
    within: str  # the mount's root in its filesystem


class CryptEntry(msgspec.Struct, frozen=True):
    """A line of crypttab(5)."""

    name: str
    device: str
    key: str
    options: tuple[str, ...]


class Subvolumes(msgspec.Struct, frozen=True):
    """The subvolumes of a btrfs, by path from its top."""

    paths: tuple[str, ...]
    snapshots: frozenset[str]
    default: str  # "" is the top
    by_id: Mapping[int, str]


def parse_blocks(lsblk: str, blkid: str = "") -> dict[str, Block]:
    """Return the devices of `lsblk --json` by path, each once, with what `blkid --probe` recognised on them."""
    found: dict[str, Block] = {}
    contents = _contents(blkid)
    todo = _rows(_decoded(lsblk), "blockdevices")
    while todo:
        row = todo.pop(0)
        children = _rows(row, "children")
        todo += children
        path = _text(row, "path")
        before = found[path].children if path in found else ()
        found[path] = Block(
            path=path,
            name=_text(row, "name"),
            kind=_text(row, "type"),
            size_bytes=_number(row, "size"),
            filesystem=contents.get(path, {}).get("TYPE", ""),
            uuid=contents.get(path, {}).get("UUID", ""),
            label=contents.get(path, {}).get("LABEL", ""),
            part_uuid=contents.get(path, {}).get("PART_ENTRY_UUID", "").lower(),
            children=tuple(dict.fromkeys((*before, *(_text(child, "path") for child in children)))),
        )
    return found


def _contents(blkid: str) -> dict[str, dict[str, str]]:
    """Return what `blkid --output export` says by device; values have a backslash before what a shell would take."""
    found: dict[str, dict[str, str]] = {}
    for paragraph in blkid.split("\n\n"):
        pairs = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        if device := pairs.get("DEVNAME"):
            found[device] = {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs.items()}
    return found


def parse_array(export: str) -> ArraySeen:
    """Return what `mdadm --detail --export` says."""
    pairs = dict(line.split("=", 1) for line in export.splitlines() if "=" in line)
    members = {key: value for key, value in pairs.items() if key.startswith("MD_DEVICE_") and key.endswith("_DEV")}
    roles = {key: pairs.get(f"{key.removesuffix('_DEV')}_ROLE", "") for key in members}
    return ArraySeen(
        level=pairs.get("MD_LEVEL", ""),
        metadata=pairs.get("MD_METADATA", ""),
        name=pairs.get("MD_NAME", "").rpartition(":")[2] or pairs.get("MD_DEVNAME", ""),
        size=_number(pairs, "MD_DEVICES"),
        members=tuple(device for key, device in members.items() if roles[key].isdigit()),
        spares=tuple(device for key, device in members.items() if not roles[key].isdigit()),
        container=pairs.get("MD_CONTAINER", ""),
    )


def parse_logical(text: str) -> tuple[LogicalSeen, ...]:
    """Return the volumes of `lvs --reportformat json`."""
    return tuple(
        LogicalSeen(
            group=_text(row, "vg_name"),
            name=_text(row, "lv_name"),
            size_bytes=_number(row, "lv_size"),
            kind=_text(row, "segtype"),
            origin=_text(row, "origin"),
            is_active=_text(row, "lv_active") != "",
            stripes=_number(row, "stripes"),
        )
        for row in _report(text, "lv")
    )


def parse_groups(text: str) -> tuple[GroupSeen, ...]:
    """Return the groups of `vgs --reportformat json`."""
    return tuple(
        GroupSeen(
            name=_text(row, "vg_name"),
            extent_bytes=_number(row, "vg_extent_size"),
            size_bytes=_number(row, "vg_size"),
            free_bytes=_number(row, "vg_free"),
            is_exported=_text(row, "vg_exported") != "",
            missing=_number(row, "vg_missing_pv_count"),
        )
        for row in _report(text, "vg")
    )


def parse_physical(text: str) -> dict[str, str]:
    """Return the group of each physical volume of `pvs --reportformat json` by path; "" of one in no group."""
    return {_text(row, "pv_name"): _text(row, "vg_name") for row in _report(text, "pv")}


def parse_mounts(text: str) -> tuple[MountSeen, ...]:
    """Return the mounts of `findmnt --json --list`."""
    return tuple(
        MountSeen(
            source=_text(row, "source").partition("[")[0],  # "/dev/vda2[/@home]"
            target=_text(row, "target"),
            filesystem=_text(row, "fstype"),
            within=_text(row, "fsroot") or "/",
        )
        for row in _rows(_decoded(text), "filesystems")
    )


def parse_crypttab(text: str) -> tuple[CryptEntry, ...]:
    """Return the entries of a crypttab."""
    entries = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith("#"):
            name, device, key, options = (*fields, "", "")[:4]
            entries.append(CryptEntry(name, device, key, tuple(options.split(",")) if options else ()))
    return tuple(entries)


def parse_swap_files(swaps: str) -> tuple[str, ...]:
    """Return the paths of /proc/swaps that are files."""
    lines = (line.split() for line in swaps.splitlines()[1:])
    return tuple(_unescaped(fields[0]) for fields in lines if len(fields) > 1 and fields[1] == "file")


def parse_unlock(metadata: str) -> Unlock | None:
    """Return how the tokens of a LUKS2 header say that it is unlocked; None when they say nothing that a TPM does.

    The token of clevis holds a JWE, of which the header alone tells (RFC 7516 §3.1).
    """
    tokens = _decoded(metadata).get("tokens", {})
    for token in tokens.values() if isinstance(tokens, dict) else ():
        if not isinstance(token, dict):
            continue
        if token.get("type") == "systemd-tpm2":
            return Unlock("tpm2", _registers(token.get("tpm2-pcrs", [])))
        if token.get("type") == "clevis":
            clevis = _jose_header(token).get("clevis", {})
            if isinstance(clevis, dict) and clevis.get("pin") == "tpm2":
                told = clevis.get("tpm2", {})
                listed = told.get("pcr_ids", "") if isinstance(told, dict) else ""
                return Unlock("tpm2", _registers(re.findall(r"\d+", str(listed))))
    return None


def parse_subvolumes(told: BtrfsTold) -> Subvolumes:
    """Return the subvolumes that btrfs lists.

    Those inside the subvolume it was asked at have paths from there; all others have paths from the top, whatever they
    lie in (btrfs-progs, cmds/subvolume-list.c, resolve_root).
    """
    listed = {int(number): (int(top), path) for number, top, path in _SUBVOLUME.findall(told.subvolumes)}
    asked = next((number for number, (_, path) in listed.items() if told.asked and path == told.asked), None)

    def is_inside(number: int) -> bool:
        for _ in listed:
            number = listed[number][0]
            if number == asked or number not in listed:
                break
        return number == asked

    by_id = {
        number: f"{told.asked}/{path}" if asked is not None and is_inside(number) else path
        for number, (_, path) in listed.items()
    }
    snapshots = frozenset(by_id.get(int(number), path) for number, _, path in _SUBVOLUME.findall(told.snapshots))
    default = _DEFAULT.search(told.default)
    number = int(default[1]) if default else _TOP_ID
    return Subvolumes(tuple(by_id.values()), snapshots, by_id.get(number, ""), by_id)


def _registers(listed: Any) -> tuple[int, ...]:
    numbers = (int(one) for one in listed if str(one).isdigit()) if isinstance(listed, list) else ()
    return tuple(sorted({number for number in numbers if number in _PCRS}))


def _jose_header(token: Mapping[str, Any]) -> dict[str, Any]:
    jwe = token.get("jwe")
    protected = jwe.get("protected", "") if isinstance(jwe, dict) else ""
    try:
        return _decoded(urlsafe_b64decode(f"{protected}==").decode())
    except ValueError:
        return {}


def _report(text: str, name: str) -> Iterator[Mapping[str, Any]]:
    for report in _rows(_decoded(text), "report"):
        yield from _rows(report, name)


def _rows(told: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects of a list; what is none is left out."""
    listed = told.get(name)
    return [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []


def _decoded(text: str) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(text.encode() or b"{}")
    except UNREADABLE:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


def _number(row: Mapping[str, Any], name: str) -> int:
    text = _text(row, name).partition(".")[0]
    return int(text) if text.isdigit() else 0


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
