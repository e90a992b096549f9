"""Whole deploys in machines: what lies on the disk before its first boot, who boots from it, and what is refused."""

from __future__ import annotations

import dataclasses
import sys
import time
import uuid
from pathlib import Path

import pytest

from cloner_core.identity import ssh_fingerprint
from cloner_initramfs import Cache
from vmlab import Lab, Machine, console, host
from vmlab.comparison import esp_faults, unexpected_differences
from vmlab.disk import GIB, MIB, Bus, Disk, content_digest
from vmlab.golden_busybox import MARKER, golden_busybox
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID
from vmlab.head import Head, build_installer
from vmlab.nvram import boot_variables
from vmlab.offline import esp_files, filesystem, mounted, partitions
from vmlab.scene import IMAGE, LAYOUT, Node, golden_tree, layout_file
from vmlab.ssh import host_key, ssh, wait_for_ssh

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

AGENT_S = 600
BOOT_S = 420
MOVES_S = 60  # until the console shows that something has gone on

LLDPDU = "020704001122334455040d0545746865726e6574312f3132060200780a0673772d7231320000"
SWITCH = """
import socket, sys, time
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as port:
    port.bind(("tap0", 0))
    while True:
        port.send(bytes.fromhex("0180c200000e" "001122334455" "88cc" + sys.argv[1]))
        time.sleep(0.5)
"""


def test_a_blank_machine_clones_itself_and_differs_from_the_golden_tree_in_its_identity_alone(
    lab: Lab, cache: Cache
) -> None:
    node = Node()
    head = Head(lab, build_installer(cache, lab.directory / "installer"))
    tree, key = golden_tree(cache, lab)
    head.start()
    prepare(head, lab, tree, node)
    # It must not call: only what its SSH server proves tells that it booted (the demo's clone calls).
    head.cloner("node", "set", node.name, "--confirm", "ssh")
    head.cloner("deploy", "--nodes", node.name, "--yes")
    # With 1 GiB the console opens at once; machines of 512 MiB clone in the demo and below.
    vm = dataclasses.replace(node.vm(lab), memory_mib=1024)
    (disk,) = vm.disks
    machine = Machine(lab, vm)
    direct = head.direct_boot(node.mac)
    machine.start(reboots=False, direct=direct)
    machine.wait_for(r"CLONER STAGE restore", AGENT_S)
    the_console_shows_the_restore_go_on(head, lab, node)
    machine.wait_off(AGENT_S)

    task = head.wait_state(node.name, "unconfirmed", 10)
    assert head.json("node", "show", node.name)["netboot"] == "local"
    body = head.json("receipt", "show", task["id"])["receipt"]["body"]
    with mounted(disk, 3) as clone:
        assert not unexpected_differences(tree, clone)
        assert (clone / "etc/hostname").read_text() == f"{node.name}\n"
        assert (clone / "etc/machine-id").read_text().strip() == body["machine_id"]
        keys = {ssh_fingerprint(path.read_text()) for path in clone.glob("etc/ssh/ssh_host_*_key.pub")}
        assert keys == set(body["host_key_fingerprints"])
        stays_nowhere(clone, ROOT_UUID, SWAP_UUID, ESP_SERIAL)
        secrets = [
            line for path in clone.glob("etc/ssh/ssh_host_*_key") for line in path.read_text().splitlines()[1:-1]
        ]
    secrets.append(direct.command_line.partition("cloner.claim=")[2].split()[0])
    assert not esp_faults(esp_files(disk), tree)
    uuids = {filesystem(disk, number)["UUID"] for number in (1, 2, 3)}
    assert not uuids & {ROOT_UUID, SWAP_UUID, ESP_SERIAL}
    assert partitions(disk)[2].uuid == body["root_part_uuid"]
    variables = boot_variables(machine.variables)
    esp = uuid.UUID(partitions(disk)[0].uuid).bytes_le
    ours = [entry for entry in variables.entries.values() if esp in entry.raw]
    assert len(ours) == 1
    assert ours[0].number in variables.order
    assert variables.next_entry == ours[0].number

    machine.start()
    assert head.wait_state(node.name, "done", BOOT_S)["confirmed_by"] == "ssh"
    assert head.json("receipt", "show", task["id"])["receipt"]["confirmed_by"] == "ssh"
    wait_for_ssh(lab, node.address, key, deadline_s=BOOT_S)
    assert ssh(lab, node.address, key, "cat /etc/machine-id").strip() == body["machine_id"]
    assert ssh_fingerprint(host_key(lab, node.address)) in body["host_key_fingerprints"]
    assert ssh(lab, node.address, key, "findmnt -no PARTUUID /").strip() == body["root_part_uuid"]
    left = ssh(lab, node.address, key, "ls -d /var/lib/cloner/confirm /usr/lib/cloner/confirm 2>/dev/null || true")
    assert left == "", "a clone that must not call has no secret to call with"
    said = ssh(lab, node.address, key, "journalctl --no-pager --all --output=verbose; dmesg; cat /proc/cmdline")
    assert len(said) > 10_000
    is_said_nowhere(secrets, head, lab, said)


