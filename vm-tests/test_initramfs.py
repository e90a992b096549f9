"""The initramfs as a kernel sees it, started directly. That all is there in 512 MiB: `test_netboot.py`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cloner_initramfs import Cache, build_base, build_drivers, needed_memory_bytes
from cloner_initramfs.interpreter import checkout
from vmlab import Bus, DirectBoot, Lab, Machine, Nic, Vm, blank_disk
from vmlab.disk import GIB
from vmlab.golden_busybox import golden_busybox
from vmlab.initramfs import initramfs, probed
from vmlab.lab import BRIDGE

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

MAC = "52:54:00:77:00:01"
BOOTIF = "BOOTIF=01-52-54-00-77-00-01"
CONSOLE = "console=ttyS0 panic=-1"


def test_the_full_drivers_find_sata_disks_and_real_network_cards(lab: Lab, cache: Cache) -> None:
    built = initramfs(cache, lab.directory / "initramfs", flavour="full")
    disks = tuple(
        blank_disk(lab.directory / name, GIB, serial=name.upper(), bus=Bus.SATA) for name in ("first", "second")
    )
    direct = DirectBoot(built.kernel, built.image, f"{CONSOLE} cloner.probe=1")
    vm = Vm("full", disks=disks, nics=(Nic(MAC, "e1000e"),), direct=direct, memory_mib=640, reboots=False)
    with Machine(lab, vm) as machine:
        machine.wait_for(r"cloner-init .*: probe ended with status 0", 180)
        machine.wait_off(30)
        seen = probed(machine.said())
    found = seen["disks"]
    assert isinstance(found, dict)
    assert sorted(found.values()) == ["FIRST", "SECOND"]
    assert isinstance(seen["interfaces"], list)
    assert len(seen["interfaces"]) == 2
    assert needed_memory_bytes(built.layers) < 640 << 20


def test_the_agent_is_started_again_and_again_after_the_network_is_up(lab: Lab, cache: Cache) -> None:
    # Without a server the agent cannot go on; whatever it does, PID 1 starts it again and tells it so.
    built = initramfs(cache, lab.directory / "initramfs")
    line = f"{CONSOLE} {BOOTIF} cloner.server=https://10.77.0.1:8443 cloner.ip=10.77.0.20/24"
    vm = Vm("node", nics=(Nic("52:54:00:77:00:02"), Nic(MAC)), direct=DirectBoot(built.kernel, built.image, line))
    with Machine(lab, vm) as machine:
        match = machine.wait_for(r"cloner-net .*: (\S+) has 10\.77\.0\.20/24", 180)
        machine.wait_for(r"starting the agent \(restart 0\)", 30)
        assert match[1] != "lo"
        # Nobody listens there, but to be refused one must be found: by the MAC that BOOTIF named.
        lab.run(["bash", "-c", "exec 3<>/dev/tcp/10.77.0.20/9"], check=False)
        assert MAC in lab.run(["ip", "neighbour", "show", "10.77.0.20"])
        machine.wait_for(r"the agent ended with status [1-9]", 60)
        machine.wait_for(r"starting the agent \(restart 1\)", 30)


def test_a_late_link_and_a_port_that_spanning_tree_blocks_are_waited_for_aloud(lab: Lab, cache: Cache) -> None:
    # A foreign DHCP server answers, so ours proves nothing.
    built = initramfs(cache, lab.directory / "initramfs")
    line = f"{CONSOLE} {BOOTIF} cloner.server=https://10.77.0.1:8443"
    vm = Vm("late", nics=(Nic(MAC),), direct=DirectBoot(built.kernel, built.image, line))
    settings = lab.directory / "udhcpd.conf"
    leases = lab.directory / "leases"
    leases.touch()
    settings.write_text(
        f"interface {BRIDGE}\nstart 10.77.0.50\nend 10.77.0.50\nlease_file {leases}\n"
        f"pidfile {lab.directory / 'udhcpd.pid'}\noption subnet 255.255.255.0\noption router 10.77.0.1\n"
    )
    with Machine(lab, vm) as machine:
        machine.wait_connected()
        lab.popen([golden_busybox(cache) / "usr/bin/busybox", "udhcpd", "-f", settings], log_name="udhcpd")
        machine.set_link(0, is_up=False)
        machine.wait_for(r"no link after 10 s, round 1", 120)
        plug_in_with_spanning_tree(lab)
        machine.set_link(0, is_up=True)
        machine.wait_for(r"link is up, no DHCP answer, round \d", 60)
        machine.wait_for(r"has 10\.77\.0\.50/24", 120)
        machine.wait_for(r"starting the agent", 30)


def plug_in_with_spanning_tree(lab: Lab) -> None:
    """Have every port of the bridge listen and learn for 15 s each, passing nothing (kernel, net/bridge/br_stp.c).

    That is what switches do by default (IEEE 802.1D, 17.14), and twice what a round of DHCP waits (15 s).
    """
    lab.run(["ip", "link", "set", BRIDGE, "type", "bridge", "stp_state", "1", "forward_delay", "1500"])
    ports = [one["ifname"] for one in json.loads(lab.run(["ip", "--json", "link", "show", "master", BRIDGE]))]
    for state in ("down", "up"):
        for port in ports:
            lab.run(["ip", "link", "set", port, state])
    states = [one["state"] for one in json.loads(lab.run(["bridge", "--json", "link", "show"]))]
    assert ports
    assert not {"forwarding", "disabled"} & set(states), states


def test_the_same_sources_give_the_same_layers(tmp_path: Path, cache: Cache) -> None:
    # Downloads are shared, everything else is made twice, from a copy nobody edits meanwhile.
    build_base(cache)
    source = tmp_path / "source"
    for name in ("agent", "requirements"):
        shutil.copytree(checkout() / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    digests = []
    for number in ("first", "second"):
        other = Cache(tmp_path / number)
        other.root.mkdir()
        for path in (cache.root / "debs", *cache.root.glob("sysroot-*"), *cache.root.glob("wheels-*")):
            (other.root / path.name).symlink_to(path)
        digests.append((build_base(other, source=source).digest, build_drivers(other).layer.digest))
    assert digests[0] == digests[1]
