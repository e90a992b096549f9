"""What a version puts where, as the planner wants it, from the root of its tree; server and agent use the same."""

from __future__ import annotations

import re
from typing import Final

from cloner_core.image.tree import TreeRoot
from cloner_core.plan.values import Contents

_LAST_WITH_OLD_XFS: Final = {
    "almalinux": (8,),
    "amzn": (2,),
    "centos": (8,),
    "debian": (10,),
    "ol": (8,),
    "opensuse-leap": (15, 3),
    "rhel": (8,),
    "rocky": (8,),
    "sles": (15, 3),
    "ubuntu": (20, 10),
}
"""By ID of os-release(5) the last release whose own kernel is older than Linux 5.10; so is its GRUB than 2.06."""


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


def has_old_xfs(root: TreeRoot) -> bool:
    """Whether the version's system reads no XFS with the features of Linux 5.10: bigtime, inobtcount.

    Told by its release, not by its kernels: a newer kernel reads a filesystem without them just as well.
    """
    last = _LAST_WITH_OLD_XFS.get(root.facts.os_id)
    release = tuple(int(number) for number in re.findall(r"[0-9]{1,9}", root.facts.os_version))
    return last is not None and () < release[: len(last)] <= last
