"""Netboot as firmware sees it: OVMF's own PXE client, our DHCP, TFTP and scripts, and nothing else of Cloner."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from virt.firmware.varstore.edk2 import Edk2VarStore

from cloner_core.messages import PROTOCOL
from cloner_initramfs import Cache, needed_memory_bytes
from cloner_pxe.decision import Netboot, NodeBoot
from cloner_pxe.events import EventKind
from netns.netboot_lab import NetbootLab
from vmlab import Lab, Machine, Nic, Vm, blank_disk
from vmlab.disk import GIB, MIB, Bus, Disk
from vmlab.golden_debian import golden_debian
from vmlab.host import run
from vmlab.initramfs import initramfs, probed
from vmlab.nvram import boot_variables

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

MAC = "52:54:00:77:30:01"
LOCAL = NodeBoot(name="node01", netboot=Netboot.LOCAL)
ARMED = NodeBoot(name="node01", netboot=Netboot.CLONER, has_live_task=True)
ON_DISK = "the local disk has started"


def test_a_blank_machine_of_512_mib_netboots_into_the_agent_which_finds_all_it_needs(lab: Lab, cache: Cache) -> None:
    built = initramfs(cache, lab.directory / "initramfs", ca_pem=b"a certificate", site={"protocol": PROTOCOL})
    artefacts = {("kernel", "vm"): built.kernel, ("initramfs", "vm"): built.image}
    arguments = ("console=ttyS0", "panic=-1", "cloner.probe=1")
    disks = (
        blank_disk(lab.directory / "first", 2 * GIB, serial="SERIAL-VIRTIO"),
        blank_disk(lab.directory / "second", GIB, serial="SERIAL-NVME", bus=Bus.NVME, sector_bytes=4096),
    )
    vm = Vm("blank", disks=disks, nics=(Nic(MAC),), reboots=False)
    assert (vm.memory_mib, needed_memory_bytes(built.layers) < 512 << 20) == (512, True)
    with NetbootLab(lab, nodes={MAC: ARMED}, artefacts=artefacts, arguments=arguments) as server:
        started = time.monotonic()
        with Machine(lab, vm) as machine:
            seen = {}
            for name, marker in (
                ("script", r"cloner: node01: netboot is cloner: the agent"),
                ("kernel", r"Command line: kernel initrd=initrd BOOTIF=01-52-54-00-77-30-01 .*cloner\.claim=claim-1 "),
                ("agent", r"cloner-init .*: probe ended with status 0"),
            ):
                machine.wait_for(marker, 240)
                seen[name] = time.monotonic() - started
            machine.wait_off(30)
            said = machine.said()
        print("seconds from power-on:", {name: round(seconds, 1) for name, seconds in seen.items()})
        assert "unpacking failed" not in said
        found = probed(said)
        assert (found["missing"], found["kernel"]) == ({}, built.release)
        assert isinstance(found["efivars"], int)
        assert found["efivars"] > 5
        assert found["disks"] == {"vda": "SERIAL-VIRTIO", "nvme0n1": "SERIAL-NVME"}
        # What the timeline of the node says, in order; the loader's DHCP first, iPXE's after it.
        wanted = [
            (EventKind.OFFER, "firmware gets snponly.efi"),
            (EventKind.ACK, "firmware gets snponly.efi"),
            (EventKind.TFTP_START, "snponly.efi"),
            (EventKind.TFTP_DONE, "snponly.efi"),
            (EventKind.OFFER, "iPXE gets the URL"),
            (EventKind.ACK, "iPXE gets the URL"),
            (EventKind.SCRIPT, "the agent"),
        ]
        told = iter(server.events)
        for kind, text in wanted:
            assert any(event.kind is kind and text in event.text for event in told), (kind, text, server.events)
        assert server.router.answered > 0
        assert not [event for event in server.events if event.kind is EventKind.ALARM]


def test_local_leads_the_firmware_on_to_the_disk(lab: Lab, cache: Cache) -> None:
    vm = Vm("local", disks=(disk_that_speaks(lab, cache),), nics=(Nic(MAC),), reboots=False)
    with NetbootLab(lab, nodes={MAC: LOCAL}) as server, Machine(lab, vm) as machine:
        # A first boot makes the firmware write its entries; then the network goes first, as the agent leaves it.
        machine.wait_for(f"{ON_DISK}|cloner: ", 120)
        machine.kill()
        network_first(machine.variables)
        server.events.clear()
        machine.start()
        machine.wait_for(r"cloner: node01: netboot is local", 120)
        machine.wait_for(ON_DISK, 60)
        assert server.kinds().count(EventKind.SCRIPT) == 1


def disk_that_speaks(lab: Lab, cache: Cache) -> Disk:
    """Return a disk whose ESP holds a GRUB that says it has started, at the fallback path."""
    disk = blank_disk(lab.directory / "esp-disk", 64 * MIB, serial="LOCAL")
    run(["sfdisk", "--quiet", disk.path], stdin=b"label: gpt\nstart=1MiB, size=60MiB, type=uefi\n")
    esp = f"{disk.path}@@1M"
    configuration = lab.directory / "grub.cfg"
    configuration.write_text(f"echo '{ON_DISK}'\nsleep 30\n")
    grub = golden_debian(cache) / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
    run(["mformat", "-i", esp, "-F", "-v", "ESP", "-T", str(60 * MIB // 512), "::"])
    run(["mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"])
    run(["mcopy", "-i", esp, grub, "::/EFI/BOOT/BOOTX64.EFI"])
    run(["mcopy", "-i", esp, configuration, "::/EFI/debian/grub.cfg"])
    return disk


def network_first(variables: Path) -> None:
    """Put IPv4 PXE first and the disk right behind it in an NVRAM file, as the agent does at its commit."""
    now = boot_variables(variables)
    network = [number for number, entry in now.entries.items() if "PXEv4" in entry.title]
    disks = [number for number, entry in now.entries.items() if "Misc Device" in entry.title]
    assert len(network) == len(disks) == 1, now
    rest = [number for number in now.order if number not in (*network, *disks)]
    store = Edk2VarStore(str(variables))
    names = store.get_varlist()
    names["BootOrder"].data = struct.pack(f"<{2 + len(rest)}H", *network, *disks, *rest)
    store.write_varstore(str(variables), names)
