"""An initramfs with a few files."""

from __future__ import annotations

from cloner_core import newc


def archive(files: dict[str, bytes]) -> bytes:
    """Return `files` as the kernel unpacks them, not compressed."""
    return newc.pack(newc.with_parents(newc.file(path, data) for path, data in files.items()))
