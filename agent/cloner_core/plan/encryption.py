"""Encryption in a plan: what the machine must have for it, who opens what, and the steps that give it its keys.

No key is in a plan. Must not know how an image opens a device; that is `cloner_core.unlocking`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloner_core.facts import Facts
from cloner_core.layout import Content, Layout, Luks, PhysicalVolume, mounts_of
from cloner_core.messages import Cause, Stage
from cloner_core.plan.values import Plan, PlannedCrypt
from cloner_core.refusals import PlanError
from cloner_core.steps import LuksKeys, OpenAtBoot, Opened, Step
from cloner_core.unlocking import Wanted

STEADY_PCRS = (0, 2, 3, 7)
"""What a start from the network and one from the disk can measure alike: firmware, its extensions, Secure Boot.

The others hold boot variables, loaders, kernels and their command lines (TCG PC Client Platform Firmware Profile §3.3).
"""


def check_encryption(facts: Facts, layout: Layout) -> None:
    """Raise PlanError when the machine cannot unlock what the layout encrypts."""
    by_tpm = [one for _, one in layout.contents() if isinstance(one, Luks) and one.unlock.way == "tpm2"]
    if not by_tpm:
        return
    names = ", ".join(one.name for one in by_tpm)
    if facts.tpm_major != 2:
        has = f"a TPM {facts.tpm_major}" if facts.tpm_major else "no TPM"
        raise PlanError(
            Cause.TPM,
            f"the layout has {names} unlocked by a TPM 2.0, and the machine shows {has}",
            hint="switch the TPM on in the firmware's setup, or take a layout that is unlocked by passphrase",
        )
    moving = sorted({pcr for one in by_tpm for pcr in one.unlock.pcrs} - set(STEADY_PCRS))
    if moving:
        raise PlanError(
            Cause.LAYOUT,
            f"register {', '.join(map(str, moving))} of the TPM is another one when the machine starts from its disk"
            f" than while it is cloned: {names} would never be unlocked",
            hint=f"pcrs: only {', '.join(map(str, STEADY_PCRS))} can be used, or none",
        )


def encryption_notes(crypts: Sequence[PlannedCrypt], facts: Facts, node: str) -> Iterator[str]:
    """Give what an admin must know of each encrypted device."""
    for crypt in crypts:
        match crypt.unlock.way:
            case "passphrase":
                yield (
                    f"{crypt.name} is opened by a person who types its passphrase at each boot:"
                    f" cloner node recovery-key {node}"
                )
            case "tpm2" if 7 in crypt.unlock.pcrs and not facts.is_secure_boot:
                yield (
                    f"{crypt.name} is bound to register 7 of the TPM while Secure Boot is off: it is not unlocked any"
                    " more once that is switched on, nor after a change of its keys"
                )
            case "tpm2" if not crypt.unlock.pcrs:
                yield (
                    f"{crypt.name} is unlocked by the TPM of this machine whatever is started on it: a disk that was"
                    " taken out is safe, a machine that was carried away is not"
                )
            case _:
                pass


def is_opened_early(layout: Layout, luks: Luks) -> bool:
    """Whether the initramfs must open `luks`: the root or /usr lies in it, or it is what a TPM unlocks.

    Past the initramfs nothing asks clevis without a network.
    """
    return luks.unlock.way == "tpm2" or (luks.unlock.way == "passphrase" and _carries_system(layout, luks.content))


def early(plan: Plan) -> tuple[PlannedCrypt, ...]:
    """Return what the initramfs must open, in the order of the layout."""
    return tuple(crypt for crypt in plan.crypts if crypt.is_early)


def wanted_of(layout: Layout) -> tuple[Wanted, ...]:
    """Return what an image must be able to open for `layout`."""
    found = [content for _, content in layout.contents() if isinstance(content, Luks)]
    return tuple(Wanted(one.name, one.unlock.way, is_early=is_opened_early(layout, one)) for one in found)


def kernel_arguments(plan: Plan) -> tuple[str, ...]:
    """Return what tells an initramfs of dracut which devices to open; one of initramfs-tools reads its own list."""
    return tuple(f"rd.luks.name={crypt.uuid}={crypt.name}" for crypt in early(plan))


def key_steps(plan: Plan) -> Iterator[Step]:
    """Give the step that puts the keys of the clone in place of the one drawn for its making, for each container."""
    for crypt in plan.crypts:
        if not crypt.is_fresh:
            by_tpm = crypt.unlock.way == "tpm2"
            told = "the TPM and the recovery key" if by_tpm else "the recovery key"
            action = LuksKeys(
                device=crypt.backing, name=crypt.name, uuid=crypt.uuid, way=crypt.unlock.way, pcrs=crypt.unlock.pcrs
            )
            yield Step(Stage.IDENTITY, f"give {crypt.name} its keys: {told}, and no other", action)


def opening_steps(plan: Plan) -> Iterator[Step]:
    """Give the step after which the initramfs opens what the clone needs to start."""
    opened = tuple(Opened(crypt.name, crypt.uuid, crypt.unlock.way) for crypt in early(plan))
    if opened:
        names = ", ".join(one.name for one in opened)
        yield Step(Stage.BOOTFILES, f"have the initramfs open {names}", OpenAtBoot(opened))


def _carries_system(layout: Layout, content: Content) -> bool:
    """Whether the root or /usr lies in `content`, directly or not."""
    match content:
        case Luks():
            return _carries_system(layout, content.content)
        case PhysicalVolume():
            groups = (group for group in layout.groups if group.name == content.group)
            return any(_carries_system(layout, volume.content) for group in groups for volume in group.volumes)
        case _:
            return not {"/", "/usr"}.isdisjoint(mounts_of(content))
