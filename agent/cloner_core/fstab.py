"""/etc/fstab of a clone: the image's own, line by line, with the layout's filesystems in it; or a new one.

Pure text in, text out. A line is only touched when it mounts something the layout makes (fstab(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from cloner_core.plan.values import PlannedPartition
from cloner_core.steps import Reference

_ENTRY = re.compile(r"(\s*)(\S+)(\s+)(\S+)(\s+)(\S+)(?:(\s+)(\S+))?(.*)", re.DOTALL)
_IDENTIFIED = re.compile(r"(UUID|PARTUUID|LABEL|PARTLABEL|ID)=|/dev/")
_NAMED_UUID = re.compile(r'(?:(UUID|PARTUUID)="?|/dev/disk/by-(uuid|partuuid)/)([0-9A-Fa-f-]+)"?')


class Fstab(msgspec.Struct, frozen=True):
    """A new fstab and what an admin should know about it."""

    content: bytes
    notes: tuple[str, ...] = ()


class Entry(msgspec.Struct, frozen=True):
    """One line that mounts something; `line` counts from 0."""

    line: int
    device: str
    mount: str  # unescaped, without a slash at the end; "none" or "swap" for swap space
    kind: str
    options: str


def entries(content: bytes) -> tuple[Entry, ...]:
    """Return the entries of an fstab in their order; lines that are none are passed over."""
    return tuple(entry for number, line in enumerate(_lines(content)) if (entry := _entry(number, line)))


def image_references(content: bytes, partitions: Sequence[PlannedPartition]) -> tuple[Reference, ...]:
    """Return which identifiers the image's fstab uses for what the layout makes, and the new ones.

    This is what makes a clone of a plain tree right, where nobody knew the golden node's UUIDs.
    """
    references = []
    for entry, partition in _matches(entries(content), partitions):
        if match := _NAMED_UUID.fullmatch(entry.device):
            is_partition = "PARTUUID" in (match[1], (match[2] or "").upper())
            references.append(Reference(match[3], partition.part_uuid if is_partition else partition.uuid))
    return tuple(references)


def make_fstab(content: bytes | None, partitions: Sequence[PlannedPartition]) -> Fstab:
    """Return the clone's fstab: `content` of the image with our filesystems in place, or a new one for None."""
    head = b"" if content is not None else b"# Written by Cloner: the image had no fstab.\n"
    lines = _lines(head if content is None else content)
    found = entries(head if content is None else content)
    matched = dict[int, PlannedPartition]()
    for entry, partition in _matches(found, partitions):
        matched[entry.line] = partition
        lines[entry.line] = _rewritten(lines[entry.line], partition)
    present = {partition.device for partition in matched.values()}
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    lines += [f"{line_of(partition)}\n" for partition in _in_order(partitions) if partition.device not in present]
    notes = tuple(_note(entry) for entry in found if entry.line not in matched and _is_foreign(entry))
    return Fstab("".join(lines).encode("utf-8", "surrogateescape"), notes)


def line_of(partition: PlannedPartition) -> str:
    """Return the fstab line of a partition: its sixth field lets fsck check the root first, the rest after it."""
    if partition.filesystem == "swap":
        return f"UUID={partition.uuid}\tnone\tswap\tsw\t0 0"
    check = 1 if partition.mount == "/" else 2
    options = partition.options or "defaults"
    return f"UUID={partition.uuid}\t{partition.mount}\t{partition.filesystem}\t{options}\t0 {check}"


def _lines(content: bytes) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", content.decode("utf-8", "surrogateescape"))


def _entry(number: int, line: str) -> Entry | None:
    match = _ENTRY.fullmatch(line)
    if not match or match[2].startswith("#"):
        return None
    mount = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), match[4])
    return Entry(number, match[2], mount.rstrip("/") or "/", match[6], match[8] or "defaults")


def _matches(
    found: Sequence[Entry], partitions: Sequence[PlannedPartition]
) -> Iterator[tuple[Entry, PlannedPartition]]:
    """Pair entries with partitions: by mount point (the first entry counts), swap space in the order it comes."""
    swaps = [partition for partition in partitions if partition.filesystem == "swap"]
    mounts = {partition.mount: partition for partition in partitions if partition.mount}
    for entry in found:
        if entry.kind == "swap":
            if swaps and _IDENTIFIED.match(entry.device):
                yield entry, swaps.pop(0)
        elif partition := mounts.pop(entry.mount, None):
            yield entry, partition


def _rewritten(line: str, partition: PlannedPartition) -> str:
    """Return `line` for `partition`, its spacing kept; options of another kind of filesystem are replaced."""
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise ValueError(f"not an entry: {line!r}")
    indent, _, gap, mount, before_kind, kind, before_options, options, rest = match.groups()
    is_asked = partition.options not in ("", "defaults", "umask=0077")
    if options is None or is_asked or kind not in (partition.filesystem, "auto"):
        before_options, options = before_options or "\t", partition.options or "defaults"
        if partition.filesystem == "swap":
            options = "sw"
    return (
        f"{indent}UUID={partition.uuid}{gap}{mount}{before_kind}{partition.filesystem}{before_options}{options}{rest}"
    )


def _in_order(partitions: Sequence[PlannedPartition]) -> list[PlannedPartition]:
    """Return parents before what is mounted on them, swap last; systemd does not care, mount -a does."""
    return sorted(partitions, key=lambda p: (not p.mount, p.mount.count("/") if p.mount != "/" else 0))


def _is_foreign(entry: Entry) -> bool:
    options = entry.options.split(",")
    return bool(_IDENTIFIED.match(entry.device)) and not {"noauto", "nofail", "bind", "rbind"} & set(options)


def _note(entry: Entry) -> str:
    what = "swap" if entry.kind == "swap" else f"'{entry.mount}'"
    return (
        f"/etc/fstab still mounts {what} from {entry.device}, which the layout does not make:"
        " without that device the boot stops there (add nofail, or add it to the layout)"
    )
