"""The machine as sysfs, udev and wipefs show it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from agentbench.runner import FakeRunner
from agentbench.sysfs import Sysfs
from cloner_agent.host import run
from cloner_agent.probe import probe
from cloner_core.facts import Disk, DiskPartition, Facts, Firmware, Signature

PCI = "pci0000:00/0000:00:04.0"
UDEV: dict[str, Mapping[str, str]] = {
    "sda": {"ID_SERIAL_SHORT": "S1", "ID_MODEL": "Samsung_SSD", "ID_BUS": "ata", "ID_WWN": "0x5002"},
    "sdb": {"ID_SERIAL_SHORT": "USB7", "ID_BUS": "usb"},
}


@pytest.fixture
def machine(tmp_path: Path) -> Sysfs:
    sysfs = Sysfs(tmp_path)
    sysfs.disk("vda", "254:0", at=f"{PCI}/virtio2", serial="golden-1", queue__logical_block_size="512")
    sysfs.partition("vda", "vda2", "254:2")
    sysfs.partition("vda", "vda10", "254:10")
    sysfs.disk(
        "nvme0n1", "259:0", at=f"{PCI}/nvme/nvme0", queue__logical_block_size="4096", device__model="Fast 1TB   "
    )
    sysfs.disk("sda", "8:0", at=f"{PCI}/ata1/host0/target0", queue__rotational="1")
    sysfs.disk("sdb", "8:16", at=f"{PCI}/usb1/1-1/host6", removable="1", ro="1")
    sysfs.disk("loop0", "7:0", at="virtual")
    sysfs.disk("sr0", "11:0", at=f"{PCI}/ata2/host1")
    return sysfs


def _probe(sysfs: Sysfs, runner: FakeRunner | None = None) -> Facts:
    return probe(
        runner or FakeRunner(),
        root=str(sysfs.root),
        properties=lambda name: UDEV.get(name, {}),
        addresses=lambda: {"eth0": ("10.77.0.12/24",)},
    )


def test_disks_are_what_holds_data_and_nothing_else(machine: Sysfs) -> None:
    assert [disk.path for disk in _probe(machine).disks] == ["/dev/nvme0n1", "/dev/sda", "/dev/sdb", "/dev/vda"]


def test_serial_model_bus_and_sectors_come_from_where_each_driver_has_them(machine: Sysfs) -> None:
    nvme, ata, usb, virtio = _probe(machine).disks
    assert (virtio.serial, virtio.bus, virtio.size_bytes) == ("golden-1", "virtio", 2048 * 512)
    assert (nvme.model, nvme.bus, nvme.sector_bytes) == ("Fast 1TB", "nvme", 4096)
    assert (ata.serial, ata.model, ata.bus, ata.wwn, ata.is_rotational) == ("S1", "Samsung SSD", "ata", "0x5002", True)
    assert (usb.bus, usb.is_removable, usb.is_read_only) == ("usb", True, True)


@pytest.mark.parametrize(("kind", "is_removable"), [("SD", True), ("MMC", False)])
def test_a_card_in_a_slot_is_removable_and_soldered_memory_is_not(
    tmp_path: Path, kind: str, is_removable: bool
) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.disk("mmcblk0", "179:0", at=f"{PCI}/mmc_host/mmc0", removable="0", device__type=kind)
    (disk,) = _probe(sysfs).disks
    assert (disk.bus, disk.is_removable) == ("mmc", is_removable)


@pytest.mark.parametrize(
    "how",
    [
        "disk mounted",
        "partition mounted",
        "swap",
        "volume on an array mounted",
        "swap on a mapping",
        "source of a subvolume",
        "second disk of a btrfs",
    ],
)
def test_a_disk_in_use_is_seen_as_such(machine: Sysfs, how: str) -> None:
    match how:
        case "disk mounted":
            machine.append("proc/self/mountinfo", "2 1 254:0 / /mnt rw - ext4 /dev/vda rw")
        case "partition mounted":
            machine.append("proc/self/mountinfo", "2 1 254:2 / /mnt rw - ext4 /dev/vda2 rw")
        case "swap":
            machine.append("proc/swaps", "/dev/vda2 partition 1 0 -2")
        case "volume on an array mounted":
            _array_on(machine, "vda2")
            machine.append("proc/self/mountinfo", "2 1 253:0 / /mnt rw - ext4 /dev/mapper/vg0-root rw")
        case "swap on a mapping":
            _array_on(machine, "vda2")
            machine.append("proc/swaps", "/dev/mapper/vg0-root partition 1 0 -2")
        case "source of a subvolume":
            machine.append("proc/self/mountinfo", "2 1 0:45 / /mnt rw shared:1 - btrfs /dev/vda2 rw")
        case "second disk of a btrfs":
            machine.write("sys/fs/btrfs/5d1c/devices/vda2", "")
    assert [disk.path for disk in _probe(machine).disks if disk.is_mounted] == ["/dev/vda"]


def _array_on(machine: Sysfs, member: str) -> None:
    machine.disk("md0", "9:0", at="virtual")
    machine.disk("dm-0", "253:0", at="virtual", dm__name="vg0-root", dm__uuid="LVM-x")
    machine.hold(member, "md0")
    machine.hold("md0", "dm-0")


def test_what_only_holds_a_disk_is_told_and_is_no_use_of_it(machine: Sysfs) -> None:
    _array_on(machine, "vda2")
    disk = _probe(machine).disks[-1]
    assert (disk.held_by, disk.is_mounted) == (("md0", "vg0-root"), False)


def test_where_a_disk_hangs_and_sits_is_told(machine: Sysfs) -> None:
    machine.write(f"sys/devices/{PCI}/vendor", "0x8086\n")
    machine.write(f"sys/devices/{PCI}/device", "0x2922\n")
    machine.write("sys/bus/pci/slots/7-1/address", "0000:00:04\n")
    home = machine.root / f"sys/devices/{PCI}/ata1/host0/target0"
    machine.write(f"sys/devices/{PCI}/ata1/host0/target0/0:0:3:0/type", "0")
    (home / "block/sda/device").symlink_to(home / "0:0:3:0")
    machine.write(f"sys/devices/{PCI}/host1/enclosure/1:0:8:0/id", "0x500a\n")
    machine.write(f"sys/devices/{PCI}/host1/enclosure/1:0:8:0/Slot 03/slot", "3\n")
    slot = machine.root / f"sys/devices/{PCI}/host1/enclosure/1:0:8:0/Slot 03"
    (home / "0:0:3:0/enclosure_device:Slot 03").symlink_to(slot)
    nvme, ata, _, virtio = _probe(machine).disks
    assert (ata.hctl, ata.controller, ata.controller_id) == ("0:0:3:0", "0000:00:04.0", "8086:2922")
    assert (ata.bay, nvme.bay, virtio.bay) == ("0x500a/3", "7-1", "")
    assert (nvme.hctl, virtio.controller) == ("", "0000:00:04.0")


def _two_cables(tmp_path: Path, bus: str, states: tuple[str, str] = ("", ""), serials: str = "SS") -> tuple[Disk, ...]:
    sysfs = Sysfs(tmp_path)
    udev: dict[str, Mapping[str, str]] = {}
    for name, state, serial in zip(("sda", "sdb"), states, serials, strict=True):
        sysfs.disk(name, f"8:{ord(name[2])}", at=f"{PCI}/{bus}/host{name}", device__access_state=state)
        short = {"ID_SERIAL_SHORT": "5000c500a", "ID_SCSI_SERIAL": serial}
        udev[name] = {**short, "ID_WWN": "0x5000c500a", "ID_BUS": "scsi"}
    return probe(FakeRunner(), root=str(sysfs.root), properties=lambda name: udev[name], addresses=dict).disks


@pytest.mark.parametrize(
    ("states", "path", "paths"),
    [
        (("", ""), "/dev/sda", ("/dev/sdb",)),
        (("standby", "active/optimized"), "/dev/sdb", ("/dev/sda",)),
        (("active/non-optimized", "unavailable"), "/dev/sda", ("/dev/sdb",)),
    ],
)
def test_a_disk_on_two_cables_is_one_disk_by_its_better_path(
    tmp_path: Path, states: tuple[str, str], path: str, paths: tuple[str, ...]
) -> None:
    (disk,) = _two_cables(tmp_path, "sas", states)
    assert (disk.path, disk.paths, disk.serial) == (path, paths, "S")


def test_disks_that_share_only_a_wwn_and_disks_that_have_one_cable_stay_apart(tmp_path: Path) -> None:
    assert len(_two_cables(tmp_path / "a", "sas", serials="ST")) == 2
    assert len(_two_cables(tmp_path / "b", "usb1")) == 2
    assert len(_two_cables(tmp_path / "c", "ata1")) == 2


def test_a_hidden_path_of_a_namespace_is_no_disk(machine: Sysfs) -> None:
    machine.disk("nvme0c0n1", "0:0", at=f"{PCI}/nvme/nvme0", hidden="1")
    assert "/dev/nvme0c0n1" not in [disk.path for disk in _probe(machine).disks]


def test_what_is_a_member_of_something_names_it(machine: Sysfs) -> None:
    runner = FakeRunner()
    found = [
        ("vda", "isw_raid_member", "", ""),
        ("vda2", "LVM2_member", "pv-1", ""),
        ("vda10", "btrfs", "fs-1", "data"),
    ]
    rows = [dict(zip(("device", "type", "uuid", "label"), one, strict=True)) for one in found]
    runner.output["wipefs"] = json.dumps({"signatures": rows})
    runner.output["mdadm"] = "MD_METADATA=imsm\nMD_UUID=1:2:3:4\nMD_NAME=fakeraid\n"
    volume = {"pv_uuid": "pv-1", "vg_name": "vg0", "vg_uuid": "vg-1"}
    runner.output["lvm"] = json.dumps({"report": [{"pv": [volume]}]})
    disk = _probe(machine, runner).disks[-1]
    assert [(one.group, one.group_uuid) for one in disk.signatures] == [
        ("fakeraid", "1:2:3:4"),
        ("vg0", "vg-1"),
        ("data", "fs-1"),
    ]


def test_without_a_physical_volume_lvm_is_not_asked(machine: Sysfs) -> None:
    runner = FakeRunner()
    _probe(machine, runner)
    assert not [argv for argv in runner.ran if argv[0] in ("lvm", "mdadm")]


def test_the_table_of_a_disk_is_told_entry_by_entry(machine: Sysfs) -> None:
    runner = FakeRunner()
    nodes = [
        {"node": "/dev/vda2", "start": 2048, "size": 4096, "type": "fd", "bootable": True},
        {"node": "/dev/vda10", "start": 8192, "size": 2048, "type": "f"},
    ]
    table = {"label": "dos", "id": "0x1234ABCD", "unit": "sectors", "sectorsize": 512, "partitions": nodes}
    runner.output["sfdisk"] = json.dumps({"partitiontable": table})
    disk = _probe(machine, runner).disks[-1]
    assert (disk.table, disk.table_id) == ("dos", "1234abcd")
    assert disk.partitions == (
        DiskPartition(2, 1 << 20, 2 << 20, "0xfd", "1234abcd-02", is_active=True),
        DiskPartition(10, 4 << 20, 1 << 20, "0x0f", "1234abcd-0a", is_logical=True),
    )


def test_the_attributes_of_a_partition_are_told_as_sfdisk_takes_them(machine: Sysfs) -> None:
    runner = FakeRunner()
    node = {"node": "/dev/vda2", "start": 2048, "size": 4096, "type": "EF", "uuid": "AB", "attrs": "GUID:63"}
    runner.output["sfdisk"] = json.dumps({"partitiontable": {"label": "gpt", "partitions": [node]}})
    (entry,) = _probe(machine, runner).disks[-1].partitions
    assert entry == DiskPartition(2, 1 << 20, 2 << 20, "ef", "ab", attributes="GUID:63")


def test_facts_of_former_agents_are_read_still() -> None:
    stored = b'{"path": "/dev/vda", "size_bytes": 1, "signatures": [{"device": "/dev/vda", "kind": "gpt"}]}'
    assert msgspec.json.decode(stored, type=Disk) == Disk("/dev/vda", 1, signatures=(Signature("/dev/vda", "gpt"),))


def test_signatures_come_with_the_guid_of_their_partition(machine: Sysfs) -> None:
    runner = FakeRunner()
    gpt = {"device": "vda", "type": "gpt", "uuid": None, "label": None}
    ext4 = {"device": "vda2", "type": "ext4", "uuid": "u-1", "label": "root"}
    runner.output["wipefs"] = json.dumps({"signatures": [gpt, gpt, ext4, ext4]})
    nodes = [{"node": "/dev/vda2", "uuid": "AB-CD"}, {"node": "/dev/vda10", "uuid": "EF"}]
    runner.output["sfdisk"] = json.dumps({"partitiontable": {"label": "gpt", "partitions": nodes}})
    disk = _probe(machine, runner).disks[-1]
    assert [(s.device, s.kind, s.uuid, s.label, s.part_uuid) for s in disk.signatures] == [
        ("/dev/vda", "gpt", "", "", ""),
        ("/dev/vda2", "ext4", "u-1", "root", "ab-cd"),
        ("/dev/vda10", "", "", "", "ef"),
    ]


def test_only_real_interfaces_count_and_the_pci_id_is_that_of_the_card(machine: Sysfs) -> None:
    home = machine.root / "sys/devices" / PCI
    machine.write(f"sys/devices/{PCI}/vendor", "0x1af4\n")
    machine.write(f"sys/devices/{PCI}/device", "0x1041\n")
    for name, mac, kind in (
        ("eth0", "52:54:00:AA:00:01", "1"),
        ("ib0", "80:00", "32"),
        ("br0", "52:54:00:00:00:09", "1"),
    ):
        machine.write(f"sys/class/net/{name}/address", mac)
        machine.write(f"sys/class/net/{name}/type", kind)
        machine.write(f"sys/class/net/{name}/carrier", "1")
    (machine.root / "sys/class/net/eth0/device").symlink_to(home / "virtio2")
    (nic,) = _probe(machine).nics
    assert (nic.name, nic.mac, nic.pci_id, nic.has_carrier) == ("eth0", "52:54:00:aa:00:01", "1af4:1041", True)
    assert nic.addresses == ("10.77.0.12/24",)


@pytest.mark.parametrize(("value", "is_on"), [(b"\6\0\0\0\1", True), (b"\6\0\0\0\0", False), (b"", False)])
def test_firmware_and_secure_boot(machine: Sysfs, value: bytes, is_on: bool) -> None:
    assert _probe(machine).firmware is Firmware.BIOS
    machine.write("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", value.decode())
    facts = _probe(machine)
    assert (facts.firmware, facts.is_secure_boot) == (Firmware.UEFI, is_on)


@pytest.mark.parametrize(("said", "major"), [("2\n", 2), ("1\n", 1), ("x", 0), (None, 0)])
def test_the_version_of_the_tpm(machine: Sysfs, said: str | None, major: int) -> None:
    if said is not None:
        machine.write("sys/class/tpm/tpm0/tpm_version_major", said)
    assert _probe(machine).tpm_major == major


def test_memory_and_dmi(machine: Sysfs) -> None:
    machine.write("sys/class/dmi/id/product_uuid", "ABCDEF\n")
    facts = _probe(machine)
    assert (facts.memory_bytes, facts.dmi.system_uuid) == (512 << 20, "abcdef")


@pytest.mark.root
def test_a_real_disk_with_a_real_table_is_read(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, 64 << 20)
    made = subprocess.run(("losetup", "--show", "-f", image), check=True, capture_output=True, text=True)
    loop = made.stdout.strip()
    try:
        run(("sfdisk", "--quiet", loop), stdin="label: gpt\nsize=10M, uuid=0B1C2D3E-0000-4000-8000-000000000001\n")
        run(("partx", "--update", loop))
        tree = tmp_path / "tree"
        for path, text in {"usr/lib/os-release": 'PRETTY_NAME="Debian 12"\n', "etc/hostname": "db01\n"}.items():
            (tree / path).parent.mkdir(parents=True)
            (tree / path).write_text(text)
        run(("mkfs.ext4", "-q", "-L", "data", "-d", str(tree), f"{loop}p1"))
        os.truncate(tree / "etc/hostname", 64 << 20)  # a hole that debugfs would print whole
        run(("sfdisk", "--quiet", "--append", loop), stdin="size=10M\n")
        run(("partx", "--update", loop))
        run(("mkfs.ext4", "-q", "-d", str(tree), f"{loop}p2"))
        facts = probe(run, disk_names=lambda name: name == loop.removeprefix("/dev/"))
        (disk,) = facts.disks
        by_kind = {signature.kind: signature for signature in disk.signatures if signature.device != f"{loop}p2"}
        assert [one.system for one in disk.signatures if one.device == f"{loop}p2"] == [""]
        assert set(by_kind) == {"gpt", "PMBR", "ext4"}
        assert (by_kind["ext4"].label, by_kind["ext4"].system) == ("data", "Debian 12, host db01")
        assert by_kind["ext4"].part_uuid == "0b1c2d3e-0000-4000-8000-000000000001"
        assert not disk.is_mounted
        assert (disk.table, len(disk.table_id)) == ("gpt", 36)
        assert [(part.number, part.start_bytes, part.size_bytes) for part in disk.partitions] == [
            (1, 1 << 20, 10 << 20),
            (2, 11 << 20, 10 << 20),
        ]
        assert disk.partitions[0].type == "0fc63daf-8483-4772-8e79-3d69d8477de4"
    finally:
        subprocess.run(("partx", "--delete", loop), check=False)
        subprocess.run(("losetup", "-d", loop), check=True)
