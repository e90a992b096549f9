"""The guard: identifiers of a plan that another disk of the node carries."""

from __future__ import annotations

from collections.abc import Collection

from cloner_core.facts import Disk, Facts, Signature
from cloner_core.membership import lost_with, torn, wholes
from cloner_core.messages import Cause
from cloner_core.plan.values import Plan
from cloner_core.refusals import PlanError


def guarded_identifiers(plan: Plan) -> tuple[str, ...]:
    """Return what no disk outside the plan may carry: the new identifiers, and those the image may still name.

    A file outside the closed list of references (an initramfs, say) may name the golden node's UUID: with a second
    disk that carries it, the clone would mount that disk.
    """
    found: list[str] = []
    for disk in plan.disks:
        found.append(disk.table_guid.removeprefix("0x"))
        found += [partition.part_uuid for partition in disk.partitions if not partition.is_kept]
    found += [array.uuid for array in plan.arrays]
    for crypt in plan.crypts:
        found += (crypt.uuid, crypt.source_uuid)
    for volume in plan.volumes:
        if not volume.is_kept:
            found += (volume.uuid, *volume.source_uuids)
    return tuple(dict.fromkeys(one for one in found if one))


def refuse_what_others_share(plan: Plan, facts: Facts) -> None:
    """Raise PlanError when `plan` would destroy a part of what lies on other disks too, or make a twin of it.

    Half a volume group or array is as good as none, and whoever planned for one disk did not mean the others. Two
    volume groups of one name cannot both be active (layout, foreign-uuid).
    """
    chosen = [disk.disk for disk in plan.disks]
    lost = lost_with(chosen, kept=[one.device for one in plan.partitions if one.is_kept])
    if found := torn(facts.disks, lost):
        raise PlanError(
            Cause.LAYOUT,
            "; ".join(str(one) for one in found),
            hint="have the layout take all disks of it, or take it apart on the machine first",
        )
    names = {("volume group", group.name) for group in plan.groups}
    names |= {("array", f"{host}{array.id}") for array in plan.arrays for host in ("any:", "")}
    for whole in wholes(facts.disks):
        if (whole.kind, whole.name) in names and not {member.device for member in whole.members} & lost:
            where = ", ".join(member.device for member in whole.members)
            raise PlanError(
                Cause.FOREIGN_UUID,
                f"{where} has a {whole.kind} '{whole.name}' already, and the layout makes one of that name",
                hint="rename one of the two, or take the other disk out",
            )


def foreign_identifiers(plan: Plan, facts: Facts) -> list[str]:
    """Return, one sentence each, every identifier of `plan` that a disk not chosen carries in `facts`.

    `facts` may be newer than those the plan was made from.
    """
    return carried_elsewhere(guarded_identifiers(plan), [disk.disk.path for disk in plan.disks], facts.disks)


def carried_elsewhere(identifiers: Collection[str], chosen: Collection[str], disks: Collection[Disk]) -> list[str]:
    """Return, one sentence each, which of `identifiers` the disks not named in `chosen` carry."""
    wanted = {identifier.lower() for identifier in identifiers}
    return [
        f"{signature.device} ({signature.kind}) on {disk.path}, serial '{disk.serial}', carries {carried}"
        for disk in disks
        if disk.path not in chosen
        for signature in disk.signatures
        for carried in _carried(signature)
        if carried.lower() in wanted
    ]


def _carried(signature: Signature) -> tuple[str, ...]:
    return tuple(value for value in (signature.uuid, signature.part_uuid) if value)
