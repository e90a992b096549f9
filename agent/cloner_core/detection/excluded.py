"""What `--exclude-devices` says: devices by name, and selectors as FIELD=PATTERN."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloner_core.detection.told import Excluded
from cloner_core.errors import InvalidError
from cloner_core.layout import Selector
from cloner_core.layout.reading import Reader
from cloner_core.layout.selecting import PATTERNS, read_selector


def parse_excluded(texts: Sequence[str], resolve: Callable[[str], str]) -> Excluded:
    """Return what "/dev/sdb,sdc1" and "model=INTEL*" mean; lists are parted by commas.

    `resolve` gives the device of a link in /dev/disk. Raises InvalidError with every word that means nothing.
    """
    devices: list[str] = []
    selectors: list[Selector] = []
    faults: list[str] = []
    for word in (word.strip() for text in texts for word in text.split(",")):
        field, sign, value = word.partition("=")
        if sign and value and field in PATTERNS:
            selectors.append(read_selector(Reader(), {field: value}, ""))
        elif sign:
            faults.append(f"'{word}': want FIELD=PATTERN with one of {', '.join(PATTERNS)}")
        elif word.startswith("/dev/disk/"):
            devices.append(resolve(word))
        elif word.startswith("/") and not word.startswith("/dev/"):
            faults.append(f"'{word}': is not a device; paths are left out with --exclude-paths")
        elif word:
            devices.append(word if word.startswith("/dev/") else f"/dev/{word}")
    if faults:
        raise InvalidError("--exclude-devices cannot be understood", faults=faults)
    return Excluded(tuple(devices), tuple(selectors))
