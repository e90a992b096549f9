"""What the kernel's command line tells an initramfs of dracut: which arrays and volume groups to assemble.

An initramfs made for any machine assembles nothing that it is not told (rd.auto is off), and waits for what it is told
and does not find, then gives up. Pure text in, text out. Source: dracut.cmdline(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cloner_core.identifiers import md_uuid
from cloner_core.plan.values import Plan, PlannedArray, PlannedGroup

# A word; in a shell's or GRUB's quotes the first one follows a quote.
_WORD = re.compile(
    r"(?:(?<=[\"'=])|(?<!\S)|[ \t]+)rd\.(luks\.uuid|luks\.name|md\.uuid|lvm\.lv|lvm\.vg)=([^\s\"'\\]+)(?=[\s\"'\\]|\Z)"
)


def arguments(plan: Plan) -> tuple[str, ...]:
    """Return what has dracut assemble that on which / and /usr of the clone lie; containers are told of elsewhere."""
    wanted: dict[str, None] = {}
    for mounted in plan.mounts:
        if mounted.mount in ("/", "/usr"):
            for one in _beneath(plan, mounted.device):
                match one:
                    case PlannedArray(uuid=uuid):
                        wanted[f"rd.md.uuid={md_uuid(uuid)}"] = None
                    case PlannedGroup(name=name):
                        wanted[f"rd.lvm.vg={name}"] = None
    return tuple(wanted)


def without_absent(content: bytes, plan: Plan) -> bytes:
    """Return `content` of a file with command lines without the words for devices that the clone does not have."""
    arrays = {_hex(one.uuid) for one in plan.arrays}
    crypts = {_hex(one.uuid) for one in plan.crypts if one.uuid}
    groups = {one.name for one in plan.groups}
    volumes = {f"{group.name}/{one.name}" for group in plan.groups for one in group.volumes}

    def kept(match: re.Match[str]) -> str:
        kind, value = match[1], match[2]
        match kind:
            case "luks.uuid" | "luks.name":
                is_there = _hex(value.partition("=")[0].removeprefix("luks-")) in crypts
            case "md.uuid":
                is_there = _hex(value) in arrays
            case "lvm.lv":
                is_there = value in volumes
            case _:
                is_there = value in groups
        return match[0] if is_there else ""

    return _WORD.sub(kept, content.decode("latin-1")).encode("latin-1")


def _beneath(plan: Plan, device: str) -> Iterator[PlannedArray | PlannedGroup]:
    """Give the arrays and groups on which `device` lies, the lowest first."""
    for crypt in plan.crypts:
        if crypt.device == device:
            yield from _beneath(plan, crypt.backing)
    for group in plan.groups:
        if device in {group.device(volume) for volume in group.volumes}:
            yield from _all_beneath(plan, group.physical)
            yield group
    for array in plan.arrays:
        if array.device == device:
            yield from _all_beneath(plan, array.members)
            yield array


def _all_beneath(plan: Plan, devices: Iterable[str]) -> Iterator[PlannedArray | PlannedGroup]:
    for device in devices:
        yield from _beneath(plan, device)


def _hex(uuid: str) -> str:
    return re.sub("[:-]", "", uuid).lower()
