"""What uploads and exports leave free of a filesystem, so that the database of deploys that run has room."""

from __future__ import annotations

import os
from pathlib import Path

from cloner_server.store.protocol import StoreFullError


def reserve_of(status: os.statvfs_result, reserve_bytes: int) -> int:
    """Return what is left free of the filesystem of `status`: `reserve_bytes`, a tenth of it at most."""
    return min(reserve_bytes, status.f_blocks * status.f_frsize // 10)


def require_room(directory: Path, what: str, wanted: int, reserve_bytes: int) -> None:
    """Raise StoreFullError when `wanted` more bytes in `directory` would not leave the reserve free."""
    status = os.statvfs(directory)
    reserve, free_bytes = reserve_of(status, reserve_bytes), status.f_bavail * status.f_frsize
    if wanted + reserve > free_bytes:
        raise StoreFullError(
            f"{directory} has no room for {what}: {wanted} bytes wanted, {free_bytes} free, of which {reserve} are"
            " reserved for deploys that run",
            hint="run 'cloner store gc', or enlarge the filesystem",
        )
