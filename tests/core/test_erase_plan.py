"""Which disks an erase takes and how: never one that nobody chose, never a way that reaches another disk."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloner_core.erasing.abilities import AtaAbilities, EraseAbilities, NvmeAbilities
from cloner_core.erasing.plan import ErasePlan, disk_key, erase_digest, plan_erase, render_erase
from cloner_core.erasing.words import EraseOrder, EraseReply, EraseTask, Way
from cloner_core.facts import Disk, Facts, Firmware, Signature
from cloner_core.layout import Selector
from cloner_core.messages import Cause, HelloReply
from cloner_core.refusals import PlanError

GIB = 1 << 30
SSD = AtaAbilities(is_supported=True, is_enhanced=True, minutes=2, enhanced_minutes=2)
FULL_NVME = NvmeAbilities("nqn.a", 1, can_sanitize_block=True, can_sanitize_crypto=True, can_format=True)


def disk(path: str, serial: str = "", **fields: Any) -> Disk:
    return Disk(path=path, size_bytes=fields.pop("size_bytes", GIB), serial=serial or path[-1].upper(), **fields)


def machine(*disks: Disk, abilities: tuple[EraseAbilities, ...] = ()) -> Facts:
    return Facts(
        firmware=Firmware.UEFI,
        arch="x86_64",
        memory_bytes=GIB,
        cpu_count=1,
        kernel_release="6.1",
        boot_mac="",
        disks=disks,
        nics=(),
        erasing=abilities,
    )


def plan(facts: Facts, *, protected: tuple[str, ...] = (), **order: Any) -> ErasePlan:
    return plan_erase(facts, EraseTask("1", "1-1-a", "n01", EraseOrder(**order), "00" * 32, protected))


def refusal(facts: Facts, **order: Any) -> PlanError:
    with pytest.raises(PlanError) as caught:
        plan(facts, **order)
    return caught.value


def ways(told: EraseAbilities, one: Disk | None = None, **order: Any) -> tuple[Way, ...]:
    one = one or disk(told.path)
    return plan(machine(one, abilities=(told,)), **order).disks[0].ways


def test_only_disks_that_a_selector_names_are_erased_and_the_others_are_told_as_left() -> None:
    made = plan(machine(disk("/dev/sda"), disk("/dev/sdb"), disk("/dev/sdc")), select=(Selector(serial="B"),))
    assert [one.disk.path for one in made.disks] == ["/dev/sdb"]
    assert [line.split()[0] for line in made.left] == ["/dev/sda", "/dev/sdc"]
    assert render_erase(made).count("all of it will be destroyed") == 1


def test_all_disks_are_never_those_on_usb_removable_read_only_empty_or_protected() -> None:
    facts = machine(
        disk("/dev/sda"),
        disk("/dev/sdb", bus="usb"),
        disk("/dev/sdc", is_removable=True),
        disk("/dev/sdd", is_read_only=True),
        disk("/dev/sde", size_bytes=0),
        disk("/dev/sdf"),
    )
    made = plan(facts, protected=("F",))
    assert [one.disk.path for one in made.disks] == ["/dev/sda"]
    assert len(made.left) == 5


@pytest.mark.parametrize("select", [(), (Selector(serial="B"),)], ids=["all", "named"])
def test_a_disk_in_use_is_refused_with_everything_else(select: tuple[Selector, ...]) -> None:
    refused = refusal(machine(disk("/dev/sda"), disk("/dev/sdb", is_mounted=True)), select=select)
    assert refused.cause is Cause.DEVICE_BUSY


def test_a_protected_disk_that_is_named_is_refused_and_not_passed_over() -> None:
    refused = refusal(machine(disk("/dev/sda"), disk("/dev/sdb")), protected=("B",), select=(Selector(serial="*"),))
    assert (refused.cause, "protected by its serial" in refused.message) == (Cause.NO_DISK, True)


def test_nothing_to_erase_is_refused_with_what_there_is() -> None:
    refused = refusal(machine(disk("/dev/sda")), select=(Selector(serial="X"),))
    assert (refused.cause, "/dev/sda" in refused.message) == (Cause.NO_DISK, True)


@pytest.mark.parametrize("present", ["AB", "A", "BC", ""], ids=["one more", "as shown", "other", "none"])
def test_disks_are_those_that_were_shown_or_nothing_is_erased(present: str) -> None:
    facts = machine(*(disk(f"/dev/sd{name.lower()}") for name in present))
    agreed = (disk_key(disk("/dev/sda")),)
    if present == "A":
        assert len(plan(facts, agreed=agreed).disks) == 1
        return
    assert refusal(facts, agreed=agreed).cause is Cause.NO_DISK


NVME = "/dev/nvme0n1"
SDA = "/dev/sda"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (EraseAbilities(NVME, nvme=FULL_NVME), (Way.SANITIZE_BLOCK,)),
        (EraseAbilities(NVME, nvme=NvmeAbilities("q", 1, can_sanitize_crypto=True)), (Way.SANITIZE_CRYPTO,)),
        (EraseAbilities(NVME, nvme=NvmeAbilities("q", 1, can_format=True)), (Way.FORMAT,)),
        (EraseAbilities(NVME, can_discard=True, nvme=NvmeAbilities("q", 1)), (Way.OVERWRITE,)),
        (EraseAbilities(SDA, ata=SSD), (Way.ATA_ENHANCED,)),
        (EraseAbilities(SDA, ata=msgspec.structs.replace(SSD, is_enhanced=False)), (Way.ATA,)),
        (EraseAbilities(SDA, can_discard=True, ata=AtaAbilities()), (Way.OVERWRITE,)),
        (
            EraseAbilities(SDA, can_discard=True, ata=AtaAbilities(is_zero_after_trim=True)),
            (Way.DISCARD, Way.OVERWRITE),
        ),
        (EraseAbilities("/dev/vda", can_discard=True), (Way.DISCARD, Way.OVERWRITE)),
        (EraseAbilities("/dev/vda"), (Way.OVERWRITE,)),
    ],
)
def test_auto_takes_the_strongest_way_a_disk_has(told: EraseAbilities, expected: tuple[Way, ...]) -> None:
    assert ways(told) == expected


def test_what_rotates_is_overwritten_where_it_cannot_erase_itself_and_virtual_disks_only_say_so() -> None:
    shingled = EraseAbilities(SDA, can_discard=True, ata=AtaAbilities(is_zero_after_trim=True))
    assert ways(shingled, disk(SDA, is_rotational=True)) == (Way.OVERWRITE,)
    virtual = EraseAbilities("/dev/vda", can_discard=True)
    assert ways(virtual, disk("/dev/vda", is_rotational=True)) == (Way.DISCARD, Way.OVERWRITE)


@pytest.mark.parametrize("method", ["sanitize", "format", "ata-secure", "discard"])
def test_a_method_the_disk_does_not_have_is_refused(method: str) -> None:
    refused = refusal(machine(disk(SDA)), method=method)
    assert refused.cause is Cause.NO_METHOD


def test_frozen_security_is_told_with_its_remedy() -> None:
    frozen = EraseAbilities(SDA, ata=msgspec.structs.replace(SSD, is_frozen=True))
    facts = machine(disk(SDA, bus="ata"), abilities=(frozen,))
    refused = refusal(facts, method="ata-secure")
    assert ("frozen" in refused.message, "suspend to RAM" in refused.hint) == (True, True)
    made = plan(facts)
    assert made.disks[0].ways == (Way.OVERWRITE,)
    assert any("frozen" in note and "suspend to RAM" in note for note in made.notes)
    locked = EraseAbilities(SDA, ata=msgspec.structs.replace(SSD, is_frozen=True, is_enabled=True, is_locked=True))
    assert refusal(machine(disk(SDA), abilities=(locked,))).cause is Cause.NO_METHOD


def test_no_way_is_taken_that_reaches_a_namespace_which_is_not_to_be_erased() -> None:
    both = [disk("/dev/nvme0n1", "N"), disk("/dev/nvme0n2", "M")]
    of_all = NvmeAbilities("q", 2, can_sanitize_block=True, can_format=True, is_format_of_all=True)
    facts = machine(*both, abilities=tuple(EraseAbilities(one.path, nvme=of_all) for one in both))
    one_of_them = plan(facts, select=(Selector(serial="N"),))
    assert one_of_them.disks[0].ways == (Way.OVERWRITE,)
    assert any("2 namespaces" in note for note in one_of_them.notes)
    assert [one.ways for one in plan(facts).disks] == [(Way.SANITIZE_BLOCK,)] * 2
    assert refusal(facts, select=(Selector(serial="N"),), method="format").cause is Cause.NO_METHOD
    hidden = NvmeAbilities("q", 0, can_sanitize_block=True, can_format=True)
    assert ways(EraseAbilities(NVME, nvme=hidden)) == (Way.FORMAT,), "who does not count its namespaces has others"


def test_a_plan_names_what_is_lost_and_has_one_digest() -> None:
    old = disk("/dev/vda", signatures=(Signature("/dev/vda1", "ext4", label="payroll"),))
    made = plan(machine(old))
    assert "payroll" in render_erase(made)
    assert erase_digest(made) == erase_digest(plan(machine(old)))
    assert erase_digest(made) != erase_digest(plan(machine(old), passes=3))
    assert msgspec.json.decode(msgspec.json.encode(made), type=ErasePlan) == made


def test_the_reply_to_a_hello_tells_which_kind_of_task_it_is() -> None:
    kinds = {kind.__struct_config__.tag for kind in (HelloReply, EraseReply)}
    assert kinds == {"deploy", "erase"}
