"""An encrypted clone: unlocked by the TPM of its machine, by no other one, and by the node's recovery key."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloner_initramfs import Cache
from vmlab import Lab, Machine
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID
from vmlab.head import Head, build_installer
from vmlab.scene import IMAGE, Node, golden_tree
from vmlab.ssh import ssh, wait_for_ssh
from vmlab.tpm import Tpm

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(3000)]

LAYOUT = "sealed"
PACKAGES = ("clevis", "clevis-tpm2", "clevis-initramfs", "cryptsetup-initramfs")
DEPLOY_S, BOOT_S, LEAST_WAIT_S = 1200, 900, 45
ASKED, OPENED = r"Please unlock disk cryptroot", r"cryptroot: set up successfully"


def layout_file(folder: Path, serial: str) -> Path:
    esp = {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi", "source_uuid": ESP_SERIAL}
    root = {"type": "filesystem", "kind": "ext4", "mount": "/", "source_uuid": ROOT_UUID}
    swap = {"type": "swap", "source_uuid": SWAP_UUID}
    sealed = {"type": "luks", "name": "cryptroot", "unlock": "tpm2", "content": root}
    fresh = {"type": "luks", "name": "cryptswap", "unlock": "random", "content": swap}
    document = {
        "name": LAYOUT,
        "disks": [
            {
                "id": "system",
                "select": {"serial": serial},
                "partitions": [
                    {"role": "esp", "size": "256MiB", "content": esp},
                    {"size": "512MiB", "content": {"type": "filesystem", "kind": "ext4", "mount": "/boot"}},
                    {"size": "256MiB", "content": fresh},
                    {"size": "rest", "content": sealed},
                ],
            }
        ],
    }
    path = folder / f"{LAYOUT}.json"
    path.write_text(json.dumps(document))
    return path


def test_the_tpm_of_the_machine_unlocks_its_clone_and_no_other_tpm_does(lab: Lab, cache: Cache) -> None:
    node = Node()
    head = Head(lab, build_installer(cache, lab.directory / "installer"))
    tree, key = golden_tree(cache, lab, PACKAGES)
    head.start()
    head.cloner("disklayout-upload", "--disklayout", LAYOUT, "--file", layout_file(lab.directory, node.serial))
    head.cloner("new-image", "--root", tree, "--image", IMAGE, "--disklayout", LAYOUT, "--message", "golden")
    network = ["--mac", node.mac, "--address", f"{node.address}/24"]
    head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", LAYOUT)
    head.cloner("deploy", "--nodes", node.name, "--yes")
    own, foreign = Tpm(lab, "own"), Tpm(lab, "foreign")
    machine = Machine(lab, dataclasses.replace(node.vm(lab), more=own.arguments))
    own.insert()
    machine.start(reboots=False, direct=head.direct_boot(node.mac))
    machine.wait_off(DEPLOY_S)
    head.wait_state(node.name, "unconfirmed", 10)

    own.insert()
    machine.start()
    machine.wait_for(ASKED, BOOT_S)
    asked_s = time.monotonic()
    machine.wait_for(OPENED, BOOT_S)
    opened_s = time.monotonic() - asked_s
    task = head.wait_state(node.name, "done", BOOT_S)
    wait_for_ssh(lab, node.address, key, deadline_s=BOOT_S)

    def says(command: str) -> str:
        return ssh(lab, node.address, key, command, timeout_s=180)

    lies_on_what_was_asked_for(says)
    recovery = head.json("node", "recovery-key", node.name)["keys"][0]["key"]
    has_two_keys(says, recovery)
    notes = head.json("receipt", "show", task["id"])["receipt"]["body"]["notes"]
    assert [note for note in notes if "cryptroot is unlocked by the TPM of this machine (clevis token)" in note]
    told = [path.read_bytes() for path in head.state.rglob("*") if path.is_file()]
    told += [head.cloner("--json", "task", "log", task["id"]).out.encode(), machine.said().encode()]
    told.append(says("journalctl --no-pager --all; cat /proc/cmdline").encode())
    assert not [content[:200] for content in told if recovery.encode() in content]

    machine.kill()
    foreign.insert()
    machine.start()
    machine.wait_for(ASKED, BOOT_S)
    time.sleep(max(3 * opened_s, LEAST_WAIT_S))
    assert machine.is_running
    assert not machine.has_said(OPENED)


def lies_on_what_was_asked_for(says: Callable[[str], str]) -> None:
    assert says("findmnt -no SOURCE,FSTYPE / && findmnt -no SOURCE /boot").split() == [
        "/dev/mapper/cryptroot",
        "ext4",
        "/dev/vda2",
    ]
    status = says("cryptsetup status cryptroot")
    assert "type:    LUKS2" in status
    assert "device:  /dev/vda4" in status
    assert "discards" in status
    swap = says("cryptsetup status cryptswap; cat /proc/swaps")
    assert "type:    PLAIN" in swap
    assert "/dev/dm-" in swap
    assert SWAP_UUID not in says("cat /etc/fstab"), "the boot would wait for the golden node's swap"
    failed = says("systemctl list-units --failed --no-legend --plain")
    assert "crypt" not in failed
    assert "swap" not in failed


def has_two_keys(says: Callable[[str], str], recovery: str) -> None:
    header = json.loads(says("cryptsetup luksDump --dump-json-metadata /dev/vda4"))
    assert {slot: one["kdf"]["type"] for slot, one in header["keyslots"].items()} == {"1": "argon2id", "2": "pbkdf2"}
    assert [(one["type"], one["keyslots"]) for one in header["tokens"].values()] == [("clevis", ["2"])]
    opened = "cryptsetup open --test-passphrase --key-slot 1 --key-file - /dev/vda4"
    assert says(f"printf %s '{recovery}' | {opened} && echo opened").strip() == "opened"
