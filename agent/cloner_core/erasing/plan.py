"""The plan of an erase: which disks, which way each, chosen from what the machine tells; or a refusal that says why.

Agent and server make it from the same facts and must come to the same value. Must not touch a disk.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
from blake3 import blake3

from cloner_core.describing import describe_content, describe_disk
from cloner_core.erasing.abilities import EraseAbilities
from cloner_core.erasing.words import EraseOrder, EraseTask, MethodWord, ThenWord, VerifyWord, Way
from cloner_core.facts import Disk, Facts
from cloner_core.layout import Selector
from cloner_core.messages import Cause, Strict
from cloner_core.refusals import PlanError
from cloner_core.selectors import describe_selector, why_not

UNFREEZE = (
    "have the machine sleep and wake (suspend to RAM), or pull and plug the disk's power while it runs, or switch the"
    " security freeze off in the firmware's setup"
)
_ANY = Selector()
_OF_METHOD: Mapping[MethodWord, tuple[Way, ...]] = {
    "sanitize": (Way.SANITIZE_BLOCK, Way.SANITIZE_CRYPTO),
    "format": (Way.FORMAT, Way.FORMAT_CRYPTO),
    "ata-secure": (Way.ATA_ENHANCED, Way.ATA),
    "discard": (Way.DISCARD,),
    "overwrite": (Way.OVERWRITE,),
}
_STRONG = (*_OF_METHOD["sanitize"], *_OF_METHOD["format"], *_OF_METHOD["ata-secure"])
"""What reaches the cells a disk keeps for itself; in this order `auto` asks for them."""


class PlannedErase(Strict, frozen=True):
    """One disk that will be erased."""

    disk: Disk
    ways: tuple[Way, ...]  # the first; a second one is taken where the first does not leave zeroes
    passes: int


class ErasePlan(Strict, frozen=True):
    """Everything an erase will do to a machine."""

    node: str
    disks: tuple[PlannedErase, ...]
    left: tuple[str, ...]  # disks that are not erased, each with the reason
    verify: VerifyWord
    then: ThenWord
    notes: tuple[str, ...] = ()


class WaysError(PlanError):
    """No way of the method can be taken for a disk."""


def plan_erase(facts: Facts, task: EraseTask) -> ErasePlan:
    """Return what erasing `task` does to the machine of `facts`; the same arguments, the same plan.

    Raises PlanError: no-disk, device-busy, or no-method.
    """
    order = task.order
    chosen, left = _choose(facts.disks, order, task.protected_serials)
    _require_agreed(chosen, order)
    abilities = {one.path: one for one in facts.erasing}
    chosen_abilities = [abilities.get(disk.path, EraseAbilities(disk.path)) for disk in chosen]
    notes: list[str] = []
    planned = []
    for disk, told in zip(chosen, chosen_abilities, strict=True):
        ways, why = choose_ways(disk, told, order.method, chosen_abilities)
        notes += [f"{describe_disk(disk)}: {reason}" for reason in why]
        if not disk.serial:
            notes.append(f"{describe_disk(disk)} has no serial: the receipt can tell it by path and size alone")
        planned.append(PlannedErase(disk, ways, order.passes))
    return ErasePlan(task.node, tuple(planned), tuple(left), order.verify, order.then, tuple(notes))


def choose_ways(
    disk: Disk, told: EraseAbilities, method: MethodWord, chosen: Sequence[EraseAbilities]
) -> tuple[tuple[Way, ...], list[str]]:
    """Return the ways for `disk` in order, and why better ones are not taken; `chosen` is told of all disks chosen.

    Raises WaysError when `method` cannot be.
    """
    if method != "auto":
        reasons = {way: _why_no_way(way, disk, told, chosen) for way in _OF_METHOD[method]}
        usable = [way for way, reason in reasons.items() if not reason]
        if not usable:
            said = "; ".join(dict.fromkeys(reasons.values()))
            hint = UNFREEZE if told.ata and told.ata.is_frozen else "--method auto takes what the disk can"
            raise WaysError(Cause.NO_METHOD, f"{describe_disk(disk)} cannot be erased by '{method}': {said}", hint=hint)
        return (usable[0],), []
    reasons = {way: _why_no_way(way, disk, told, chosen) for way in _STRONG}
    usable = [way for way, reason in reasons.items() if not reason]
    if usable:
        return (usable[0],), _worth_saying(reasons, usable[0])
    if told.ata is not None and told.ata.is_locked:
        raise WaysError(Cause.NO_METHOD, f"{describe_disk(disk)} is locked by a password and frozen", hint=UNFREEZE)
    # Virtual disks say that they rotate; of ATA disks those that do keep what was trimmed somewhere on their platters.
    is_trusted = told.ata is None or (told.ata.is_zero_after_trim and not disk.is_rotational)
    if told.can_discard and is_trusted and told.nvme is None:
        # What is discarded is read in whole; a disk that did not forget it is overwritten.
        return (Way.DISCARD, Way.OVERWRITE), _worth_saying(reasons, None)
    return (Way.OVERWRITE,), _worth_saying(reasons, None)


def disk_key(disk: Disk) -> str:
    """Return what an agreement names a disk by: what stays the same from boot to boot."""
    return f"{disk.serial or disk.wwn or disk.by_path or disk.path} {disk.size_bytes}"


def erase_digest(plan: ErasePlan) -> str:
    """Return the BLAKE3 (hex) of the plan's canonical encoding."""
    encoded = msgspec.json.encode(plan, order="deterministic")
    return blake3(encoded, derive_key_context="cloner 2026 erase plan").hexdigest()


