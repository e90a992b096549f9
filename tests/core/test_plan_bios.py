"""Plans for machines that BIOS starts: where GRUB goes, what stands in for it until then, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.facts import Disk, DiskPartition, Facts, Firmware
from cloner_core.layout import DiskLayout, Filesystem, Layout, Partition, Selector, Size
from cloner_core.layout.types import Array, ArrayMember, Kept, Nothing, Swap
from cloner_core.messages import Cause, Stage
from cloner_core.plan import Plan, PlanError, render
from cloner_core.plan.biosbooting import bios_boot_step
from cloner_core.sizes import GIB, MIB
from cloner_core.steps import ActivateEsp, BiosBoot, BiosPlace, BiosStub, BootFiles, Nvram, StageEsp
from core.machines import REST, data_disk, disk, layout, machine, plan

ROOT = Filesystem(kind="ext4", mount="/")


ROOM = Partition(role="bios-boot", size=Size(MIB, MIB), content=Nothing())


def gpt() -> Layout:
    root = Partition(role="root", size=REST, content=ROOT)
    return Layout(name="gpt", disks=(DiskLayout(id="system", select=Selector(), partitions=(ROOM, root)),))


def mbr() -> Layout:
    swap = Partition(role="swap", size=Size(64 * MIB, 64 * MIB), content=Swap())
    root = Partition(role="root", size=REST, content=ROOT, is_active=True)
    disks = (
        DiskLayout(id="system", select=Selector(serial="CL0001"), table="mbr", partitions=(swap, root)),
        data_disk(Selector(serial="DATA")),
    )
    return Layout(name="mbr", disks=disks)


def mirror() -> Layout:
    member = Partition(role="raid", size=REST, content=ArrayMember("system"))
    disks = tuple(
        DiskLayout(id=name, select=Selector(serial=serial), table="mbr", partitions=(member,))
        for name, serial in (("first", "CL0001"), ("second", "DATA"))
    )
    return Layout(name="mirror", disks=disks, arrays=(Array("system", "raid1", ROOT),))


def bios(*disks: Disk) -> Facts:
    return machine(*(disks or (disk(),)), firmware=Firmware.BIOS)


TWO = (disk(), disk("/dev/vdb", serial="DATA"))


def places(made: Plan) -> tuple[BiosPlace, ...]:
    (found,) = [step.action.places for step in made.steps if isinstance(step.action, BiosBoot)]
    return found


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        pytest.param(plan(bios(), gpt()), (BiosPlace("/dev/vda", 2048, 2048),), id="gpt"),
        pytest.param(plan(bios(*TWO), mbr()), (BiosPlace("/dev/vda", 1, 2047),), id="mbr, and a disk for data"),
        pytest.param(
            plan(bios(*TWO), mirror()), (BiosPlace("/dev/vda", 1, 2047), BiosPlace("/dev/vdb", 1, 2047)), id="mirror"
        ),
    ],
)
def test_grub_goes_onto_every_disk_that_the_clone_boots_from(made: Plan, wanted: tuple[BiosPlace, ...]) -> None:
    assert places(made) == wanted


@pytest.mark.parametrize("made", [plan(bios(*TWO), mbr()), plan(bios(*TWO), mirror())], ids=["mbr", "mirror"])
def test_bios_passes_over_every_new_table_until_the_commit(made: Plan) -> None:
    actions = [step.action for step in made.steps]
    tables = [at for at, step in enumerate(made.steps) if step.why.startswith("write the partition table")]
    stubs = [at for at, action in enumerate(actions) if isinstance(action, BiosStub)]
    assert len(stubs) == len(tables) == 2
    for table, stub in zip(tables, stubs, strict=True):
        assert not any(isinstance(action, BootFiles) for action in actions[table:stub])
        assert all(step.stage is Stage.PARTITION for step in made.steps[table : stub + 1])
    last = next(at for at, action in enumerate(actions) if isinstance(action, BiosBoot))
    assert [step.stage for step in made.steps[last - 1 :]] == [
        Stage.COMMIT,
        Stage.COMMIT,
        Stage.RECEIPT,
        Stage.REBOOT,
    ]


def test_a_layout_for_both_boots_as_the_machine_was_started() -> None:
    both = layout()
    (system,) = both.disks
    both = Layout(name="both", disks=(DiskLayout("system", Selector(), (ROOM, *system.partitions)),))
    for facts, has, has_not in (
        (machine(disk()), (StageEsp, ActivateEsp, Nvram), (BiosStub, BiosBoot)),
        (bios(), (BiosStub, BiosBoot), (StageEsp, ActivateEsp, Nvram)),
    ):
        kinds = {type(step.action) for step in plan(facts, both).steps}
        assert set(has) <= kinds
        assert not set(has_not) & kinds


def test_the_plan_says_in_words_where_grub_goes() -> None:
    said = render(plan(bios(), gpt()))
    assert "/dev/vda: core image from sector 2048 on" in said
    assert "GRUB for BIOS in the clone" in said


@pytest.mark.parametrize(
    ("facts", "wanted", "cause", "says"),
    [
        pytest.param(bios(), layout(), Cause.FIRMWARE, "boots from an EFI partition", id="UEFI layout"),
        pytest.param(machine(disk()), gpt(), Cause.FIRMWARE, "no EFI partition", id="BIOS layout"),
        pytest.param(bios(disk(sector_bytes=4096)), gpt(), Cause.FIRMWARE, "4096 bytes", id="4Kn"),
    ],
)
def test_what_bios_could_not_start_is_refused(facts: Facts, wanted: Layout, cause: Cause, says: str) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        plan(facts, wanted)
    assert caught.value.cause is cause
    assert caught.value.hint


def test_a_kept_partition_that_leaves_no_room_is_refused() -> None:
    made = plan(bios(*TWO), mbr())
    system, data = made.disks
    old = msgspec.structs.replace(system.partitions[0], start_sectors=63)  # as DOS began it
    disks = (msgspec.structs.replace(system, partitions=(old, *system.partitions[1:])), data)
    with pytest.raises(PlanError, match="room for 62 sectors"):
        bios_boot_step(msgspec.structs.replace(made, disks=disks))


@pytest.mark.parametrize("is_chosen", [False, True], ids=["no partition is to be active", "another one is to be"])
def test_a_kept_partition_keeps_its_boot_flag_unless_another_is_to_have_it(is_chosen: bool) -> None:
    windows = DiskPartition(1, MIB, GIB, "0x07", "1234abcd-01", is_active=True)
    facts = bios(msgspec.structs.replace(disk(), table="dos", partitions=(windows,)))
    kept = Partition(role="data", size=REST, content=Kept(1))
    root = Partition(role="root", size=REST, content=ROOT, is_active=is_chosen)
    wanted = DiskLayout(id="system", select=Selector(), table="mbr", partitions=(kept, root))
    (made,) = plan(facts, Layout(name="beside", disks=(wanted,))).disks
    assert [one.is_active for one in made.partitions] == [not is_chosen, is_chosen]
