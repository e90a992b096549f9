"""Scripts and programs of an image on a real node: what they are told, and what the walls in an initramfs hold."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cloner_core import newc
from cloner_initramfs import Cache
from vmlab import Lab, Machine
from vmlab.disk import GIB
from vmlab.golden_busybox import MARKER, golden_busybox
from vmlab.golden_debian import SWAP_UUID, copy_tree
from vmlab.head import Head, build_installer
from vmlab.offline import mounted
from vmlab.scene import IMAGE, LAYOUT, Node, layout_file

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

AGENT_S = 600
BOOT_S = 420

# Exit status 0 when there is the disk that will be written, and none of the agent's processes.
PRE = """#!/bin/sh -e
[ -b "$CLONER_DISKS" ]
[ "$(ls /proc | grep -c '^[0-9]')" -lt 10 ]
grep -q '"firmware":"uefi"' "$CLONER_FACTS"
echo "pre saw $CLONER_DISKS"
"""
PRE_PYTHON = """#!/usr/bin/python3
import os, sys
sys.exit("told on purpose" if os.environ["CLONER_TYPE"] == "pre" else 0)
"""
# Writes a line for each wall that has a hole.
POST = """#!/bin/sh
hole() { echo "$1" >>/root/holes; }
echo "$CLONER_NODE $CLONER_IMAGE:$CLONER_VERSION $(hostname)" >/root/told
: >/root/holes
mknod /root/disk b 254 0 && hole mknod
mknod /dev/disk b 254 0 && hole "mknod in /dev"
dd if=/brought of=/dev/null count=1 && hole "a disk by a file of the image"
[ "$(find / -xdev -type b | wc -l)" = 1 ] || hole "a device of the machine"
find /dev -type b | grep . && hole "a disk in /dev"
mount -t tmpfs x /tmp && hole mount
mount -o remount,rw /proc && hole "/proc"
umount /proc/cmdline && hole umount
echo x >/proc/sys/kernel/core_pattern && hole sysctl
echo h >/proc/sysrq-trigger && hole sysrq
unshare -U true && hole "a user namespace"
unshare -m true && hole "a mount namespace"
insmod "$(find /lib/modules/ -name '*.ko*' | head -n 1)" 2>&1 | grep -qi 'not permitted' || hole module
grep . /proc/cmdline && hole "the claim"
dmesg | grep claim= && hole "the claim in the log"
[ "$(ls /proc | grep -c '^[0-9]')" -lt 8 ] || hole processes
ip link | grep -c eth0 >/dev/null && ip link | grep -q ': eth0' && hole network
ip link set lo up && hole "the network made up"
hostname other && hole hostname
date -s @0; [ "$(date +%Y)" = 1970 ] && hole clock
reboot -f && hole reboot
ls -d /mnt/target /run/cloner/keys && hole "the agent's root"
[ -e /proc/1/root/init ] && hole "the agent's files"
sleep 1000 &
exit 0
"""
UPDATE_INITRAMFS = """#!/bin/sh -e
[ "$1 $2" = "-u -k" ]
cp /usr/share/initrd.good "/boot/initrd.img-$3"
"""


def test_scripts_run_on_the_machine_and_in_the_clone_and_an_initramfs_is_made_anew(lab: Lab, cache: Cache) -> None:
    node = Node()
    head = Head(lab, build_installer(cache, lab.directory / "installer"))
    head.start()
    tree = copy_tree(golden_busybox(cache), lab.directory / "golden")
    make_initramfs_stale(tree)
    bring_device(tree)
    head.cloner("disklayout-upload", "--disklayout", LAYOUT, "--file", layout_file(lab, size_min="256MiB"))
    head.cloner("new-image", "--root", tree, "--image", IMAGE, "--disklayout", LAYOUT, "--message", "golden")
    network = ["--mac", node.mac, "--address", f"{node.address}/24"]
    head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", LAYOUT)
    put(head, lab, "look", "pre", PRE)
    put(head, lab, "python", "pre", PRE_PYTHON, "--on-failure", "note")
    put(head, lab, "walls", "post", POST)
    head.cloner("deploy", "--nodes", node.name, "--yes")
    vm = node.vm(lab, size_bytes=2 * GIB)
    machine = Machine(lab, vm)
    machine.start(reboots=False, direct=head.direct_boot(node.mac))
    machine.wait_off(AGENT_S)

    task = head.wait_state(node.name, "unconfirmed", 10)
    body = head.json("receipt", "show", task["id"])["receipt"]["body"]
    assert [(run["name"], run["status"]) for run in body["scripts"]] == [("look", 0), ("python", 1), ("walls", 0)]
    assert any("pre-script 'python' ended with status 1" in note for note in body["notes"])
    assert any("was made anew by update-initramfs" in note for note in body["notes"])
    log = head.cloner("task", "log", task["id"]).out
    assert "look: pre saw /dev/vda" in log
    assert "python: told on purpose" in log
    with mounted(vm.disks[0], 3) as clone:
        assert (clone / "root/told").read_text() == f"{node.name} {IMAGE}:1 {node.name}\n"
        assert (clone / "root/holes").read_text() == ""
        assert list((clone / "run").iterdir()) == []
        (initramfs,) = clone.glob("boot/initrd.img-*")
        assert initramfs.read_bytes() == (clone / "usr/share/initrd.good").read_bytes()
    machine.start()
    assert machine.wait_for(MARKER, BOOT_S)["hostname"] == node.name
    assert head.wait_state(node.name, "done", BOOT_S)["confirmed_by"] == "phone-home"


def make_initramfs_stale(tree: Path) -> None:
    """Have the initramfs wait for the golden machine's swap, and the image have a tool that makes it anew."""
    (initramfs,) = tree.glob("boot/initrd.img-*")
    (tree / "usr/share/initrd.good").write_bytes(initramfs.read_bytes())
    resume = newc.file("conf/conf.d/resume", f"RESUME=UUID={SWAP_UUID}\n".encode())
    initramfs.write_bytes(initramfs.read_bytes() + newc.pack(newc.with_parents([resume])))
    for name, content in {"mkinitramfs": "#!/bin/sh\n", "update-initramfs": UPDATE_INITRAMFS}.items():
        path = tree / "usr/sbin" / name
        path.write_text(content)
        path.chmod(0o755)


def bring_device(tree: Path) -> None:
    """Put a device file of the node's disk into the image."""
    os.mknod(tree / "brought", stat.S_IFBLK | 0o666, os.makedev(254, 0))


def put(head: Head, lab: Lab, name: str, kind: str, content: str, *more: str) -> None:
    path = lab.directory / f"{name}.sh"
    path.write_text(content)
    head.cloner("script", "--image", IMAGE, "--type", kind, "--set", path, *more)
