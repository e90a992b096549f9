"""Encryption in plans: what the machine must have, the order of the steps, and what the boot opens."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.facts import Facts
from cloner_core.layout import (
    DiskLayout,
    Filesystem,
    Layout,
    LogicalVolume,
    Luks,
    Partition,
    PhysicalVolume,
    Size,
    Swap,
    Unlock,
    VolumeGroup,
)
from cloner_core.messages import Cause, Stage
from cloner_core.plan import Plan, PlanError, early, render
from cloner_core.sizes import GIB, MIB
from cloner_core.steps import BootFiles, CheckInitramfs, Command, LuksFormat, LuksKeys, OpenAtBoot, Restore, Rewrite
from core.machines import ANY_DISK, REST, disk, machine, plan

TPM = Unlock("tpm2")
TYPED = Unlock("passphrase")
FRESH = Unlock("random")
ROOT = Filesystem(kind="ext4", mount="/")


def facts(*, tpm: int = 2, is_secure_boot: bool = False) -> Facts:
    return msgspec.structs.replace(machine(disk(size_bytes=40 * GIB)), tpm_major=tpm, is_secure_boot=is_secure_boot)


def layout(*sealed: tuple[Size, Luks], groups: tuple[VolumeGroup, ...] = (), root: Filesystem | None = None) -> Layout:
    """Return esp, /boot, a plain root when one is given, and encrypted partitions."""
    esp = Partition("esp", Size(512 * MIB, 512 * MIB), Filesystem(kind="vfat", mount="/boot/efi"))
    boot = Partition("data", Size(GIB, GIB), Filesystem(kind="ext4", mount="/boot"))
    plain = [Partition("root", Size(8 * GIB, 8 * GIB), root)] if root else []
    partitions = (esp, boot, *plain, *(Partition("luks", size, one) for size, one in sealed))
    return Layout(name="sealed", disks=(DiskLayout("system", ANY_DISK, partitions),), groups=groups)


def kinds(made: Plan) -> list[type]:
    return [type(step.action) for step in made.steps]


@pytest.mark.parametrize(("tpm", "said"), [(0, "shows no TPM"), (1, "shows a TPM 1")])
def test_a_machine_without_a_tpm_2_is_refused(tpm: int, said: str) -> None:
    with pytest.raises(PlanError, match=said) as refused:
        plan(facts(tpm=tpm), layout((REST, Luks("root", TPM, ROOT))))
    assert refused.value.cause is Cause.TPM


def test_a_machine_without_a_tpm_takes_a_layout_that_a_person_unlocks() -> None:
    assert plan(facts(tpm=0), layout((REST, Luks("root", TYPED, ROOT)))).crypts


def test_registers_that_move_between_the_network_and_the_disk_are_refused() -> None:
    assert plan(facts(), layout((REST, Luks("root", Unlock("tpm2", (0, 2, 3, 7)), ROOT))))
    with pytest.raises(PlanError, match=r"register 4, 9 of the TPM .* root would never be unlocked") as refused:
        plan(facts(), layout((REST, Luks("root", Unlock("tpm2", (0, 4, 9)), ROOT))))
    assert refused.value.cause is Cause.LAYOUT


def test_keys_change_after_the_files_are_there_and_the_initramfs_is_told_last() -> None:
    made = plan(facts(), layout((REST, Luks("root", TPM, ROOT))))
    order = kinds(made)
    wanted = [LuksFormat, Restore, Rewrite, LuksKeys, BootFiles, CheckInitramfs, OpenAtBoot]
    assert [order.index(kind) for kind in wanted] == sorted(order.index(kind) for kind in wanted)
    stages = list(Stage)
    assert [stages.index(step.stage) for step in made.steps] == sorted(stages.index(step.stage) for step in made.steps)
    files = next(step.action for step in made.steps if isinstance(step.action, BootFiles))
    assert files.root == "/dev/mapper/root"
    assert files.kernel_arguments == (f"rd.luks.name={made.crypts[0].uuid}=root",)


def test_swap_with_a_new_key_at_each_boot_is_left_to_the_boot() -> None:
    made = plan(facts(tpm=0), layout((Size(2 * GIB, 2 * GIB), Luks("swap", FRESH, Swap())), root=ROOT))
    partition = made.partitions[3]
    (crypt,) = made.crypts
    assert (crypt.source, crypt.uuid, crypt.backing) == (f"PARTUUID={partition.part_uuid}", "", partition.device)
    assert not {LuksFormat, LuksKeys, OpenAtBoot} & set(kinds(made))
    assert [(one.device, one.uuid) for one in made.entries if one.filesystem == "swap"] == [("/dev/mapper/swap", "")]
    named = [step.action.argv for step in made.steps if isinstance(step.action, Command)]
    assert not [argv for argv in named if argv[0] == "mkswap"]


def test_swap_with_a_new_key_needs_a_name_that_lasts() -> None:
    whole = DiskLayout("more", ANY_DISK, table="none", content=Luks("swap", FRESH, Swap()))
    sealed = layout((REST, Luks("root", TYPED, ROOT)))
    disks = (
        msgspec.structs.replace(sealed.disks[0], select=msgspec.structs.replace(ANY_DISK, serial="A")),
        msgspec.structs.replace(whole, select=msgspec.structs.replace(ANY_DISK, serial="B")),
    )
    two = machine(disk(serial="A"), disk("/dev/vdb", serial="B"))
    with pytest.raises(PlanError, match="a whole disk has no name that stays"):
        plan(two, msgspec.structs.replace(sealed, disks=disks))


def test_the_initramfs_opens_what_root_and_usr_lie_on_and_what_a_tpm_unlocks() -> None:
    group = VolumeGroup(
        name="vg0",
        volumes=(
            LogicalVolume("root", Size(8 * GIB), ROOT),
            LogicalVolume("data", Size(GIB), Luks("inner", TYPED, Filesystem(kind="ext4", mount="/srv"))),
        ),
    )
    sealed = layout(
        (Size(12 * GIB, 12 * GIB), Luks("pv", TYPED, PhysicalVolume("vg0"))),
        (Size(GIB, GIB), Luks("usr", TYPED, Filesystem(kind="ext4", mount="/usr"))),
        (Size(GIB, GIB), Luks("home", TYPED, Filesystem(kind="ext4", mount="/home"))),
        (Size(GIB, GIB), Luks("var", TPM, Filesystem(kind="ext4", mount="/var"))),
        groups=(group,),
    )
    made = plan(facts(), sealed)
    assert [one.name for one in early(made)] == ["pv", "usr", "var"]
    assert {one.name for one in made.crypts} == {"pv", "usr", "home", "var", "inner"}


@pytest.mark.parametrize(
    ("unlock", "is_secure_boot", "said"),
    [
        (TYPED, False, "opened by a person who types its passphrase at each boot: cloner node recovery-key node01"),
        (TPM, False, "whatever is started on it: a disk that was taken out is safe"),
        (Unlock("tpm2", (7,)), False, "bound to register 7 of the TPM while Secure Boot is off"),
        (Unlock("tpm2", (7,)), True, ""),
    ],
)
def test_what_the_way_of_unlocking_means_is_noted(unlock: Unlock, is_secure_boot: bool, said: str) -> None:
    made = plan(facts(is_secure_boot=is_secure_boot), layout((REST, Luks("root", unlock, ROOT))))
    assert [note for note in made.notes if "root " in note] == [note for note in made.notes if said and said in note]
    assert bool(said) == any(said in note for note in made.notes if said)


def test_the_rendered_plan_says_which_keys_there_will_be() -> None:
    rendered = render(plan(facts(), layout((REST, Luks("root", Unlock("tpm2", (0, 7)), ROOT)))))
    assert "gets a key sealed in the TPM, for as long as its registers 0, 7 are as they are now, and the" in rendered
    assert "the key it was made with is destroyed" in rendered


def test_the_guard_looks_for_the_container_too() -> None:
    luks = Luks("root", TPM, ROOT, source_uuid="0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e")
    made = plan(facts(), layout((REST, luks)))
    guarded = made.steps[0].action.identifiers  # type: ignore[union-attr]
    assert {made.crypts[0].uuid, luks.source_uuid} <= set(guarded)
