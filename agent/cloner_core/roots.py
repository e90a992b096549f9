"""Which of the systems on the disks of a node is meant, when none of them runs.

Pure: looking into filesystems is `cloner_agent.atrest`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from cloner_core.messages import Cause
from cloner_core.refusals import PlanError

_TAGGED = re.compile(r"(UUID|LABEL|PARTUUID)=(.+)")
_HINT = "cloner capture --root-device UUID=… says which"


class RootSeen(msgspec.Struct, frozen=True):
    """A filesystem that a system lies on."""

    device: str
    kind: str  # "ext4"
    uuid: str
    label: str = ""
    part_uuid: str = ""
    subvolume: str | None = None  # of btrfs: path from the top, "" the top; None: there are none
    system: str = ""  # "Debian GNU/Linux 12 (bookworm), host db01"
    is_own: bool = True  # its /etc/fstab says that it is the root

    @property
    def name(self) -> str:
        """What a person is told: where it lies, by what it can be chosen, what it is."""
        part = f" (subvolume {self.subvolume or 'of the top'})" if self.subvolume is not None else ""
        return f"{self.device}{part}, UUID={self.uuid}: {self.system or 'a system without a name'}"


def choose_root(found: Sequence[RootSeen], asked: str = "") -> RootSeen:
    """Return the root that is meant; `asked` names its device as fstab(5) would, "" where there is but one.

    Raises PlanError that lists what is there when that is none, or more than one.
    """
    named = [root for root in found if _is_named(root, asked)] if asked else list(found)
    # Copies, snapshots and containers are trees of systems too: what names itself as the root is started as one.
    chosen = [root for root in named if root.is_own] or named
    if len(chosen) == 1:
        return chosen[0]
    listed = "\n  - ".join(("", *(root.name for root in (chosen or found))))
    if chosen:
        raise PlanError(
            Cause.AMBIGUOUS_DISK, f"{len(chosen)} systems lie on the disks of this node:{listed}", hint=_HINT
        )
    if found:
        raise PlanError(Cause.NO_DISK, f"no system lies on {asked}; there are:{listed}", hint=_HINT)
    raise PlanError(
        Cause.NO_DISK,
        "no system lies on the disks of this node: no filesystem that could be read has an os-release",
        hint="cloner node facts shows its disks; where they are encrypted or of a kind that is not captured, capture"
        " the node while it runs: cloner new-image",
    )


def _is_named(root: RootSeen, asked: str) -> bool:
    match = _TAGGED.fullmatch(asked)
    if match is None:
        return root.device == asked
    value = {"UUID": root.uuid, "LABEL": root.label, "PARTUUID": root.part_uuid}[match[1]]
    wanted = match[2].strip('"')
    return value == wanted or (match[1] != "LABEL" and value.lower() == wanted.lower())
