"""What of a plan a receipt repeats: agent and server each derive it from the plan, and the two must agree."""

from __future__ import annotations

from cloner_core.messages import DiskWritten, Strict
from cloner_core.plan.values import Plan


class Written(Strict, frozen=True):
    """What a plan says will have been written; the names are those of `ReceiptBody`."""

    layout: str
    disks: tuple[DiskWritten, ...]
    root_part_uuid: str


def written_by(plan: Plan) -> Written:
    """Return what a machine holds once `plan` was applied to it."""
    return Written(
        layout=plan.layout,
        disks=tuple(
            DiskWritten(
                selector_id=planned.id,
                path=planned.disk.path,
                serial=planned.disk.serial,
                model=planned.disk.model,
                size_bytes=planned.disk.size_bytes,
            )
            for planned in plan.disks
        ),
        root_part_uuid=plan.root_id,
    )
