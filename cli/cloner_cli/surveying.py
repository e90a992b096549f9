"""What a capture would take, as a person is shown it before being asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloner_agent.capture.survey import Survey
from cloner_cli.text import columns, first_few, printable
from cloner_core.admin.store import StoreRoom
from cloner_core.detection import Drive
from cloner_core.image.options import StoredOptions
from cloner_core.sizes import format_bytes

NO_BACKUP = "an image is no backup: the identity of this machine and volatile directories are not in it"
_ALWAYS = (
    "left out always: what is in /proc, /sys, /dev, /run, /tmp and /var/lib/cloner; network filesystems, swap files,"
    " sockets; the identity of this machine (docs/capture.md)"
)


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that is known before a capture begins."""

    image: str
    base: str  # "debian:3", the version that is there; "" for the first
    drives: Sequence[Drive]
    survey: Survey
    room: StoreRoom
    options: StoredOptions

    @property
    def fits(self) -> bool:
        """Whether it fits the server even where nothing of it can be compressed."""
        return self.survey.unknown_bytes <= self.room.free_bytes


def outlook_lines(outlook: Outlook) -> Iterator[str]:
    """Give the lines that are shown."""
    survey, options = outlook.survey, outlook.options
    if outlook.drives:
        yield from _table(
            ("DRIVE", "SIZE", "MODEL", f"IN LAYOUT {options.layout}"),
            [(one.path, format_bytes(one.size_bytes), one.model, one.use) for one in outlook.drives],
        )
    yield from _table(
        ("FILESYSTEM", "TYPE", "ENTRIES", "DATA"),
        [(one.path, one.type, one.entries, format_bytes(one.data_bytes)) for one in survey.mounts],
    )
    yield from _table(
        ("LARGEST DIRECTORIES", "DATA"), [(one.path, format_bytes(one.data_bytes)) for one in survey.largest]
    )
    yield _ALWAYS
    if survey.closed:
        yield printable(f"left out here: what is mounted on {', '.join(survey.closed)}")
    if survey.snapshots:
        yield printable(f"left out here: {first_few(survey.snapshots)}, read-only snapshots")
    if options.exclude_paths:
        yield printable(f"left out as you said: {', '.join(options.exclude_paths)}")
    weight, new = format_bytes(survey.data_bytes), format_bytes(survey.unknown_bytes)
    after = f" after {outlook.base}" if outlook.base else ", the first of it"
    yield f"image {outlook.image}{after}: {survey.entries} entries, {weight}"
    free = format_bytes(outlook.room.free_bytes)
    if outlook.fits:
        yield f"new to the server are at most {new}, compressed less; it has room for {free}: it fits"
    else:
        yield f"warning: up to {new} are new to the server, before they are compressed, and it has room for {free}"
    yield NO_BACKUP


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    if rows:
        yield columns(titles, rows)
        yield ""
