"""Whether an image fits nodes, from their inventories alone: what a deploy would choose, make and refuse, and why.

Asks the very planner of a deploy, so that it never disagrees with one; touches nothing, and asks no machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import msgspec

from cloner_core.admin.fitting import FitDisk, FitOther, FitRefusal, FitSize, FitView
from cloner_core.admin.nodes import NodeView
from cloner_core.bootfiles import NotBootableError
from cloner_core.bootneeds import (
    INITRAMFS_HINT,
    NO_TOOL,
    BoundDevice,
    device_needs,
    initramfs_text,
    lacking_words,
    lacks,
    layout_needs,
    rebuild_of,
)
from cloner_core.describing import describe_disk
from cloner_core.errors import ClonerError
from cloner_core.facts import Disk, Facts
from cloner_core.kernelmodules import drivers_of
from cloner_core.layout import Layout
from cloner_core.messages import Cause, Task
from cloner_core.plan import Plan, foreign_identifiers
from cloner_core.refusals import PlanError
from cloner_core.selectors import select_disks, why_not
from cloner_core.sizes import MIB
from cloner_server.catalog import Version
from cloner_server.imagedrivers import ImageDrivers
from cloner_server.planning import expected_plan
from cloner_server.state import nodes
from cloner_server.tasks.rules import Rules

_NOT_TO_BOOT = ("sr_mod", "sg", "st", "ses", "ch")  # beneath the same controller: what else hangs on it


def fit(
    node: NodeView,
    known: tuple[Facts, float] | None,
    task: Task,
    version: Version,
    *,
    rules: Rules,
    now_s: float,
    boot_fault: ClonerError | None,
    drivers: ImageDrivers | None,
    installer: Set[str],
    kernel_notes: Sequence[str] = (),
) -> FitView:
    """Return what a deploy of `task` to `node` would make of the machine that `known` describes.

    `boot_fault` says that the version holds nothing that boots as the layout wants it; None when it does. `drivers`
    are None where they cannot be told. `installer` are the modules of the agent's kernel; none when that is not known.
    `kernel_notes` are what is to be said of that kernel.
    """
    own = tuple(_refused(lambda: nodes.refuse_protected(node), lambda: nodes.refuse_unwritable(node)))
    view = FitView(
        node=node.name,
        image=task.version.image,
        version=task.version.number,
        layout=task.layout.name,
        fits=False,
        refusals=(*own, *_refused(lambda: _raise(boot_fault))),
    )
    if known is None:
        lacking = FitRefusal(
            cause="no-inventory",
            message=f"{node.name} has told nothing of itself yet",
            hint=f"cloner netboot --nodes {node.name} --set discover",
        )
        return msgspec.structs.replace(view, refusals=(*view.refusals, lacking))
    facts, told_s = known
    plans: list[Plan] = []
    refusals = [
        *view.refusals,
        *_refused(
            lambda: _require_memory(node, facts, rules),
            lambda: plans.append(_planned(facts, task, version)),
        ),
    ]
    plan = plans[0] if plans else None
    driver_notes: list[str] = []
    if plan is not None:
        refusals += _refused(lambda: driver_notes.extend(_initramfs_notes(plan, facts, drivers)))
    chosen = _chosen(task.layout, facts, node.protected_serials)
    refusals += _refused(lambda: _require_installer(facts, chosen, installer))
    return msgspec.structs.replace(
        view,
        fits=not refusals,
        refusals=tuple(refusals),
        told_s=told_s,
        age_s=max(0.0, now_s - told_s),
        machine=f"{facts.dmi.vendor} {facts.dmi.product}".strip(),
        firmware=facts.firmware.value,
        arch=facts.arch,
        memory_bytes=facts.memory_bytes,
        disks=tuple(_disk(name, disk) for name, disk in chosen.items()),
        others=tuple(_others(task.layout, facts, chosen, node.protected_serials)),
        sizes=tuple(_sizes(plan)) if plan else (),
        notes=(*(plan.notes if plan else ()), *driver_notes, *_undriven(facts), *kernel_notes),
    )


def _refused(*questions: Callable[[], None]) -> Iterator[FitRefusal]:
    """Give what each question raises, in the words of what raised it."""
    for ask in questions:
        try:
            ask()
        except ClonerError as fault:
            yield _refusal(fault)


def _raise(fault: ClonerError | None) -> None:
    if fault is not None:
        raise fault


def _refusal(fault: ClonerError) -> FitRefusal:
    cause = fault.cause if isinstance(fault, PlanError) else Cause.REFUSED
    if isinstance(fault, NotBootableError):
        cause = Cause.NOT_BOOTABLE
    return FitRefusal(cause=cause.value, message=fault.message, hint=fault.hint)


def unplannable(node: NodeView, image: str, fault: ClonerError) -> FitView:
    """Return that nothing can be planned for `node`: it has no layout, say."""
    return FitView(node=node.name, image=image, version=0, layout="", fits=False, refusals=(_refusal(fault),))


def _planned(facts: Facts, task: Task, version: Version) -> Plan:
    plan = expected_plan(facts, task, version)
    if found := foreign_identifiers(plan, facts):
        raise PlanError(Cause.FOREIGN_UUID, f"an identifier of this deploy is on another disk: {'; '.join(found)}")
    return plan


def _require_memory(node: NodeView, facts: Facts, rules: Rules) -> None:
    if facts.memory_bytes < rules.agent_memory_bytes:
        needs, has = rules.agent_memory_bytes >> 20, facts.memory_bytes >> 20
        raise PlanError(
            Cause.MEMORY,
            f"the agent needs {needs} MiB of memory, {node.name} has {has} MiB",
            hint="add memory, or build a smaller installer (cloner initramfs build --drivers vm)",
        )


def _chosen(layout: Layout, facts: Facts, protected: Sequence[str]) -> dict[str, Disk]:
    """Return the disk of each selector; where one of them finds none, those that the others mean."""
    try:
        return select_disks(layout, facts.disks, protected)
    except PlanError:
        found: dict[str, Disk] = {}
        for wanted in layout.disks:
            alone = msgspec.structs.replace(layout, disks=(wanted,))
            try:
                found |= select_disks(alone, facts.disks, protected)
            except PlanError:
                continue
        return found


def _disk(name: str, disk: Disk) -> FitDisk:
    return FitDisk(
        id=name,
        path=disk.path,
        serial=disk.serial,
        model=disk.model,
        size_bytes=disk.size_bytes,
        sector_bytes=disk.sector_bytes,
        bus=disk.bus,
    )


def _others(layout: Layout, facts: Facts, chosen: dict[str, Disk], protected: Sequence[str]) -> Iterator[FitOther]:
    taken = {disk.path for disk in chosen.values()}
    for disk in facts.disks:
        if disk.path in taken:
            continue
        reasons = {wanted.id: why_not(wanted.select, disk, protected) for wanted in layout.disks}
        why = {name: reason or "matches, as others do" for name, reason in reasons.items()}
        said = set(why.values())
        told = said.pop() if len(said) == 1 else "; ".join(f"{name}: {reason}" for name, reason in why.items())
        yield FitOther(disk=describe_disk(disk), why=told)


def _sizes(plan: Plan) -> Iterator[FitSize]:
    """Give every device the plan makes, in the order they lie on each other, with what fills it."""
    volumes = {volume.device: volume for volume in plan.volumes}

    def one(device: str, what: str, size_bytes: int) -> FitSize:
        volume = volumes.pop(device, None)
        if volume is None:
            return FitSize(device=device, what=what, size_bytes=size_bytes)
        mounts = [one.mount for one in plan.mounts if one.device == device]
        kept = " (kept)" if volume.is_kept else ""
        return FitSize(device, what + kept, size_bytes, volume.filesystem, tuple(mounts))

    for disk in plan.disks:
        for partition in disk.partitions:
            yield one(partition.device, partition.role, partition.size_sectors * disk.disk.sector_bytes)
    for array in plan.arrays:
        yield one(array.device, f"array {array.id}, {array.level}", array.size_bytes)
    for crypt in plan.crypts:
        held = volumes.get(crypt.device)
        yield one(crypt.device, f"encrypted {crypt.name}", held.size_bytes if held else 0)
    for group in plan.groups:
        for logical in group.volumes:
            yield one(group.device(logical), f"volume of {group.name}", logical.extents * group.extent_mib * MIB)
    for volume in tuple(volumes.values()):  # a filesystem on a whole disk
        yield one(volume.device, volume.role, volume.size_bytes)


def _require_installer(facts: Facts, chosen: Mapping[str, Disk], installer: Set[str]) -> None:
    """Raise PlanError when the agent would not see a disk or the network that the machine had in its inventory."""
    if not installer:
        return
    cards = {nic.pci_id for nic in facts.nics if nic.mac == facts.boot_mac}
    wanted = {disk.controller: f"disk {disk.path}" for disk in chosen.values() if disk.controller}
    wanted |= {one.address: f"network card {one.id}" for one in facts.pci if not one.is_storage and one.id in cards}
    lacking = {
        one: missing
        for one in facts.pci
        if one.address in wanted and (missing := sorted(set(one.modules) - installer - set(_NOT_TO_BOOT)))
    }
    if lacking:
        told = [f"{', '.join(missing)} for {wanted[one.address]}" for one, missing in lacking.items()]
        raise PlanError(
            Cause.NO_DISK if all(one.is_storage for one in lacking) else Cause.BOOT,
            f"the installer of this server lacks {'; '.join(told)}",
            hint="cloner initramfs build --drivers full, then restart the server with it",
        )


def _undriven(facts: Facts) -> Iterator[str]:
    for device in facts.pci:
        if not device.driver:
            kind = "disk controller" if device.is_storage else "network card"
            named = f"{kind} {device.id} at {device.address}"
            yield f"the installer has no driver for the {named}: what hangs on it is not seen (--drivers full?)"


def _initramfs_notes(plan: Plan, facts: Facts, image: ImageDrivers | None) -> list[str]:
    """Return what the deploy will do about the image's initramfs; raises PlanError where nothing would help."""
    if image is None:
        return ["the image has no kernel with modules where they usually are: its drivers were not looked at"]
    if image.initrd is None:
        return [initramfs_text(image.release, image.initramfs, f"not looked into: {image.trouble}")]
    devices = tuple(_devices(plan, facts))
    known = drivers_of((device.modalias for device in devices if device.modalias), image.alias, image.builtin)
    needs = (*device_needs(devices, image.table, known), *layout_needs(plan))
    lacking = lacks(needs, image.initrd, image.release, image.table)
    if not lacking:
        return []
    why = "; ".join(lacking_words(lacking))
    is_hopeless = rebuild_of(image.rebuilders, image.release, f"/{image.initramfs}") is None
    text = initramfs_text(image.release, image.initramfs, f"{why}, {NO_TOOL}" if is_hopeless else why)
    if is_hopeless and any(need.is_needed for need, _ in lacking):
        raise PlanError(Cause.NOT_BOOTABLE, text, hint=INITRAMFS_HINT)
    return [text if is_hopeless else f"{text}; the deploy has the image make it anew"]


def _devices(plan: Plan, facts: Facts) -> Iterator[BoundDevice]:
    """Give what drives the chosen disks and the network cards, as far as the inventory tells."""
    chosen = {planned.disk.controller: planned.disk.path for planned in plan.disks if planned.disk.controller}
    for device in facts.pci:
        if not device.driver or (device.is_storage and device.address not in chosen):
            continue
        what = f"disk {chosen[device.address]}" if device.is_storage else f"network card {device.id}"
        yield BoundDevice(what, device.driver, modalias=device.modalias, is_needed=device.is_storage)
        for module in device.modules:
            if module not in _NOT_TO_BOOT:
                yield BoundDevice(what, module, module=module, is_needed=device.is_storage)
