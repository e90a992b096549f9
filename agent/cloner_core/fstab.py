"""/etc/fstab of a clone: the image's own, line by line, with the layout's filesystems in it; or a new one.

Pure text in, text out. A line is touched when it mounts something the layout makes; one whose device the layout does
not make gets `nofail`: no clone may stop at its boot for a device that the golden node had (fstab(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set

import msgspec

from cloner_core.plan.values import PlannedMount
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


def image_references(content: bytes, wanted: Sequence[PlannedMount]) -> tuple[Reference, ...]:
    """Return which identifiers the image's fstab uses for what the layout makes, and the new ones.

    This is what makes a clone of a plain tree right, where nobody knew the golden node's UUIDs.
    """
    references = []
    for entry, mount in _matches(entries(content), wanted):
        if match := _NAMED_UUID.fullmatch(entry.device):
            is_partition = "PARTUUID" in (match[1], (match[2] or "").upper())
            if new := mount.part_uuid if is_partition else mount.uuid:
                references.append(Reference(match[3], new))
    return tuple(dict.fromkeys(references))


def make_fstab(content: bytes | None, wanted: Sequence[PlannedMount]) -> Fstab:
    """Return the clone's fstab: `content` of the image with what is `wanted` in place, or a new one for None."""
    head = b"" if content is not None else b"# Written by Cloner: the image had no fstab.\n"
    lines = _lines(head if content is None else content)
    found = entries(head if content is None else content)
    matched = dict[int, PlannedMount]()
    for entry, mount in _matches(found, wanted):
        matched[entry.line] = mount
        lines[entry.line] = _rewritten(lines[entry.line], mount)
    present = set(matched.values())
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    lines += [f"{line_of(mount)}\n" for mount in _in_order(wanted) if mount not in present]
    foreign = [entry for entry in found if entry.line not in matched and _is_foreign(entry)]
    for entry in foreign:
        lines[entry.line] = _not_waited_for(lines[entry.line])
    return Fstab("".join(lines).encode("utf-8", "surrogateescape"), tuple(map(_note, foreign)))


def line_of(wanted: PlannedMount) -> str:
    """Return the fstab line of a mount: its sixth field lets fsck check the root first, the rest after it."""
    if wanted.filesystem == "swap":
        return f"{_source(wanted)}\tnone\tswap\tsw\t0 0"
    # xfs and btrfs check themselves; what was kept may be lost with its disk, and the node must start without it
    check = 0 if wanted.filesystem in ("xfs", "btrfs") else 1 if wanted.mount == "/" else 2
    return f"{_source(wanted)}\t{wanted.mount}\t{wanted.filesystem}\t{_options(wanted)}\t0 {check}"


def _source(wanted: PlannedMount) -> str:
    return f"UUID={wanted.uuid}" if wanted.uuid else wanted.device


def _options(wanted: PlannedMount) -> str:
    options = wanted.options or "defaults"
    if wanted.is_kept and "nofail" not in options.split(","):
        return "nofail" if options == "defaults" else f"{options},nofail"
    return options


def _lines(content: bytes) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", content.decode("utf-8", "surrogateescape"))


def _entry(number: int, line: str) -> Entry | None:
    match = _ENTRY.fullmatch(line)
    if not match or match[2].startswith("#"):
        return None
    mount = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), match[4])
    return Entry(number, match[2], mount.rstrip("/") or "/", match[6], match[8] or "defaults")


def _matches(found: Sequence[Entry], wanted: Sequence[PlannedMount]) -> Iterator[tuple[Entry, PlannedMount]]:
    """Pair entries with what is wanted: by mount point (the first entry counts), swap space in the order it comes."""
    files = {one.device: one for one in wanted if one.filesystem == "swap" and not one.uuid}
    named = {entry.device for entry in found}
    # a device of crypttab has a new UUID at each boot: its line gives way to one of the image's, as any other does
    swaps = [one for one in wanted if one.filesystem == "swap" and (one.uuid or _is_unnamed_device(one, named))]
    mounts = {one.mount: one for one in wanted if one.mount}
    for entry in found:
        if entry.kind == "swap":
            if entry.device in files:
                yield entry, files.pop(entry.device)
            elif swaps and _IDENTIFIED.match(entry.device):
                yield entry, swaps.pop(0)
        elif mount := mounts.pop(entry.mount, None):
            yield entry, mount


def _is_unnamed_device(wanted: PlannedMount, named: Set[str]) -> bool:
    return wanted.device.startswith("/dev/") and wanted.device not in named


def _rewritten(line: str, wanted: PlannedMount) -> str:
    """Return `line` for `wanted`, its spacing kept; options of another kind of filesystem are replaced."""
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise ValueError(f"not an entry: {line!r}")
    indent, _, gap, mount, before_kind, kind, before_options, options, rest = match.groups()
    is_asked = wanted.options not in ("", "defaults", "umask=0077", f"subvol={wanted.subvolume}") or wanted.is_kept
    if options is None or is_asked or kind not in (wanted.filesystem, "auto"):
        before_options, options = before_options or "\t", _options(wanted)
        if wanted.filesystem == "swap":
            options = "sw"
    elif wanted.filesystem == "btrfs":
        options = _with_subvolume(options, wanted.subvolume)
    return f"{indent}{_source(wanted)}{gap}{mount}{before_kind}{wanted.filesystem}{before_options}{options}{rest}"


def _not_waited_for(line: str) -> str:
    """Return `line` with `nofail` among its options."""
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise ValueError(f"not an entry: {line!r}")
    *before, options, rest = match.groups("")
    if not options:
        return f"{''.join(before).rstrip()}\tnofail{rest}"
    return f"{''.join(before)}{'nofail' if options == 'defaults' else f'{options},nofail'}{rest}"


def _with_subvolume(options: str, subvolume: str) -> str:
    """Return the image's own options with the subvolume of the layout: its number is another one in each clone."""
    kept = [one for one in options.split(",") if not one.startswith(("subvol=", "subvolid=")) and one != "defaults"]
    return ",".join((*kept, f"subvol={subvolume}") if subvolume else kept) or "defaults"


def _in_order(wanted: Sequence[PlannedMount]) -> list[PlannedMount]:
    """Return parents before what is mounted on them, swap last; systemd does not care, mount -a does."""
    return sorted(wanted, key=lambda one: (not one.mount, one.mount.count("/") if one.mount != "/" else 0))


def _is_foreign(entry: Entry) -> bool:
    options = entry.options.split(",")
    return bool(_IDENTIFIED.match(entry.device)) and not {"noauto", "nofail", "bind", "rbind"} & set(options)


def _note(entry: Entry) -> str:
    what = "swap" if entry.kind == "swap" else f"'{entry.mount}'"
    return (
        f"/etc/fstab still mounts {what} from {entry.device}, which the layout does not make: with nofail, so that the"
        " boot does not wait for it (add it to the layout, or take the line out of the image)"
    )
