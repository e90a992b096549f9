"""Making a plan: disks, places, identifiers, fit, and the steps in the order of a deploy.

The order is the design's: nothing is destroyed before everything that can be known is known, and the disk cannot
boot before commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cloner_core.describing import describe_disk
from cloner_core.facts import Disk, Facts, Firmware
from cloner_core.identifiers import identifier
from cloner_core.layout import Kept, Layout, mounts_of
from cloner_core.messages import BootPolicy, Cause, Task
from cloner_core.plan.biosbooting import check_firmware
from cloner_core.plan.building import Building
from cloner_core.plan.encryption import check_encryption, encryption_notes
from cloner_core.plan.guarding import refuse_what_others_share
from cloner_core.plan.scripting import with_scripts
from cloner_core.plan.sequence import steps_of
from cloner_core.plan.values import Contents, Plan, PlannedSwapFile, mounts_of_volume
from cloner_core.refusals import PlanError
from cloner_core.scripts import Script
from cloner_core.selectors import select_disks
from cloner_core.sizes import MIB, format_bytes

_DEFAULT_BOOT = BootPolicy()
MIN_MEMORY_BYTES = 320 * MIB  # of MemTotal; a machine sold with 512 MiB shows about 450


def plan_task(facts: Facts, task: Task, contents: Sequence[Contents], *, has_old_xfs: bool = False) -> Plan:
    """Return the plan of `task` on the machine of `facts`; see `make_plan`."""
    return make_plan(
        facts,
        task.layout,
        node=task.node,
        hostname=task.network.hostname,
        image=f"{task.version.image}:{task.version.number}",
        version_digest=task.version.digest,
        seed=task.seed,
        contents=contents,
        boot=task.boot,
        protected_serials=task.protected_serials,
        scripts=task.scripts.scripts,
        has_old_xfs=has_old_xfs,
    )


def make_plan(
    facts: Facts,
    layout: Layout,
    *,
    node: str,
    image: str,
    version_digest: str,
    seed: str,
    contents: Sequence[Contents],
    hostname: str = "",
    boot: BootPolicy = _DEFAULT_BOOT,
    protected_serials: Sequence[str] = (),
    scripts: Sequence[Script] = (),
    has_old_xfs: bool = False,
) -> Plan:
    """Return what a deploy of `image` ("debian:3") does to the machine of `facts`; the same arguments, the same plan.

    `seed` is 64 hex digits. `contents` say what must fit where; those of a folder that is no mount point of the
    layout count for the filesystem it lies on. `has_old_xfs` is of the image (`plan.contents`).
    Raises PlanError with its cause when machine, layout and version do not go together.
    """
    _check_machine(facts, layout)
    chosen = select_disks(layout, facts.disks, protected_serials)
    needs = _needs(layout, contents)
    building = Building(layout, chosen, needs, seed)
    building.build(facts.arch)
    plan = Plan(
        node=node,
        image=image,
        version_digest=version_digest,
        layout=layout.name,
        disks=tuple(building.disks),
        steps=(),
        notes=(*_notes(facts, chosen), *encryption_notes(building.crypts, facts, node)),
        volumes=tuple(building.volumes),
        arrays=tuple(building.arrays),
        groups=tuple(building.groups),
        crypts=tuple(building.crypts),
    )
    refuse_what_others_share(plan, facts)
    plan = msgspec.structs.replace(plan, swapfiles=_swapfiles(layout, plan, seed))
    inodes = {
        volume.device: sum(needs[mount.mount].inodes for mount in mounts_of_volume(volume)) for volume in plan.volumes
    }
    by_bios = facts.firmware is Firmware.BIOS
    steps = steps_of(
        plan, hostname=hostname or node, boot=boot, inodes=inodes, by_bios=by_bios, has_old_xfs=has_old_xfs
    )
    return msgspec.structs.replace(plan, steps=with_scripts(steps, scripts))


def _check_machine(facts: Facts, layout: Layout) -> None:
    check_firmware(facts, layout)
    check_encryption(facts, layout)
    if facts.memory_bytes < MIN_MEMORY_BYTES:
        raise PlanError(
            Cause.MEMORY,
            f"the machine has {format_bytes(facts.memory_bytes)} of memory; want {format_bytes(MIN_MEMORY_BYTES)}",
            hint="add memory; 512 MiB are enough",
        )


def _needs(layout: Layout, contents: Sequence[Contents]) -> dict[str, Contents]:
    """Sum `contents` and swap files by the layout's mount points; every mount point is present.

    Raises PlanError (layout) when the image puts files where something is kept.
    """
    mounts = [mount for _, content in layout.contents() for mount in mounts_of(content)]
    kept = {content.mount for _, content in layout.contents() if isinstance(content, Kept)}
    needs = {mount: Contents(mount=mount, allocated_bytes=0, inodes=0) for mount in mounts}
    more = [Contents(mount=one.path, allocated_bytes=one.size_bytes, inodes=1) for one in layout.swapfiles]
    for content in (*contents, *more):
        home = max((m for m in mounts if is_beneath(content.mount, m)), key=len)
        if home in kept and content.inodes > 1:
            raise PlanError(
                Cause.LAYOUT,
                f"the image has {content.inodes} files at '{content.mount}', where the layout keeps what is there",
                hint="capture the image without that folder (--exclude-paths), or mount what is kept elsewhere",
            )
        before = needs[home]
        needs[home] = Contents(
            mount=home,
            allocated_bytes=before.allocated_bytes + content.allocated_bytes,
            inodes=before.inodes + content.inodes,
            source_uuid=content.source_uuid if content.mount == home else before.source_uuid,
        )
    return needs


def _swapfiles(layout: Layout, plan: Plan, seed: str) -> tuple[PlannedSwapFile, ...]:
    planned = []
    for one in layout.swapfiles:
        home = max((mount for mount in plan.mounts if is_beneath(one.path, mount.mount)), key=lambda m: len(m.mount))
        uuid = identifier(seed, f"swapfile {one.path}")
        planned.append(PlannedSwapFile(one.path, one.size_bytes, home.filesystem, uuid))
    return tuple(planned)


def is_beneath(path: str, mount: str) -> bool:
    """Whether the absolute `path` is `mount` or lies beneath it."""
    return mount in ("/", path) or path.startswith(f"{mount}/")


def _notes(facts: Facts, chosen: Mapping[str, Disk]) -> list[str]:
    paths = {disk.path for disk in chosen.values()}
    notes = [
        f"{describe_disk(disk)} has no serial: the selector told it by model and size alone"
        for disk in chosen.values()
        if not disk.serial
    ]
    for disk in facts.disks:
        esps = [s.device for s in disk.signatures if s.kind == "vfat"]
        if disk.path not in paths and esps and disk.bus != "usb":
            notes.append(f"{describe_disk(disk)} keeps a FAT filesystem ({', '.join(esps)}); firmware may boot it")
    return notes
