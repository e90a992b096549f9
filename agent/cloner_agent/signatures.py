"""Finds what lies on a device: tables, filesystems, members of arrays, volume groups and pools.

Must not write to a device, nor assemble or activate what it finds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cloner_agent.host import Runner, ToolError
from cloner_core.facts import Disk, Signature
from cloner_core.systems import system_name

log = logging.getLogger(__name__)

_TOOL_S = 60.0
_EXT = ("ext2", "ext3", "ext4")
_LOOK_S, _LOOK_CHARACTERS = 5.0, 4096
_LOOKS = 8  # filesystems of a disk that are looked into; a disk may have 128, each made to keep us waiting
_NAMED_BY_LABEL = ("linux_raid_member", "btrfs", "zfs_member")  # blkid's label and UUID are those of the whole
_NAMED_BY_MDADM = ("isw_raid_member", "ddf_raid_member")  # blkid knows no UUID
# Neither udev nor a list of devices of some former system decides what LVM sees.
LVM_CONFIG = "devices{use_devicesfile=0 obtain_device_list_from_udev=0}"


def read_signatures(run: Runner, devices: Sequence[str]) -> tuple[Signature, ...]:
    """Return what wipefs recognises on `devices`; it lists every signature where blkid stops at two."""
    try:
        # It writes nothing without --all.
        listed = run(("wipefs", "--json", "--output", "DEVICE,TYPE,UUID,LABEL", *devices), timeout_s=_TOOL_S).stdout
    except ToolError as error:
        log.warning("%s: signatures unknown: %s", devices[0], error)
        return ()
    found: dict[tuple[str, str, str], Signature] = {}
    looked_into: list[str] = []
    for entry in json.loads(listed or "{}", strict=False).get("signatures", []):
        device = entry["device"] if entry["device"].startswith("/") else f"/dev/{entry['device']}"
        kind, uuid, label = (entry[key] or "" for key in ("type", "uuid", "label"))
        if (device, kind, uuid) in found:
            continue  # GPT shows twice, at both ends of the disk, and FAT three times
        system = ""
        if kind in _EXT and len(looked_into) < _LOOKS:
            looked_into.append(device)
            system = _system(run, device)
        group, group_uuid = _group(run, device, kind, uuid, label)
        found[device, kind, uuid] = Signature(
            device=device, kind=kind, uuid=uuid, label=label, system=system, group=group, group_uuid=group_uuid
        )
    return tuple(found.values())


def with_part_uuids(signatures: Iterable[Signature], part_uuids: Mapping[str, str]) -> tuple[Signature, ...]:
    """Return `signatures` with the PARTUUID of their device, the first of each device only.

    A partition without a known content gets one of its own: the guard must see it.
    """
    left = dict(part_uuids)
    found = [msgspec.structs.replace(one, part_uuid=left.pop(one.device, "")) for one in signatures]
    return (*found, *(Signature(device=device, kind="", part_uuid=uuid) for device, uuid in left.items() if uuid))


def with_volume_groups(run: Runner, disks: Sequence[Disk]) -> tuple[Disk, ...]:
    """Return `disks` with the volume group of each physical volume; LVM is asked only where there is one."""
    if not any(signature.kind == "LVM2_member" for disk in disks for signature in disk.signatures):
        return tuple(disks)
    groups = _volume_groups(run)
    return tuple(
        msgspec.structs.replace(disk, signatures=tuple(_in_group(one, groups) for one in disk.signatures))
        for disk in disks
    )


def _in_group(found: Signature, groups: Mapping[str, tuple[str, str]]) -> Signature:
    group, group_uuid = groups.get(found.uuid, ("", "")) if found.kind == "LVM2_member" else ("", "")
    return msgspec.structs.replace(found, group=group, group_uuid=group_uuid) if group else found


def _volume_groups(run: Runner) -> dict[str, tuple[str, str]]:
    """Return name and UUID of the group by UUID of the physical volume.

    Not by device: of two devices with the same volume, multipath or a copy, LVM names one.
    """
    fields = "pv_uuid,vg_name,vg_uuid"
    argv = ("lvm", "pvs", "--readonly", "--reportformat", "json", "--config", LVM_CONFIG, "-o", fields)
    try:
        listed = run(argv, timeout_s=_TOOL_S).stdout
    except ToolError as error:
        log.warning("the volume groups of physical volumes are not known: %s", error)
        return {}
    reports = json.loads(listed or "{}", strict=False).get("report", [])
    rows = [row for report in reports for row in report.get("pv", [])]
    return {row["pv_uuid"]: (row["vg_name"], row["vg_uuid"]) for row in rows}


def _group(run: Runner, device: str, kind: str, uuid: str, label: str) -> tuple[str, str]:
    if kind in _NAMED_BY_LABEL:
        return label, uuid
    return _container(run, device) if kind in _NAMED_BY_MDADM else ("", "")


def _container(run: Runner, device: str) -> tuple[str, str]:
    """Ask mdadm what array of the firmware a disk is in (Intel's and DDF)."""
    try:
        told = run(("mdadm", "--examine", "--export", device), timeout_s=_TOOL_S).stdout
    except ToolError as error:
        log.warning("%s: its array is not known: %s", device, error)
        return "", ""
    pairs = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    return pairs.get("MD_NAME", ""), pairs.get("MD_UUID", "")


def _system(run: Runner, device: str) -> str:
    """Read what names the system on an ext filesystem; debugfs mounts nothing and opens the device for reading."""
    told = []
    for path in ("/usr/lib/os-release", "/etc/hostname"):
        try:
            told.append(run(("debugfs", "-R", f"cat {path}", device), timeout_s=_LOOK_S).stdout[:_LOOK_CHARACTERS])
        except ToolError as error:
            log.debug("%s: what is on it is not known: %s", device, error)
            return ""
    return system_name(*told)
