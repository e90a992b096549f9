"""Where a kernel would resume from, and whether a clone has such a place.

An initramfs waits for it at each boot: 30 s on Debian, longer elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cloner_core.fstab import entries
from cloner_core.layout import Layout
from cloner_core.layout.types import Luks, Swap
from cloner_core.references import device_names

_RESUME = re.compile(rb"(?<![\w.-])resume=[\"']?([^\s\"']+)", re.IGNORECASE)
_OFFSET = re.compile(rb"(?<![\w.-])resume_offset=\d", re.IGNORECASE)
_BY_NAME = re.compile(r"/dev/disk/by-(uuid|partuuid|label|partlabel)/(.+)")


@dataclass(frozen=True, slots=True)
class Swaps:
    """The swap of a golden node by the names it has there, and whether its clones have any to resume from."""

    names: frozenset[str]  # "UUID=…", "LABEL=…", or a path
    is_any_cloned: bool = True  # a deploy gives it another UUID, and rewrites what names the old one


def swaps_of(fstab: bytes, layout: Layout | None) -> Swaps:
    """Return the swap that an fstab and a layout know; without a layout, clones are taken to have what fstab has."""
    names = {_name(entry.device) for entry in entries(fstab) if entry.kind == "swap"}
    if layout is None:
        return Swaps(frozenset(names))
    contents = [content for _, content in layout.contents()]
    swaps = [content for content in contents if isinstance(content, Swap)]
    # The key of such a container is another one at each boot; it holds swap and nothing else.
    lost = [content for content in contents if isinstance(content, Luks) and content.unlock.way == "random"]
    names |= {f"UUID={swap.source_uuid.lower()}" for swap in swaps if swap.source_uuid}
    return Swaps(frozenset(names), len(swaps) > len(lost))


def stale_resumes(text: bytes, swaps: Swaps) -> Iterator[str]:
    """Give each resume= of a text that leads nowhere in a clone, as far as that can be told."""
    for line in text.splitlines():
        if line.lstrip().startswith(b"#"):
            continue
        for raw in _RESUME.findall(line):
            value = raw.decode(errors="replace")
            if value.lower() in ("none", "auto") or value.startswith("$"):
                continue
            if _OFFSET.search(line):
                yield f"resume={value} resume_offset=…"
            elif not swaps.is_any_cloned or not _is_one_of(_name(value), swaps.names):
                yield f"resume={value}"


def _is_one_of(name: str, names: frozenset[str]) -> bool:
    """Whether `name` may be one of `names`; what is said in two ways cannot be compared, and is believed."""
    alike = {known for known in names if _scheme(known) == _scheme(name)}
    if not alike:
        return bool(names)
    spelt = {spelling for known in alike for spelling in _spellings(known)}
    return bool(spelt & _spellings(name))


def _scheme(name: str) -> str:
    return "/" if name.startswith("/") else name.partition("=")[0]


def _spellings(name: str) -> set[str]:
    return device_names(name) | {name} if name.startswith("/") else {name}


def _name(device: str) -> str:
    """Return a device by one spelling: UUID=…, LABEL=…, or its path."""
    match = _BY_NAME.fullmatch(device)
    kind, equals, value = (match[1], "=", match[2]) if match else device.partition("=")
    return f"{kind.upper()}={value.strip(chr(34)).lower()}" if equals else device
