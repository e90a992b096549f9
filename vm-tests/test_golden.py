"""The golden trees boot from a disk that foreign tools made, so a clone that does not boot is the cloning's fault."""

from __future__ import annotations

import pytest

from cloner_initramfs import Cache
from vmlab import Lab, Machine, Nic, Vm, blank_disk
from vmlab.disk import GIB, MIB
from vmlab.golden_busybox import HOSTNAME, MARKER, golden_busybox
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID, authorize_key, copy_tree, golden_debian
from vmlab.handmade import install_by_hand
from vmlab.nvram import boot_variables
from vmlab.offline import esp_files, filesystem, mounted, partitions
from vmlab.ssh import host_key, make_key, ssh, wait_for_ssh

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_small_golden_tree_boots_by_signed_grub_and_its_disk_is_read_offline(lab: Lab, cache: Cache) -> None:
    tree = golden_busybox(cache)
    disk = blank_disk(lab.directory / "disk", 512 * MIB, serial="SMALL")
    install_by_hand(tree, disk)
    with Machine(lab, Vm("small", disks=(disk,))) as machine:
        match = machine.wait_for(MARKER + r" swap=1 esp=1", 120)
    assert match["hostname"] == HOSTNAME
    assert match["root"] == "vda3"
    assert match["machine_id"] == (tree / "etc/machine-id").read_text().strip()
    assert [one.number for one in partitions(disk)] == [1, 2, 3]
    assert filesystem(disk, 1)["UUID"] == ESP_SERIAL
    assert filesystem(disk, 2)["UUID"] == SWAP_UUID
    assert filesystem(disk, 3)["UUID"] == ROOT_UUID
    shim = (tree / "usr/lib/shim/shimx64.efi.signed").read_bytes()
    assert esp_files(disk)["EFI/BOOT/BOOTX64.EFI"] == shim
    with mounted(disk, 3) as root:
        assert (root / "etc/hostname").read_text().strip() == HOSTNAME
    variables = boot_variables(machine.variables)
    assert set(variables.order) <= set(variables.entries)
    assert variables.order


def test_the_golden_debian_tree_boots_and_lets_the_holder_of_the_key_in(lab: Lab, cache: Cache) -> None:
    tree = copy_tree(golden_debian(cache), lab.directory / "tree")
    key = make_key(lab.directory)
    authorize_key(tree, key.public)
    # A fixed address in place of the golden DHCP: no server answers in this lab.
    network = tree / "etc/systemd/network/10-golden.network"
    network.write_text("[Match]\nType=ether\n\n[Network]\nAddress=10.77.0.30/24\n")
    disk = blank_disk(lab.directory / "disk", 2 * GIB, serial="DEBIAN")
    install_by_hand(tree, disk)
    vm = Vm("debian", disks=(disk,), nics=(Nic("52:54:00:77:00:30"),))
    with Machine(lab, vm) as machine:
        machine.wait_for(r"golden login:", 420)
        wait_for_ssh(lab, "10.77.0.30", key, deadline_s=60)
        assert ssh(lab, "10.77.0.30", key, "hostname").strip() == "golden"
        assert ssh(lab, "10.77.0.30", key, "findmnt -no SOURCE /").strip() == "/dev/vda3"
        machine_id = (tree / "etc/machine-id").read_text()
        assert ssh(lab, "10.77.0.30", key, "cat /etc/machine-id") == machine_id
        stored = (tree / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
        assert host_key(lab, "10.77.0.30") == " ".join(stored)
        machine.press_power()
        machine.wait_off(120)
