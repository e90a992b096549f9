"""Detection: what no layout describes is named with its device, and where there is a choice, which one is taken."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.detection import Excluded, UndescribedError, detect, parse_blocks
from cloner_core.errors import InvalidError
from cloner_core.facts import Disk, Facts
from cloner_core.layout import (
    Array,
    ArrayMember,
    DiskLayout,
    EspCopy,
    Filesystem,
    Kept,
    Layout,
    LogicalVolume,
    Luks,
    Nothing,
    Partition,
    PhysicalVolume,
    Pick,
    Selector,
    Size,
    Subvolume,
    Swap,
    Unlock,
    VolumeGroup,
)
from cloner_core.sizes import GIB, MIB
from core.drawnlayouts import REST, partition, sized
from core.machines import disk, machine
from core.worlds import blkid_of, built, told_of, without_measure

NOTHING = Excluded()


def simple(*partitions: Partition, disks: tuple[Disk, ...] = (), **more: Any) -> tuple[Facts, Layout]:
    """Return a machine and a layout with an ESP and `partitions` on its first disk."""
    esp = partition(sized(512), Filesystem("vfat", "/boot/efi"), role="esp")
    rest = partitions or (partition(REST, Filesystem("ext4", "/")),)
    serial = Selector(serial="CL0001")
    return machine(disk(), *disks), Layout("simple", (DiskLayout("d", serial, (esp, *rest)),), **more)


def world(facts: Facts, layout: Layout, **changes: Any) -> Any:
    return msgspec.structs.replace(told_of(built(facts, layout), facts), **changes)


def with_block(told: Any, path: str, **changes: Any) -> Any:
    """Return `told` with something else on the device `path`: what blkid says, and what lies on it."""
    fields = {"fstype": "TYPE", "uuid": "UUID", "label": "LABEL"}
    names = ("TYPE", "UUID", "LABEL", "PART_ENTRY_UUID")
    blocks = parse_blocks(told.lsblk, told.blkid).values()
    contents = {
        one.path: dict(zip(names, (one.filesystem, one.uuid, one.label, one.part_uuid), strict=True)) for one in blocks
    }
    contents[path] |= {fields[name]: value for name, value in changes.items() if name in fields}
    more = {name: value for name, value in changes.items() if name not in fields}

    def change(row: dict[str, Any]) -> dict[str, Any]:
        changed = row | (more if row["path"] == path else {})
        return changed | {"children": [change(child) for child in changed.get("children", ())]}

    rows = msgspec.json.decode(told.lsblk)["blockdevices"]
    lsblk = msgspec.json.encode({"blockdevices": [change(row) for row in rows]}).decode()
    return msgspec.structs.replace(told, lsblk=lsblk, blkid=blkid_of(contents))


def row(path: str, kind: str) -> dict[str, Any]:
    return {"path": path, "name": path.rpartition("/")[2], "type": kind, "size": GIB}


def faults_of(told: Any, excluded: Excluded = NOTHING) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        detect(told, "golden", excluded)
    return list(caught.value.faults)


ROOT = "/dev/vda2"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        pytest.param({"fstype": "zfs_member"}, "/dev/vda2 is part of a ZFS pool", id="zfs"),
        pytest.param({"fstype": "bcache"}, "/dev/vda2 is part of a bcache", id="bcache"),
        pytest.param({"fstype": "isw_raid_member"}, "/dev/vda2 is in an array of Intel's firmware", id="imsm"),
        pytest.param({"fstype": "ntfs"}, "/dev/vda2 holds a filesystem of Windows", id="ntfs"),
        pytest.param({"fstype": "f2fs"}, "/dev/vda2 holds 'f2fs'; no layout describes it", id="another filesystem"),
        pytest.param({"fstype": ""}, "/dev/vda2 is mounted at /, and what it holds is not known", id="unknown"),
        pytest.param(
            {"fstype": "linux_raid_member"}, "/dev/vda2 is a member of an md array that does not", id="stopped"
        ),
        pytest.param({"fstype": "crypto_LUKS"}, "/dev/vda2 is encrypted and closed", id="closed"),
        pytest.param({"fstype": "LVM2_member"}, "/dev/vda2 is a physical volume LVM does not see", id="no group"),
        pytest.param(
            {"children": [row("/dev/vda2p1", "part")]},
            "/dev/vda2 has partitions inside",
            id="nested partitions",
        ),
        pytest.param({"children": [row("/dev/bcache0", "bcache")]}, "/dev/vda2 carries /dev/bcache0", id="nested"),
        pytest.param({"fstype": "btrfs", "uuid": "u"}, "/dev/vda2 holds btrfs, which is not mounted", id="btrfs"),
        pytest.param({"label": "it's"}, "/dev/vda2: disks[0].partitions[1].content.label: 'it's' is not", id="a rule"),
    ],
)
def test_what_no_layout_describes_is_named_with_its_device(changes: dict[str, Any], wanted: str) -> None:
    faults = faults_of(with_block(world(*simple()), ROOT, **changes))
    assert any(fault.startswith(wanted) for fault in faults), faults
    assert len(faults) == 1


def test_a_filesystem_nobody_mounts_is_named_rather_than_left_out() -> None:
    facts, layout = simple(
        partition(REST, Filesystem("ext4", "/")), partition(sized(1024), Filesystem("xfs", "/srv", label="L"))
    )
    told = world(facts, layout)
    lines = [line for line in told.fstab.splitlines(keepends=True) if b"/srv" not in line]
    told = msgspec.structs.replace(told, fstab=b"".join(lines), mounts="")
    assert faults_of(told)[0].startswith("/dev/vda3 holds xfs 'L', which nothing mounts; mount it by /etc/fstab")


def test_a_btrfs_on_several_devices_is_named() -> None:
    btrfs = Filesystem("btrfs", "/")
    told = world(*simple(partition(REST, btrfs), partition(sized(1024), Swap())))
    uuid = next(found.uuid for found in built(*simple(partition(REST, btrfs))).volumes if found.mount == "/")
    told = with_block(told, "/dev/vda3", fstype="btrfs", uuid=uuid)
    assert all("is one of 2 devices of a btrfs (/dev/vda2, /dev/vda3)" in fault for fault in faults_of(told))


def lvm() -> tuple[Facts, Layout]:
    volume = LogicalVolume("root", REST, Filesystem("ext4", "/"))
    return simple(partition(REST, PhysicalVolume("vg0")), groups=(VolumeGroup("vg0", (volume,)),))


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("segtype", "thin", "vg0/root is of the kind 'thin'"),
        ("segtype", "raid1", "vg0/root is of the kind 'raid1'"),
        ("origin", "base", "vg0/root is a snapshot of 'base'"),
        ("stripes", "2", "vg0/root is striped over 2"),
        ("lv_active", "", "vg0/root is not active"),
    ],
)
def test_a_volume_that_is_not_plain_is_named(field: str, value: str, wanted: str) -> None:
    told = world(*lvm())
    rows = msgspec.json.decode(told.logical)["report"][0]["lv"]
    listed = msgspec.json.encode({"report": [{"lv": [{**one, field: value} for one in rows]}]}).decode()
    assert any(fault.startswith(wanted) for fault in faults_of(msgspec.structs.replace(told, logical=listed)))


def mirror() -> tuple[Facts, Layout]:
    facts, layout = simple(
        partition(REST, ArrayMember("root")),
        disks=(disk("/dev/vdb", serial="CL0002", by_path="pci-2"),),
        arrays=(Array("root", "raid1", Filesystem("ext4", "/")),),
    )
    facts = msgspec.structs.replace(facts, disks=(disk(by_path="pci-1"), facts.disks[1]))
    member = (partition(sized(512), EspCopy(), role="esp"), partition(REST, ArrayMember("root")))
    return facts, msgspec.structs.replace(
        layout, disks=(*layout.disks, DiskLayout("e", Selector(serial="CL0002"), member))
    )


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("MD_LEVEL=raid1", "MD_LEVEL=raid4", "is of level 'raid4'"),
        ("MD_METADATA=1.2", "MD_METADATA=0.90", "has metadata 0.90"),
        ("MD_DEVICES=2", "MD_DEVICES=3", "has 2 of 3 members"),
        ("vdb2_ROLE=1", "vdb2_ROLE=spare", "has spare members (/dev/vdb2)"),
        ("MD_DEVICES=2", "MD_DEVICES=2\nMD_CONTAINER=/dev/md/imsm0", "lies in /dev/md/imsm0"),
    ],
)
def test_an_array_that_no_layout_makes_is_named(old: str, new: str, wanted: str) -> None:
    told = world(*mirror())
    (path, one), *_ = told.arrays.items()
    changed = msgspec.structs.replace(one, export=one.export.replace(old, new))
    faults = faults_of(msgspec.structs.replace(told, arrays={path: changed}))
    assert any(fault.startswith(path) and wanted in fault for fault in faults), faults


def test_half_an_array_cannot_be_excluded() -> None:
    faults = faults_of(world(*mirror()), Excluded(devices=("/dev/vdb",)))
    assert any("lies on /dev/vdb2 as well; which the layout leaves out" in fault for fault in faults), faults


def test_two_disks_alike_are_told_apart_by_their_place_and_their_number() -> None:
    found = detect(world(*mirror()), "golden").layout
    assert [one.id for one in found.disks] == ["system1", "system2"]
    assert [one.select for one in found.disks] == [
        Selector(bus="virtio", pick=Pick(nth=at, of=2, by="path")) for at in (1, 2)
    ]


SMALL, LARGE = 240 * GIB, 4096 * GIB


def test_disks_that_differ_are_told_apart_by_kind_and_class_of_size_never_by_serial() -> None:
    facts, layout = simple(
        disks=(disk("/dev/vdb", LARGE, serial="B"), disk("/dev/nvme0n1", LARGE, bus="nvme", serial="N"))
    )
    facts = msgspec.structs.replace(facts, disks=(disk(size_bytes=SMALL), *facts.disks[1:]))
    data = DiskLayout("b", Selector(serial="B"), table="none", content=Filesystem("xfs", "/srv"))
    found = detect(world(facts, msgspec.structs.replace(layout, disks=(*layout.disks, data))), "golden").layout
    system, other = found.disks
    assert (system.id, other.id) == ("system", "data")
    assert SMALL < system.select.size_max_bytes < other.select.size_min_bytes < LARGE
    assert system.select.serial == other.select.serial == ""
    assert {one.select.bus for one in found.disks} == {"virtio"}


def test_alike_disks_that_nothing_tells_apart_are_refused() -> None:
    facts, layout = simple(disks=(disk("/dev/vdb", serial=""),))
    faults = faults_of(world(facts, layout))
    assert "1 of 2" in faults[0]


def test_an_excluded_disk_is_never_to_be_touched() -> None:
    facts, layout = simple(disks=(disk("/dev/vdb", serial="B", by_path="pci-0000:09"),))
    found = detect(world(facts, layout), "golden", Excluded(devices=("/dev/vdb",))).layout
    assert found.untouched == (Selector(bus="virtio", path="pci-0000:09"),)
    given = Selector(serial="B*")
    assert detect(world(facts, layout), "golden", Excluded(selectors=(given,))).layout.untouched == (given,)


def test_an_excluded_partition_is_kept_where_it_is() -> None:
    facts, layout = simple(
        partition(REST, Filesystem("ext4", "/")), partition(sized(1024), Filesystem("xfs", "/scratch"))
    )
    found = detect(world(facts, layout), "golden", Excluded(devices=("/dev/vda3",)))
    assert found.layout.disks[0].partitions[2].content == Kept(3, "/scratch")
    assert found.left_out == ("/scratch",)


def with_mount(told: Any, device: str, target: str) -> Any:
    rows = msgspec.json.decode(told.mounts)["filesystems"]
    rows.append({"source": device, "target": target, "fstype": "ext4", "fsroot": "/"})
    return msgspec.structs.replace(told, mounts=msgspec.json.encode({"filesystems": rows}).decode())


@pytest.mark.parametrize("is_described", [True, False])
def test_what_is_mounted_from_disks_that_are_no_part_of_the_layout_is_told(is_described: bool) -> None:
    stick = disk("/dev/vdc", serial="C", bus="usb", is_removable=True)
    facts, layout = simple(disks=(disk("/dev/vdb", serial="B"), stick))
    told = with_mount(with_mount(world(facts, layout), "/dev/vdb", "/data"), "/dev/vdc", "/media/usb")
    excluded = Excluded(selectors=(Selector(serial="B"),))
    if is_described:
        assert detect(told, "golden", excluded).left_out == ("/data", "/media/usb")
        told = with_mount(world(facts, layout), "/dev/vdc", "/media/usb")
        assert detect(told, "golden").left_out == ("/media/usb",)
        return
    told = with_block(told, "/dev/vda2", fstype="zfs_member")
    with pytest.raises(UndescribedError) as undescribed:
        detect(told, "golden", excluded)
    assert undescribed.value.left_out == ("/data", "/media/usb")


def test_a_system_on_a_disk_that_no_layout_takes_is_left_out_by_name_alone() -> None:
    disks = (disk(bus="usb"), disk("/dev/vdb", serial="B"))
    told = msgspec.structs.replace(with_mount(world(*simple()), "/dev/vdb", "/data"), disks=disks)
    told = with_rows(told, "/dev/vdb")
    for excluded, wanted in ((NOTHING, ()), (Excluded(devices=("/dev/vdb",)), ("/data",))):
        with pytest.raises(UndescribedError) as undescribed:
            detect(told, "golden", excluded)
        assert undescribed.value.left_out == wanted


def with_rows(told: Any, *paths: str) -> Any:
    """Return `told` with more disks that lsblk shows."""
    rows = msgspec.json.decode(told.lsblk)["blockdevices"] + [row(path, "disk") for path in paths]
    return msgspec.structs.replace(told, lsblk=msgspec.json.encode({"blockdevices": rows}).decode())


def test_excluding_what_is_not_there_is_a_fault() -> None:
    assert faults_of(world(*simple()), Excluded(devices=("/dev/sdz",)))[0].startswith("/dev/sdz is neither a disk nor")


def test_the_largest_of_a_disk_grows_and_the_rest_stays_as_it_is() -> None:
    partitions = (
        partition(sized(2048), Filesystem("ext4", "/")),
        partition(sized(3072), Filesystem("xfs", "/home")),
        partition(sized(1500), Nothing()),
    )
    found = detect(world(*simple(*partitions)), "golden").layout.disks[0].partitions
    assert [one.size for one in found] == [sized(512), sized(2048), REST, sized(1500)]


def test_what_a_group_leaves_free_stays_free() -> None:
    facts, layout = lvm()
    volume = LogicalVolume("root", sized(4096), Filesystem("ext4", "/"))
    layout = msgspec.structs.replace(layout, groups=(VolumeGroup("vg0", (volume,)),))
    found = detect(world(facts, layout), "golden").layout.groups[0].volumes[0]
    assert found.size == Size(MIB, max_bytes=4096 * MIB, weight=1)


@pytest.mark.parametrize("spec", ["LABEL=Root", "PARTLABEL=sys", "/dev/vda2", "/dev/disk/by-label/Root"])
def test_fstab_may_call_a_filesystem_by_any_of_its_names(spec: str) -> None:
    root = partition(REST, Filesystem("ext4", "/", label="Root"), label="sys")
    told = world(*simple(root), fstab=f"{spec} / ext4 noatime 0 1\nnas:/home /home nfs defaults 0 0\n".encode())
    told = msgspec.structs.replace(told, fstab=told.fstab + b"LABEL=EFI /boot/efi vfat umask=0077 0 2\n")
    told = with_block(told, "/dev/vda1", label="EFI")
    esp, found = detect(told, "golden").layout.disks[0].partitions
    assert isinstance(found.content, Filesystem)
    assert (found.content.mount, found.content.options) == ("/", "noatime")
    assert esp.content == Filesystem("vfat", "/boot/efi", label="EFI", source_uuid=_uuid(told, "/dev/vda1"))


def _uuid(told: Any, path: str) -> str:
    return str(parse_blocks(told.lsblk, told.blkid)[path].uuid)


def test_without_an_fstab_what_is_mounted_counts() -> None:
    facts, layout = simple(partition(REST, Filesystem("btrfs", "", subvolumes=(Subvolume("@", "/"),))))
    assert without_measure(detect(world(facts, layout, fstab=b""), "simple").layout) == without_measure(layout)


def test_the_default_subvolume_is_where_a_mount_without_a_name_leads() -> None:
    facts, layout = simple(partition(REST, Filesystem("btrfs", "", subvolumes=(Subvolume("@", "/"),))))
    told = world(facts, layout)
    told = msgspec.structs.replace(told, fstab=told.fstab.replace(b"subvol=@", b"defaults"))
    listed = {uuid: msgspec.structs.replace(one, default="ID 256 gen 1 path @") for uuid, one in told.btrfs.items()}
    found = detect(msgspec.structs.replace(told, btrfs=listed), "simple").layout
    assert without_measure(found) == without_measure(layout)


def test_snapshots_are_not_made_on_clones_and_that_is_told() -> None:
    subvolumes = (Subvolume("@", "/"), Subvolume("@snap/1"))
    facts, layout = simple(partition(REST, Filesystem("btrfs", "", subvolumes=subvolumes)))
    told = world(facts, layout)
    listed = {
        uuid: msgspec.structs.replace(
            one, snapshots="ID 257 gen 9 cgen 9 top level 5 otime 2026-11-20 10:00:00 path @snap/1"
        )
        for uuid, one in told.btrfs.items()
    }
    detected = detect(msgspec.structs.replace(told, btrfs=listed), "simple")
    content = detected.layout.disks[0].partitions[1].content
    assert isinstance(content, Filesystem)
    assert [one.name for one in content.subvolumes] == ["@"]
    assert any("1 snapshots" in note for note in detected.notes)


def test_former_identifiers_are_kept_for_the_references_of_the_image() -> None:
    facts, layout = simple(partition(REST, Filesystem("xfs", "/")), partition(sized(512), Swap()))
    told = world(facts, layout)
    found = detect(told, "golden").layout.disks[0].partitions
    sources = [getattr(one.content, "source_uuid", "") for one in found]
    assert sources == [_uuid(told, f"/dev/vda{number}") for number in (1, 2, 3)]


WORDS = st.sampled_from(
    ["path", "children", "report", "lv", "vg", "pv", "filesystems", "blockdevices", "source", "type"]
)
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just("/dev/vda"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.text(max_size=100) | JSON.map(lambda told: msgspec.json.encode(told).decode()))
@settings(max_examples=40, deadline=None)
def test_whatever_a_tool_prints_is_detected_or_refused(text: str) -> None:
    for field in ("lsblk", "blkid", "logical", "groups", "physical", "mounts", "crypttab"):
        faults: tuple[str, ...] = ("none",)
        try:
            detect(msgspec.structs.replace(TOLD, **{field: text}), "golden")
        except InvalidError as refused:
            faults = refused.faults
        assert faults


TOLD = world(*lvm())


def test_swap_with_a_new_key_at_each_boot_is_told_by_crypttab_whatever_was_there_before() -> None:
    swap = Luks("cryptswap", Unlock("random"), Swap())
    facts, layout = simple(partition(REST, Filesystem("ext4", "/")), partition(sized(512), swap))
    told = msgspec.structs.replace(world(facts, layout), crypttab="cryptswap /dev/vda3 /dev/urandom swap\n")
    found = detect(with_block(told, "/dev/vda3", fstype="ext4", uuid="old", children=[]), "golden").layout
    assert found.disks[0].partitions[2].content == swap


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ('{"keyslots":{"0":{}},"tokens":{}}', Unlock("passphrase")),
        ('{"tokens":{"0":{"type":"systemd-tpm2","tpm2-pcrs":[7,0]}}}', Unlock("tpm2", (0, 7))),
        ('{"tokens":{"0":{"type":"clevis","jwe":{"protected":"%%%"}}}}', Unlock("passphrase")),
        ("no JSON", Unlock("passphrase")),
    ],
)
def test_how_a_container_is_unlocked_is_read_from_its_tokens(told: str, wanted: Unlock) -> None:
    crypt = Luks("cryptroot", Unlock("tpm2"), Filesystem("ext4", "/srv"))
    facts, layout = simple(partition(REST, Filesystem("ext4", "/")), partition(sized(2048), crypt))
    detected = detect(world(facts, layout, luks={"/dev/vda3": told}), "golden")
    content = detected.layout.disks[0].partitions[2].content
    assert isinstance(content, Luks)
    assert content.unlock == wanted
    assert any("ask for a passphrase" in note for note in detected.notes) == (wanted.way == "passphrase")
