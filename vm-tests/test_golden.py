"""The small golden tree boots from a disk that foreign tools made, so a clone that does not is the cloning's fault.

That the Debian tree does: `test_golden_machine.py`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from types import SimpleNamespace
from typing import cast

import pytest

from cloner_core.admin.nodes import NodeView
from cloner_core.messages import Secret, Vaulted
from cloner_core.network import NodeNetwork
from cloner_core.sightings import SshAnswer
from cloner_initramfs import Cache
from cloner_server.hostcertificates import authority_line, certified, key_id
from cloner_server.sshprobe import Expected, look
from cloner_server.vault import make_identity
from netns.netboot_lab import inside
from vmlab import Lab, Machine, Vm, blank_disk
from vmlab.disk import MIB
from vmlab.golden_busybox import HOSTNAME, MARKER, golden_busybox
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID, golden_debian
from vmlab.handmade import install_by_hand
from vmlab.lab import SERVER_ADDRESS
from vmlab.nvram import boot_variables
from vmlab.offline import esp_files, filesystem, mounted, partitions

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


@pytest.mark.parametrize(
    ("algorithm", "has_certificate", "curve"),
    [
        ("ed25519", True, ""),
        ("ecdsa", True, "ecdh-sha2-nistp256"),
        ("rsa", True, ""),
        ("ed25519", False, ""),
        ("rsa", False, ""),
    ],
)
def test_its_ssh_server_proves_which_clone_it_is(
    lab: Lab, cache: Cache, algorithm: str, has_certificate: bool, curve: str
) -> None:
    vault_key, stranger, identity = bytes(32), bytes([1]) * 32, make_identity()
    node = cast(NodeView, SimpleNamespace(name="n01", network=NodeNetwork("n01")))
    vaulted = Vaulted(machine_id=identity.machine_id, host_keys=identity.host_keys, random_seed=Secret("00"))
    keys = {str(key.algorithm): key for key in certified(vaulted, node, vault_key, attempt="7-1-ab").host_keys}
    folder = lab.directory / "keys"
    folder.mkdir()
    (folder / "key").write_text(keys[algorithm].private.value)
    (folder / "key").chmod(0o600)
    (folder / "key-cert.pub").write_text(f"{keys[algorithm].certificate}\n")
    options = ["-h", "/run/sshd/key", *(["-o", "HostCertificate=/run/sshd/key-cert.pub"] if has_certificate else [])]
    options += ["-o", f"KexAlgorithms={curve}"] if curve else []
    expected = Expected(tuple(key.public for key in keys.values()), authority_line(vault_key), key_id("n01", "7-1-ab"))
    # The tree is shared and stays as it is: what sshd wants to find lies on file systems of its own mount namespace.
    mounts = "mount -t tmpfs run $0/run && mkdir $0/run/sshd && cp $1/key* $0/run/sshd/ && mount --bind /dev $0/dev"
    script = f'{mounts} && shift && exec chroot $0 /usr/sbin/sshd -D -e -f /dev/null -p 2222 "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, str(golden_debian(cache)), str(folder), *options]
    sshd = lab.popen(argv, log_name="sshd")

    def ask(wanted: Expected) -> SshAnswer:
        with inside(lab.name):
            return asyncio.run(look([SERVER_ADDRESS], wanted, port=2222)).answer

    end = time.monotonic() + 30
    while (answer := ask(expected)) is SshAnswer.REFUSED and time.monotonic() < end:
        time.sleep(0.2)
    assert answer is (SshAnswer.CLONE if has_certificate else SshAnswer.KEY)
    assert ask(dataclasses.replace(expected, key_id=key_id("n01", "6-1-cd"))) is SshAnswer.KEY
    assert ask(dataclasses.replace(expected, authority=authority_line(stranger))) is SshAnswer.KEY
    assert ask(dataclasses.replace(expected, publics=expected.publics[:0])) is SshAnswer.OTHER_KEY
    lab.stop(sshd)
    assert ask(expected) is SshAnswer.REFUSED
