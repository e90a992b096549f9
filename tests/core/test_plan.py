"""The plan: what is rendered is what runs, one seed is one plan, and nothing is destroyed before all is known."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.facts import Facts, Firmware, Signature
from cloner_core.identifiers import identifier, volume_id
from cloner_core.image.tree import Facts as ImageFacts
from cloner_core.image.tree import TreeRoot
from cloner_core.layout import Layout, Selector, Size, parse_layout
from cloner_core.messages import DESTRUCTIVE_FROM, Cause, Stage
from cloner_core.plan import (
    Contents,
    Plan,
    PlanError,
    apply,
    foreign_identifiers,
    partition_path,
    plan_digest,
    render,
    render_steps,
)
from cloner_core.plan.contents import has_old_xfs
from cloner_core.sizes import GIB, MIB, TIB
from cloner_core.steps import Command, Guard, Nvram, Rewrite, Step
from core.machines import CONTENTS, OLD_CONTENT, SEED, SOURCE_UUID, data_disk, disk, layout, machine, plan

GOLDEN = Path(__file__).parent / "golden"


def two_disk_layout() -> Layout:
    base = layout(select=Selector(serial="CL*"))
    return msgspec.structs.replace(base, disks=(*base.disks, data_disk(Selector(serial="DATA"))))


MACHINES = {
    "virtio-512": (machine(disk(signatures=OLD_CONTENT)), layout()),
    "nvme-4kn": (machine(disk("/dev/nvme0n1", 16 * GIB, sector_bytes=4096, bus="nvme", serial="NV1")), layout()),
    "small": (machine(disk("/dev/sda", 2 * GIB, bus="ata")), layout(esp=64 * MIB, swap=64 * MIB)),
    "big": (machine(disk("/dev/sda", 8 * TIB, bus="scsi", serial="")), layout(swap=32 * GIB)),
    "two-disks": (machine(disk(), disk("/dev/vdb", 4 * GIB, serial="DATA")), two_disk_layout()),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_rendered_plan_is_the_reviewed_one(name: str) -> None:
    facts, wanted = MACHINES[name]
    made = plan(facts, wanted)
    rendered = render(made).replace(plan_digest(made), "DIGEST")  # which covers all that is known of the disks
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("CLONER_WRITE_GOLDEN"):  # then read the difference before it is committed
        path.write_text(rendered)
    assert rendered == path.read_text()


def steps_run(made: Plan) -> list[Step]:
    ran: list[Step] = []
    apply(made, ran.append)
    return ran


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Facts, Layout]:
    sector_bytes = draw(st.sampled_from([512, 4096]))
    path = draw(st.sampled_from(["/dev/sda", "/dev/nvme0n1", "/dev/mmcblk0", "/dev/vda"]))
    old = draw(st.lists(st.sampled_from(["", "p1", "p2"]), unique=True, max_size=3))
    signatures = tuple(Signature(device=path + part, kind="ext4") for part in old)
    target = disk(path, draw(st.integers(4 * GIB, 64 * GIB)), sector_bytes=sector_bytes, signatures=signatures)
    root = Size(draw(st.integers(1, 8 * GIB)), weight=draw(st.integers(0, 2)))
    wanted = layout(esp=draw(st.integers(30, 600)) * MIB, swap=draw(st.integers(1, 2048)) * MIB, root=root)
    return machine(target, disk("/dev/usb", bus="usb")), wanted


@settings(max_examples=60)
@given(inputs())
def test_the_dry_run_shows_exactly_what_is_run(given_: tuple[Facts, Layout]) -> None:
    try:
        made = plan(*given_)
    except PlanError as error:
        assert error.cause is Cause.DISK_TOO_SMALL  # noqa: PT017
        return
    ran = steps_run(made)
    assert render(made).endswith("\n\n" + render_steps(ran))
    for step in ran:
        if isinstance(step.action, Command):
            assert step.action.stdin.strip() in render(made)


@settings(max_examples=60)
@given(inputs())
def test_only_chosen_disks_are_named_and_nothing_is_destroyed_before_partitioning(
    given_: tuple[Facts, Layout],
) -> None:
    try:
        made = plan(*given_)
    except PlanError:
        return
    chosen = made.disks[0].disk.path
    stages = list(Stage)
    order = [stages.index(step.stage) for step in made.steps]
    assert order == sorted(order)
    for step in made.steps:
        if isinstance(step.action, Command):
            assert all(word.startswith(chosen) for word in step.action.argv if word.startswith("/dev/"))
        if step.destroys:
            assert stages.index(step.stage) >= stages.index(DESTRUCTIVE_FROM)


@settings(max_examples=60)
@given(inputs())
def test_partitions_lie_in_order_on_the_disk_and_every_identifier_is_used_once(given_: tuple[Facts, Layout]) -> None:
    try:
        made = plan(*given_)
    except PlanError:
        return
    parts = made.disks[0].partitions
    sectors = made.disks[0].disk.size_bytes // made.disks[0].disk.sector_bytes
    for one, next_one in itertools.pairwise(parts):
        assert one.start_sectors + one.size_sectors <= next_one.start_sectors
    assert parts[-1].start_sectors + parts[-1].size_sectors < sectors
    names = [made.disks[0].table_guid, *(p.part_uuid for p in parts), *(v.uuid for v in made.volumes)]
    assert len(set(names)) == len(names)


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    facts, wanted = MACHINES["virtio-512"]
    assert plan_digest(plan(facts, wanted)) == plan_digest(plan(facts, wanted))
    assert identifier(SEED, "x") != identifier("00" * 32, "x")
    assert identifier(SEED, "x") != identifier(SEED, "y")
    assert identifier(SEED, "x")[14] == "4"
    assert len(volume_id(SEED, "x")) == 9
    with pytest.raises(ValueError, match="32 bytes"):
        identifier("00", "x")


def test_a_plan_survives_its_encoding() -> None:
    for facts, wanted in MACHINES.values():
        made = plan(facts, wanted)
        assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


@pytest.mark.parametrize(
    ("disk_path", "number", "path"),
    [
        ("/dev/sda", 1, "/dev/sda1"),
        ("/dev/nvme0n1", 2, "/dev/nvme0n1p2"),
        ("/dev/mmcblk0", 12, "/dev/mmcblk0p12"),
        ("/dev/vdb", 3, "/dev/vdb3"),
    ],
)
def test_partitions_are_named_as_the_kernel_names_them(disk_path: str, number: int, path: str) -> None:
    assert partition_path(disk_path, number) == path


@pytest.mark.parametrize(
    ("facts", "wanted", "contents", "cause"),
    [
        pytest.param(machine(disk(), firmware=Firmware.BIOS), layout(), CONTENTS, Cause.FIRMWARE, id="bios"),
        pytest.param(machine(disk(), memory_bytes=200 * MIB), layout(), CONTENTS, Cause.MEMORY, id="memory"),
        pytest.param(machine(), layout(), CONTENTS, Cause.NO_DISK, id="no disk"),
        pytest.param(machine(disk(), disk("/dev/vdb")), layout(), CONTENTS, Cause.AMBIGUOUS_DISK, id="two disks"),
        pytest.param(machine(disk(size_bytes=GIB)), layout(), CONTENTS, Cause.DISK_TOO_SMALL, id="layout too big"),
        pytest.param(
            machine(disk(size_bytes=4 * GIB)),
            layout(),
            (Contents(mount="/", allocated_bytes=4 * GIB, inodes=10),),
            Cause.DISK_TOO_SMALL,
            id="image too big",
        ),
        pytest.param(
            machine(disk()),
            layout(root=Size(GIB, GIB)),
            (Contents(mount="/", allocated_bytes=GIB, inodes=10),),
            Cause.DISK_TOO_SMALL,
            id="fixed root too small",
        ),
        pytest.param(
            machine(disk(sector_bytes=4096)), layout(esp=128 * MIB), CONTENTS, Cause.DISK_TOO_SMALL, id="fat32 on 4Kn"
        ),
        pytest.param(
            machine(disk()),
            layout(),
            (Contents(mount="/boot/efi", allocated_bytes=600 * MIB, inodes=10),),
            Cause.DISK_TOO_SMALL,
            id="esp too small",
        ),
        pytest.param(
            machine(disk(size_bytes=3 * GIB)),
            layout(),
            (Contents(mount="/", allocated_bytes=0, inodes=2_000_000),),
            Cause.DISK_TOO_SMALL,
            id="too many files",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_cause(
    facts: Facts, wanted: Layout, contents: tuple[Contents, ...], cause: Cause
) -> None:
    with pytest.raises(PlanError) as caught:
        plan(facts, wanted, contents)
    assert caught.value.cause is cause
    assert caught.value.hint


@pytest.mark.parametrize(
    ("os_id", "os_version", "is_old"),
    [
        ("rocky", "8.9", True),
        ("rocky", "9.3", False),
        ("centos", "7", True),
        ("ubuntu", "20.04", True),
        ("ubuntu", "22.04", False),
        ("debian", "10", True),
        ("debian", "11", False),
        ("debian", "", False),
        ("opensuse-leap", "15.3", True),
        ("opensuse-leap", "15.4", False),
        ("sles", "15", True),
        ("arch", "", False),
    ],
)
def test_a_release_says_whether_its_kernel_reads_xfs_as_it_is_made_now(
    os_id: str, os_version: str, is_old: bool
) -> None:
    root = TreeRoot(1, ImageFacts(os_id=os_id, os_version=os_version), (), 1, 0, ())
    assert has_old_xfs(root) is is_old


@pytest.mark.parametrize("is_old", [False, True])
def test_every_xfs_of_an_old_system_is_made_so_that_it_mounts_it(is_old: bool) -> None:
    base = layout(select=Selector(serial="CL*"))
    wanted = msgspec.structs.replace(base, disks=(*base.disks, data_disk(Selector(serial="DATA"), "xfs")))
    made = plan(machine(disk(), disk("/dev/vdb", 4 * GIB, serial="DATA")), wanted, has_old_xfs=is_old)
    commands = [step.action for step in made.steps if isinstance(step.action, Command)]
    (command,) = [one for one in commands if one.argv[0] == "mkfs.xfs"]
    assert (",bigtime=0,inobtcount=0," in " ".join(command.argv)) is is_old


def test_contents_of_a_plain_folder_count_for_the_filesystem_it_lies_on() -> None:
    contents = (*CONTENTS, Contents(mount="/var/lib", allocated_bytes=4 * GIB, inodes=10))
    with pytest.raises(PlanError, match=r"4\.7 GiB in 30010 files at '/'"):
        plan(machine(disk()), layout(root=Size(4 * GIB, 4 * GIB)), contents)
    with pytest.raises(PlanError, match=r"needs at least 6\.7 GiB"):
        plan(machine(disk(size_bytes=6 * GIB)), layout(), contents)


def test_what_the_image_called_its_filesystem_is_rewritten_and_guarded() -> None:
    made = plan(machine(disk()), layout())
    rewrite = next(step.action for step in made.steps if isinstance(step.action, Rewrite))
    assert [(one.old, one.new) for one in rewrite.references] == [(SOURCE_UUID, made.root.uuid)]
    guard = next(step.action for step in made.steps if isinstance(step.action, Guard))
    assert SOURCE_UUID in guard.identifiers


def test_an_identifier_on_another_disk_is_found_and_on_the_chosen_disk_is_not() -> None:
    marked = Signature(device="/dev/vdb1", kind="ext4", uuid=SOURCE_UUID.upper())
    other = disk("/dev/vdb", serial="OTHER", signatures=(marked,))
    made = plan(machine(disk(), other), layout(select=Selector(serial="CL*")))
    assert foreign_identifiers(made, machine(disk(), disk("/dev/vdb"))) == []
    found = foreign_identifiers(made, machine(disk(), other))
    assert len(found) == 1
    assert "/dev/vdb1" in found[0]
    own = disk(signatures=(msgspec.structs.replace(marked, device="/dev/vda1"),))
    assert foreign_identifiers(made, machine(own)) == []


def test_the_boot_entry_names_the_esp_as_the_table_does() -> None:
    made = plan(*MACHINES["nvme-4kn"])
    entry = next(step.action for step in made.steps if isinstance(step.action, Nvram))
    assert made.esp
    assert (entry.partition, entry.part_uuid) == (1, made.esp.part_uuid)
    assert (entry.start_sectors, entry.size_sectors) == (256, 131072)


def test_what_a_disk_holds_is_named_before_it_is_destroyed() -> None:
    unknown = Signature(device="/dev/vda2", kind="", part_uuid="eeeeeeee-0000-4000-8000-000000000000")
    rendered = render(plan(machine(disk(signatures=(*OLD_CONTENT, unknown))), layout()))
    assert "#   /dev/vda1: ext4 'old' eeeeeeee-0000-4000-8000-000000000000\n" in rendered
    assert "#   /dev/vda2: unknown content\n" in rendered
    assert rendered.index("/dev/vda1: ext4") < rendered.index("wipefs --all --force --lock=yes /dev/vda1 /dev/vda\n")


def member(device: str, group: str = "vg0") -> Signature:
    return Signature(device=device, kind="LVM2_member", uuid=f"pv-{device}", group=group, group_uuid=f"uuid-{group}")


def test_half_a_volume_group_is_not_destroyed() -> None:
    ours, other = (
        disk(signatures=(member("/dev/vda2"),)),
        disk("/dev/vdb", serial="B", signatures=(member("/dev/vdb1"),)),
    )
    with pytest.raises(PlanError, match="volume group 'vg0' lies on /dev/vda2 and also on /dev/vdb1") as caught:
        plan(machine(ours, other), layout(select=Selector(serial="CL*")))
    assert caught.value.cause is Cause.LAYOUT
    assert plan(machine(ours, msgspec.structs.replace(other, signatures=())), layout(select=Selector(serial="CL*")))


def test_no_second_volume_group_of_one_name_is_made() -> None:
    wanted = parse_layout(
        json.dumps(
            {
                "name": "lvm",
                "disks": [
                    {
                        "id": "a",
                        "select": {"serial": "CL*"},
                        "partitions": [
                            {
                                "role": "esp",
                                "size": "64MiB",
                                "content": {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi"},
                            },
                            {"size": "rest", "content": {"type": "lvm", "group": "vg0"}},
                        ],
                    }
                ],
                "groups": [
                    {
                        "name": "vg0",
                        "volumes": [
                            {
                                "name": "root",
                                "size": "rest",
                                "content": {"type": "filesystem", "kind": "ext4", "mount": "/"},
                            }
                        ],
                    }
                ],
            }
        )
    )
    other = disk("/dev/vdb", serial="B", signatures=(member("/dev/vdb1"),))
    with pytest.raises(PlanError, match="has a volume group 'vg0' already") as caught:
        plan(machine(disk(), other), wanted)
    assert caught.value.cause is Cause.FOREIGN_UUID
    own = disk(signatures=(member("/dev/vda2"),))
    assert plan(machine(own), wanted).groups[0].name == "vg0"
