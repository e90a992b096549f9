"""A kit that holds next to nothing, for what is done with kits."""

from __future__ import annotations

from pathlib import Path

from cloner_initramfs.kit import ARCHIVE, Manifest, describe


def make_kit(place: Path, content: bytes = b"an archive") -> Manifest:
    """Make a kit directory whose archive is `content`."""
    place.mkdir(parents=True)
    (place / ARCHIVE).write_bytes(content)
    return describe(place, 1 << 20)