def render_erase(plan: ErasePlan) -> str:
    """Return what will be destroyed, and how, as text for a person."""
    lines = [f"# erase plan {erase_digest(plan)}", f"# node {plan.node}", *(f"# note: {note}" for note in plan.notes)]
    for planned in plan.disks:
        lines.append(f"# {describe_disk(planned.disk)}; all of it will be destroyed:")
        lines += [f"#   {line}" for line in describe_content(planned.disk)]
        lines.append(f"erase {planned.disk.path}: {describe_ways(planned.ways, planned.passes)}")
    lines += [f"# left: {one}" for one in plan.left]
    lines.append(f"# verified by reading {'everything' if plan.verify == 'full' else 'a sample'}; then: {plan.then}")
    return "\n".join(lines) + "\n"


def describe_ways(ways: Sequence[Way], passes: int) -> str:
    """Return the ways in words: "discard, and overwrite where that leaves anything"."""
    said = [f"{way} in {passes} passes" if way is Way.OVERWRITE and passes > 1 else way.value for way in ways]
    return f"{said[0]}, and {said[1]} where that leaves anything" if len(said) > 1 else said[0]


def _choose(disks: Sequence[Disk], order: EraseOrder, protected: Collection[str]) -> tuple[list[Disk], list[str]]:
    chosen, left = [], []
    for disk in disks:
        barred = why_not(_ANY, disk, protected)
        # What `why_not` has against a disk beyond what bars it from anything is that it is not like the selector.
        is_meant = any(why_not(select, disk, protected) == barred for select in order.select or (_ANY,))
        if not is_meant:
            left.append(f"{describe_disk(disk)}: not chosen")
        elif disk.is_mounted:
            raise PlanError(
                Cause.DEVICE_BUSY,
                f"{describe_disk(disk)} {barred}",
                hint="release it, or choose the disks by --disks so that it is not among them",
            )
        elif disk.serial and disk.serial in protected and order.select:
            raise PlanError(
                Cause.NO_DISK, f"{describe_disk(disk)} {barred}", hint="cloner node set --protect-serial, or narrow it"
            )
        elif barred:
            left.append(f"{describe_disk(disk)}: {barred}")
        else:
            chosen.append(disk)
    if not chosen:
        wanted = " or ".join(describe_selector(select) for select in order.select) or "any properties"
        lines = "\n  - ".join((f"no disk to erase; wanted: {wanted}", *(left or ["there is no disk"])))
        raise PlanError(Cause.NO_DISK, lines, hint="compare --disks with the disks in 'cloner node facts'")
    return chosen, left


def _require_agreed(chosen: Sequence[Disk], order: EraseOrder) -> None:
    """Refuse disks that nobody was shown, and a machine that lacks one that was."""
    if order.agreed is None:
        return
    keys = {disk_key(disk): disk for disk in chosen}
    foreign = [describe_disk(disk) for key, disk in keys.items() if key not in order.agreed]
    missing = [key for key in order.agreed if key not in keys]
    faults = [f"{one} was not there when the erase was agreed to" for one in foreign]
    faults += [f"the disk with serial and size '{one}' is not there" for one in missing]
    if faults:
        raise PlanError(
            Cause.NO_DISK,
            "the disks are not those that were shown: " + "; ".join(faults),
            hint="the inventory is new now: run 'cloner erase' again and look at what it shows",
        )


def _why_no_way(way: Way, disk: Disk, told: EraseAbilities, chosen: Sequence[EraseAbilities]) -> str:
    """Return why `way` cannot be taken for `disk`; "" when it can."""
    if way in (Way.OVERWRITE, Way.DISCARD):
        return "" if way is Way.OVERWRITE or told.can_discard else "it takes no discard"
    if way in (Way.ATA, Way.ATA_ENHANCED):
        return _why_not_ata(way, disk, told)
    return _why_not_nvme(way, disk, told, chosen)


def _why_not_nvme(way: Way, disk: Disk, told: EraseAbilities, chosen: Sequence[EraseAbilities]) -> str:
    nvme = told.nvme
    if nvme is None:
        return "it is no NVMe device" if disk.bus != "nvme" else "its controller did not tell what it can"
    can = {
        Way.SANITIZE_BLOCK: nvme.can_sanitize_block,
        Way.SANITIZE_CRYPTO: nvme.can_sanitize_crypto,
        Way.FORMAT: nvme.can_format,
        Way.FORMAT_CRYPTO: nvme.can_format_crypto,
    }
    if not can[way]:
        return f"its controller does not offer {way}"
    reaches_all = nvme.is_format_of_all if way in _OF_METHOD["format"] else True
    mine = sum(one.nvme is not None and one.nvme.subsystem == nvme.subsystem for one in chosen)
    if reaches_all and mine != nvme.namespaces:
        count = nvme.namespaces or "an unknown number of"
        return f"{way} would reach {count} namespaces of its subsystem, of which {mine} are to be erased"
    return ""


def _why_not_ata(way: Way, disk: Disk, told: EraseAbilities) -> str:
    ata = told.ata
    if ata is None:
        return "it is no ATA disk" if disk.bus != "ata" else "it did not tell what it can"
    if not ata.is_supported:
        return "it has no ATA security"
    if ata.is_frozen:
        return "its ATA security is frozen by the firmware"
    if way is Way.ATA_ENHANCED and not ata.is_enhanced:
        return "it offers no enhanced erase"
    return ""


def _worth_saying(reasons: Mapping[Way, str], taken: Way | None) -> list[str]:
    """Return the reasons a person can do something about: a stronger way that the disk has and cannot use now."""
    said = []
    for way, reason in reasons.items():
        if way is taken:
            break
        if "frozen" in reason:
            said.append(f"{reason}, so {way.value} cannot be ({UNFREEZE})")
            break
        if "would reach" in reason:
            said.append(reason)
    return said
