"""A layout as bars: one for each disk, array and volume group, with a cell for each thing on it. Pure values.

What a picture says is decided here, how it looks in `terminal` and `svg`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import msgspec

from cloner_core.layout import (
    Array,
    ArrayMember,
    Content,
    DiskLayout,
    EspCopy,
    Filesystem,
    Kept,
    Layout,
    Luks,
    Nothing,
    Partition,
    PhysicalVolume,
    Selector,
    Size,
    Swap,
    VolumeGroup,
    mounts_of,
)
from cloner_core.plan.tables import partition_numbers
from cloner_core.selectors import describe_selector
from cloner_core.sizes import GIB, MIB, format_bytes

Kind = Literal["esp", "boot", "swap", "root", "data", "raid", "lvm", "kept", "none"]
_REST_SHARE: Final = 6  # what takes the rest is drawn so many times as large as the largest that does not
_KINDS: Final[dict[type[Content], Kind]] = {
    EspCopy: "esp",
    Swap: "swap",
    ArrayMember: "raid",
    PhysicalVolume: "lvm",
    Kept: "kept",
}
_TABLES: Final = {"gpt": "GPT", "mbr": "MBR", "none": "no table"}
_WAYS: Final = {"tpm2": "opened by the TPM", "passphrase": "opened by a passphrase", "random": "a new key at each boot"}


class Cell(msgspec.Struct, frozen=True):
    """One thing on a bar."""

    lines: tuple[str, ...]  # the first is its name, or what it holds
    kind: Kind
    size_bytes: int  # to draw it by; not what a machine will have
    carries: str = ""  # key of the bar that lies on it
    is_locked: bool = False


class Bar(msgspec.Struct, frozen=True):
    """A disk, an array or a volume group."""

    key: str  # "disk system", "array root", "group vg0"
    title: str
    told: str
    cells: tuple[Cell, ...]


class Picture(msgspec.Struct, frozen=True):
    """A whole layout: what lies on a bar comes below it."""

    name: str
    bars: tuple[Bar, ...]
    below: tuple[str, ...]  # what is no bar: swap files, disks that are not to be touched


def draw(layout: Layout) -> Picture:
    """Return the picture of `layout`."""
    bars = [_disk(disk) for disk in layout.disks]
    bars += [_array(array, _members(layout, ArrayMember(array.id))) for array in layout.arrays]
    bars += [_group(group, _members(layout, PhysicalVolume(group.name))) for group in layout.groups]
    below = [f"swap file {one.path}, {size_text(one.size_bytes)}" for one in layout.swapfiles]
    below += [f"not to be touched: disks with {describe_selector(select)}" for select in layout.untouched]
    return Picture(layout.name, tuple(bars), tuple(below))


def least_widths(bars: Sequence[Bar], needed: Callable[[Cell], float]) -> list[list[float]]:
    """Return the least width of each cell of each bar; disks with as many cells get equal columns, as mirrors have."""
    own = [[needed(cell) for cell in bar.cells] for bar in bars]
    alike: dict[int, list[list[float]]] = {}
    for bar, widths in zip(bars, own, strict=True):
        if bar.key.startswith("disk "):
            alike.setdefault(len(widths), []).append(widths)
    return [
        [max(column) for column in zip(*alike[len(widths)], strict=True)] if bar.key.startswith("disk ") else widths
        for bar, widths in zip(bars, own, strict=True)
    ]


def size_text(size_bytes: int) -> str:
    """Return a size as short as it can be read: "512 MiB"."""
    return format_bytes(size_bytes).replace(".0 ", " ")


def _disk(disk: DiskLayout) -> Bar:
    select = "any disk, the only one" if disk.select == Selector() else describe_selector(disk.select)
    told = f"{select}; {_TABLES[disk.table]}"
    if disk.content is not None:
        cells: tuple[Cell, ...] = (_cell("", "", disk.content, GIB),)
    else:
        sizes = _drawn([one.size for one in disk.partitions])
        numbers, _ = partition_numbers(disk)
        cells = tuple(
            _partition(one, number, size) for one, number, size in zip(disk.partitions, numbers, sizes, strict=True)
        )
    return Bar(f"disk {disk.id}", f"disk {disk.id}", told, cells)


def _partition(one: Partition, number: int, size_bytes: int) -> Cell:
    words = [str(number), one.label if one.label and one.label != one.role else one.role]
    words += ["(logical)"] if one.is_logical else []
    words += ["(active)"] if one.is_active else []
    size = "" if isinstance(one.content, Kept) else _size(one.size)
    return _cell(" ".join(words), size, one.content, size_bytes, role=one.role)


def _array(array: Array, members: Sequence[str]) -> Bar:
    form = f"{array.level}, metadata {array.metadata}"
    form += "" if array.level == "raid1" else f", chunks of {array.chunk_kib} KiB"
    cell = _cell("", "", array.content, GIB)
    return Bar(f"array {array.id}", f"array {array.id}", f"{form}; over {', '.join(members)}", (cell,))


def _group(group: VolumeGroup, members: Sequence[str]) -> Bar:
    sizes = _drawn([one.size for one in group.volumes])
    cells = tuple(
        _cell(one.name, _size(one.size), one.content, size) for one, size in zip(group.volumes, sizes, strict=True)
    )
    told = f"LVM, extents of {group.extent_mib} MiB; over {', '.join(members)}"
    return Bar(f"group {group.name}", f"volume group {group.name}", told, cells)


def _cell(name: str, size: str, content: Content, size_bytes: int, *, role: str = "") -> Cell:
    lines = (*(one for one in (name, size) if one), *_lines(content, role))
    inner = content.content if isinstance(content, Luks) else content
    carries = ""
    if isinstance(inner, ArrayMember):
        carries = f"array {inner.array}"
    elif isinstance(inner, PhysicalVolume):
        carries = f"group {inner.group}"
    return Cell(lines, _kind(inner, role), size_bytes, carries, isinstance(content, Luks))


def _kind(content: Content, role: str) -> Kind:
    if role in ("esp", "bios-boot"):
        return "esp" if role == "esp" else "boot"
    if isinstance(content, Filesystem):
        mounts = mounts_of(content)
        return "root" if "/" in mounts else "boot" if "/boot" in mounts else "data"
    return _KINDS.get(type(content), "none")


def _lines(content: Content, role: str) -> Iterator[str]:
    match content:
        case Filesystem(kind=kind, mount=mount, subvolumes=subvolumes):
            yield f"{kind} {mount}".rstrip()
            for one in subvolumes:
                yield f"{one.name} at {one.mount}" if one.mount else f"{one.name}, not mounted"
        case Swap():
            yield "swap"
        case ArrayMember(array=name):
            yield f"▸ array {name}"
        case PhysicalVolume(group=name):
            yield f"▸ group {name}"
        case Luks(name=name, unlock=unlock, content=inner):
            registers = f" (PCR {', '.join(map(str, unlock.pcrs))})" if unlock.pcrs else ""
            yield f"LUKS {name}"
            yield f"{_WAYS[unlock.way]}{registers}"
            yield from _lines(inner, "")
        case EspCopy():
            yield "copy of the ESP"
        case Kept(mount=mount):
            yield "kept as it is"
            if mount:
                yield mount
        case Nothing():
            yield "for GRUB" if role == "bios-boot" else "not formatted"


def _size(size: Size) -> str:
    if not size.weight:
        return size_text(size.min_bytes)
    if size.max_bytes:
        return f"{size_text(size.min_bytes)} to {size_text(size.max_bytes)}"
    return "rest" if size.min_bytes <= MIB else f"{size_text(size.min_bytes)} or more"


def _drawn(sizes: Sequence[Size]) -> list[int]:
    """Return sizes to draw by: what takes the rest is larger than all that does not."""
    fixed = max((one.min_bytes for one in sizes if not one.weight), default=GIB)
    return [
        max(one.min_bytes, _REST_SHARE * fixed * one.weight) if one.weight else max(one.min_bytes, MIB) for one in sizes
    ]


def _members(layout: Layout, member: Content) -> list[str]:
    """Return what carries an array or a group, as the bars call it."""
    found = []
    for disk in layout.disks:
        if disk.content is not None and _is_member(disk.content, member):
            found.append(disk.id)
        numbers, _ = partition_numbers(disk)
        found += [
            f"{disk.id}/{number}"
            for one, number in zip(disk.partitions, numbers, strict=True)
            if _is_member(one.content, member)
        ]
    found += [f"array {array.id}" for array in layout.arrays if _is_member(array.content, member)]
    return found


def _is_member(content: Content, member: Content) -> bool:
    return (content.content if isinstance(content, Luks) else content) == member
