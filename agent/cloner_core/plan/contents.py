"""What a version puts where, as the planner wants it, from the root of its tree; server and agent use the same."""

from __future__ import annotations

from cloner_core.image.tree import TreeRoot
from cloner_core.plan.values import Contents


def contents_of(root: TreeRoot) -> tuple[Contents, ...]:
    """Return the needs of each filesystem of the source; mount points get their leading slash."""
    return tuple(
        Contents(
            mount="/" + filesystem.mount.decode(errors="surrogateescape"),
            allocated_bytes=filesystem.allocated_bytes,
            inodes=filesystem.inodes,
            source_uuid=filesystem.uuid,
        )
        for filesystem in root.filesystems
    )