@pytest.mark.parametrize("fault", ["flipped-pack", "two-disks", "small"])
def test_what_cannot_end_well_is_refused_before_the_disk_changes(lab: Lab, cache: Cache, fault: str) -> None:
    node = Node()
    head = Head(lab, build_installer(cache, lab.directory / "installer"))
    head.start()
    prepare(head, lab, golden_busybox(cache), node)
    size_bytes, bus = (520 * MIB, Bus.NVME) if fault == "small" else (2 * GIB, Bus.VIRTIO)
    vm = node.vm(lab, disks=2 if fault == "two-disks" else 1, size_bytes=size_bytes, bus=bus)
    precious = lab.directory / "precious"
    for path, text in {"usr/lib/os-release": 'PRETTY_NAME="Debian 12"\n', "etc/hostname": "db01\n"}.items():
        (precious / path).parent.mkdir(parents=True)
        (precious / path).write_text(text)
    for disk in vm.disks:
        host.run(["mkfs.ext4", "-q", "-F", "-L", "precious", "-d", precious, disk.path])
    before = [content_digest(disk.path) for disk in vm.disks]
    machine = Machine(lab, vm)
    foretold = {}
    if fault == "two-disks":
        is_discovered_without_a_write(head, node, machine)
        said = head.cloner("--json", "fit", IMAGE, "--nodes", node.name, check=False)
        assert said.status == 21, "one node it does not fit"
        (foretold,) = said.json[0]["refusals"]
    head.cloner("deploy", "--nodes", node.name, "--yes")
    packs = sorted(path for path in (head.state / "store" / "packs").rglob("*") if path.is_file())
    if fault == "flipped-pack":
        content = bytearray(packs[0].read_bytes())
        content[len(content) // 2] ^= 1
        packs[0].chmod(0o600)
        packs[0].write_bytes(content)
    machine.start(reboots=False, direct=head.direct_boot(node.mac))
    # The lab's bridge keeps LLDP to itself, as every bridge does; so the switch speaks on the machine's own port.
    lab.popen([sys.executable, "-c", SWITCH, LLDPDU])
    if fault == "small":
        machine.wait_off(AGENT_S)  # what has failed is shown, then it restarts
    else:
        has_explained(head, node)
        machine.kill()

    stage, cause = {
        "flipped-pack": ("verify", "corrupt"),
        "two-disks": ("plan", "ambiguous-disk"),
        "small": ("plan", "disk-too-small"),
    }[fault]
    failure = head.wait_state(node.name, "failed", 10)["failure"]
    assert (failure["stage"], failure["cause"]) == (stage, cause)
    assert failure["hint"]
    assert failure["is_destroyed"] is False
    assert foretold in ({}, {field: failure[field] for field in ("cause", "message", "hint")})
    assert [content_digest(disk.path) for disk in vm.disks] == before
    assert head.json("node", "show", node.name)["netboot"] == "local"
    bundle_explains(head, node, has_smart=bus is Bus.NVME)
    (neighbor,) = head.json("node", "show", node.name)["neighbors"]
    assert (neighbor["mac"], neighbor["switch"], neighbor["port"]) == (node.mac, "sw-r12", "Ethernet1/12")
    found = [signature for disk in head.json("node", "facts", node.name)["disks"] for signature in disk["signatures"]]
    told = [(one["label"], one["system"]) for one in found if one["kind"] == "ext4"]
    assert told == [("precious", "Debian 12, host db01")] * len(vm.disks)


def is_discovered_without_a_write(head: Head, node: Node, machine: Machine) -> None:
    head.cloner("netboot", "--nodes", node.name, "--set", "discover")
    before = [content_digest(disk.path) for disk in machine.vm.disks]
    machine.start(reboots=False, direct=head.direct_boot(node.mac))
    machine.wait_for(r"CLONER REBOOT inventory told", AGENT_S)
    machine.wait_off(MOVES_S)
    assert [content_digest(disk.path) for disk in machine.vm.disks] == before
    assert head.json("node", "show", node.name)["netboot"] == "local"
    assert head.json("task", "list") == []
    facts = head.json("node", "facts", node.name)
    assert len(facts["disks"]) == len(machine.vm.disks)
    assert {"virtio_blk", "virtio_net"} <= {name for device in facts["pci"] for name in device["modules"]}


def test_two_machines_cloned_at_once_share_nothing_and_survive_the_server_killed(lab: Lab, cache: Cache) -> None:
    one, other = Node(), Node("node02", "52:54:00:77:00:0c", "10.77.0.12", "CLONERDEMO02")
    head = Head(lab, build_installer(cache, lab.directory / "installer"))
    head.start()
    prepare(head, lab, golden_busybox(cache), one)
    add_node(head, other)
    head.cloner("node", "set", one.name, "--confirm", "console")
    head.cloner("deploy", "--nodes", "node[01-02]", "--yes")
    machines = []
    for node, clock in ((one, "1970-01-01T00:00:00"), (other, "2037-06-01T00:00:00")):
        vm = dataclasses.replace(node.vm(lab, size_bytes=2 * GIB), more=("-rtc", f"base={clock}"))
        machines.append(Machine(lab, vm))
        machines[-1].start(reboots=False, direct=head.direct_boot(node.mac))
    machines[0].wait_for(r"CLONER STAGE restore", AGENT_S)
    head.kill()
    head.start()
    for node, machine in zip((one, other), machines, strict=True):
        machine.wait_off(AGENT_S)
        head.wait_state(node.name, "unconfirmed", 10)
        assert "clock: set, it was" in machine.said()
    first, second = (identity_on(machine.vm.disks[0]) for machine in machines)
    assert first.keys() == second.keys()
    assert len(first) > 15
    assert [name for name in first if first[name] == second[name]] == []

    machines[0].start()
    match = machines[0].wait_for(MARKER, BOOT_S)
    assert match["hostname"] == one.name
    # It must not call: what its console said is handed over, firmware, kernel and all.
    machines[0].wait_for(r"CLONER-CONFIRM 1 [^\r\n]* [0-9a-f]{64}", BOOT_S)
    head.wait_state(one.name, "unconfirmed", 10)
    head.cloner("confirm", "--console", machines[0].log)
    assert head.wait_state(one.name, "done", 10)["confirmed_by"] == "console"
    machines[0].kill()
    head.cloner("deploy", "--nodes", one.name, "--yes")
    machines[0].start(reboots=False, direct=head.direct_boot(one.mac))
    machines[0].wait_off(AGENT_S)
    head.wait_state(one.name, "unconfirmed", 10)
    again = identity_on(machines[0].vm.disks[0])
    kept = {name for name in again if again[name] == first[name]}
    assert kept == {name for name in first if name.startswith("etc/") and "-cert" not in name}


def identity_on(disk: Disk) -> dict[str, bytes | str]:
    """Return what a clone that never booted has of the regeneration list, and every identifier of its disk."""
    names = ("machine-id", "hostname", "hostid", *(f"ssh/ssh_host_{kind}_key" for kind in ("ed25519", "ecdsa", "rsa")))
    found: dict[str, bytes | str] = {}
    with mounted(disk, 3) as clone:
        for name in names:
            for path in sorted(clone.glob(f"etc/{name}*")):
                found[str(path.relative_to(clone))] = path.read_bytes()
        for path in clone.glob("var/lib/systemd/random-seed"):
            found[str(path.relative_to(clone))] = path.read_bytes()
    found |= {f"partition {one.number}": one.uuid for one in partitions(disk)}
    return found | {f"filesystem {number}": filesystem(disk, number)["UUID"] for number in (1, 2, 3)}


def is_said_nowhere(secrets: list[str], head: Head, lab: Lab, said: str) -> None:
    """Assert that none of `secrets` is in what the clone said, nor in the server's state, log, events and tasks."""
    kept = [path.read_bytes() for path in head.state.rglob("*") if path.is_file()]
    kept += [lab.evidence.path("head.log").read_bytes(), said.encode(), head.cloner("--json", "events").out.encode()]
    for task in head.json("task", "list"):
        kept.append(head.cloner("--json", "task", "log", task["id"]).out.encode())
    assert [secret[:6] for secret in secrets if any(secret.encode() in content for content in kept)] == []


def the_console_shows_the_restore_go_on(head: Head, lab: Lab, node: Node) -> None:
    """Look twice with the default password, through OpenSSH that believes the server's key alone."""
    view = console.wait_open(head, node.name, 60)
    assert host_key(lab, view["address"]) == view["host_key"]
    first, deadline_s = "", time.monotonic() + MOVES_S
    while True:
        shown = console.look(head, node.name)
        assert f"Cloner  {node.name}  working" in shown
        assert "+ mkfs" in shown
        first = first or shown
        if first.splitlines()[1:] != shown.splitlines()[1:]:
            break  # more has moved than the clock
        assert time.monotonic() < deadline_s, f"nothing but the clock moves: {shown}"
        time.sleep(0.5)
    refused = console.look(head, node.name, "no such password", check=False)
    assert "working" not in refused


def prepare(head: Head, lab: Lab, tree: Path, node: Node) -> None:
    head.cloner("disklayout-upload", "--disklayout", LAYOUT, "--file", layout_file(lab, size_min="256MiB"))
    head.cloner("new-image", "--root", tree, "--image", IMAGE, "--disklayout", LAYOUT, "--message", "golden")
    add_node(head, node)


def add_node(head: Head, node: Node) -> None:
    network = ["--mac", node.mac, "--address", f"{node.address}/24"]
    head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", LAYOUT)


def has_explained(head: Head, node: Node) -> None:
    """Wait until the node's failure is told, with its bundle, and where its cable is plugged in."""
    head.wait_state(node.name, "failed", AGENT_S)
    task, end = head.task(node.name), time.monotonic() + MOVES_S
    while not (
        head.cloner("task", "bundle", task["id"], check=False).status == 0
        and head.json("node", "show", node.name)["neighbors"]
    ):
        assert time.monotonic() < end, "no bundle, or no neighbor, was told"
        time.sleep(0.5)


def bundle_explains(head: Head, node: Node, *, has_smart: bool) -> None:
    """Assert that the node sent a bundle of its failure in which every look found something."""
    (task,) = head.json("task", "list", "--node", node.name)
    told = {part["name"]: part for part in head.json("task", "bundle", task["id"])["bundle"]["parts"]}
    assert not {name: part["note"] for name, part in told.items() if part["note"] and "left out" not in part["note"]}
    words = {
        "log": "run: ",
        "kernel-log": "Linux version",
        "tables-before": "# /dev/",
        "tables-after": "# /dev/",
        "boot-entries-before": "BootCurrent",
        "boot-entries-after": "BootCurrent",
        "efibootmgr": "BootOrder",
        "lsblk": node.serial,
        "interfaces": "driver virtio_net",
        "links": node.mac,
        "addresses": node.mac,
        "smart": '"passed": true' if has_smart else "Unable to detect device type",
    }
    assert {name for name, word in words.items() if word not in told[name]["text"]} == set()


def stays_nowhere(clone: Path, *identifiers: str) -> None:
    """Assert that no file of /etc or /boot/grub names a filesystem of the golden machine."""
    for folder in ("etc", "boot/grub"):
        for path in (clone / folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes().lower()
                assert not [one for one in identifiers if one.lower().encode() in content], path
