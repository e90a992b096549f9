"""A node captured at rest: its disks are read through arrays, volumes and encryption, and keep every byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloner_core import newc
from cloner_core.layout import Filesystem, Layout, Luks, layout_differences, parse_layout
from cloner_initramfs import Cache
from vmlab import Lab, Machine
from vmlab.comparison import unexpected_differences
from vmlab.disk import GIB, blank_disk, content_digest
from vmlab.golden_busybox import golden_busybox
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID, copy_tree
from vmlab.head import Head, build_installer
from vmlab.machine import Nic, Vm
from vmlab.offline import esp_files
from vmlab.scene import Node

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]

AGENT_S = 600


def layout_file(folder: Path) -> Path:
    """Write a layout of all that has to be opened read-only: an array, a group on it, encryption, subvolumes."""
    esp = {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi", "source_uuid": ESP_SERIAL}
    root = {"type": "filesystem", "kind": "ext4", "mount": "/", "source_uuid": ROOT_UUID}
    swap = {"type": "swap", "source_uuid": SWAP_UUID}
    home = {"type": "filesystem", "kind": "xfs", "mount": "/home"}
    sealed = {"type": "luks", "name": "cryptsrv", "unlock": "passphrase"}
    subvolumes = [{"name": "@srv", "mount": "/srv"}, {"name": "@mail", "mount": "/var/mail"}]
    sealed["content"] = {"type": "filesystem", "kind": "btrfs", "subvolumes": subvolumes}  # type: ignore[assignment]
    member = {"size": "640MiB", "content": {"type": "raid", "array": "data"}}
    document = {
        "name": "mixed",
        "disks": [
            {
                "id": "a",
                "select": {"serial": "CLONERDEMO01"},
                "partitions": [
                    {"role": "esp", "size": "64MiB", "content": esp},
                    {"role": "swap", "size": "64MiB", "content": swap},
                    member,
                    {"size": "320MiB", "content": sealed},
                    {"role": "root", "size": "rest", "content": root},
                ],
            },
            {"id": "b", "select": {"serial": "CLONERDEMO02"}, "partitions": [member]},
        ],
        "arrays": [{"id": "data", "level": "raid1", "content": {"type": "lvm", "group": "vg0"}}],
        "groups": [{"name": "vg0", "volumes": [{"name": "home", "size": "rest", "content": home}]}],
    }
    path = folder / "mixed.json"
    path.write_text(json.dumps(document))
    return path


def test_a_node_is_captured_at_rest_and_its_disks_keep_every_byte(lab: Lab, cache: Cache) -> None:
    node = Node()
    head = Head(lab, build_installer(cache, lab.directory / "installer"))
    tree = copy_tree(golden_busybox(cache), lab.directory / "golden")
    for name in ("srv/data", "home/alice/notes", "var/mail/alice"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"{name}\n" * 1000)
    seem_unlockable(tree)
    head.start()
    head.cloner("disklayout-upload", "--disklayout", "mixed", "--file", layout_file(lab.directory))
    head.cloner("new-image", "--root", tree, "--image", "golden", "--disklayout", "mixed")
    own = ["--image", "golden", "--disklayout", "mixed", "--confirm", "none"]
    head.cloner("node", "add", node.name, "--mac", node.mac, "--address", f"{node.address}/24", *own)
    head.cloner("deploy", "--nodes", node.name, "--yes")
    disks = tuple(
        blank_disk(lab.directory / serial, size, serial=serial)
        for serial, size in (("CLONERDEMO01", 2 * GIB), ("CLONERDEMO02", GIB))
    )
    machine = Machine(lab, Vm(node.name, disks=disks, nics=(Nic(node.mac),), uuid=node.uuid))
    machine.start(reboots=False, direct=head.direct_boot(node.mac))
    machine.wait_off(AGENT_S)
    head.wait_state(node.name, "done", 10)

    before = [content_digest(disk.path) for disk in disks]
    words = ["--node", node.name, "--image", "caught", "--disklayout", "found", "--message", "at rest"]
    assert "writes to no disk" in head.cloner("capture", *words, "--dry-run").out
    head.cloner("capture", *words, "--yes")
    assert head.json("node", "show", node.name)["netboot"] == "capture"
    machine.start(reboots=False, direct=head.direct_boot(node.mac))
    machine.wait_off(AGENT_S)
    task = head.wait_state(node.name, "done", 10)
    print(head.cloner("task", "log", task["id"]).out)

    assert [content_digest(disk.path) for disk in disks] == before
    assert (task["kind"], task["image"], task["version"]) == ("capture", "caught", 1)
    assert head.json("node", "show", node.name)["netboot"] == "local"
    record = head.json("image-details", "--image", "caught")["detail"]
    assert (record["source"], record["message"]) == (node.name, "at rest")
    found, mixed = (kept_layout(head, name) for name in ("found", "mixed"))
    print(layout_differences(mixed, found))
    assert carried(found) == carried(mixed)
    extracted = lab.directory / "extracted"
    head.cloner("image-extract", "--image", "caught", "--to", extracted)
    # What the deploy has written for the encryption: the list of an initramfs, and what is opened later.
    also = {"etc/crypttab", *(str(path.relative_to(tree)) for path in (tree / "boot").glob("initrd.img-*"))}
    lines = unexpected_differences(tree, extracted, also=also)
    print("\n".join(lines))
    assert [line for line in lines if " boot/efi/" not in line] == []
    esp = extracted / "boot/efi"
    taken = {str(path.relative_to(esp)).lower(): path.read_bytes() for path in esp.rglob("*") if path.is_file()}
    assert taken == {path.lower(): content for path, content in esp_files(disks[0]).items()}


def kept_layout(head: Head, name: str) -> Layout:
    """Return a layout as the server keeps it."""
    return parse_layout(head.cloner("disklayout", "--disklayout", name).out.encode())


def carried(layout: Layout) -> dict[str, object]:
    """Return what a layout carries: filesystems and where they are mounted, encryption, arrays, volumes."""
    contents = [one for _, one in layout.contents()]
    filesystems = [one for one in contents if isinstance(one, Filesystem)]
    return {
        "mounts": sorted((one.kind, one.mount) for one in filesystems),
        "subvolumes": sorted((part.name, part.mount) for one in filesystems for part in one.subvolumes),
        "encrypted": [(one.name, one.unlock.way) for one in contents if isinstance(one, Luks)],
        "arrays": [(array.id, array.level) for array in layout.arrays],
        "volumes": [(group.name, volume.name) for group in layout.groups for volume in group.volumes],
        "disks": [len(disk.partitions) for disk in layout.disks],
    }


def seem_unlockable(tree: Path) -> None:
    """Give it what a deploy asks of an image whose disks are encrypted; this clone is never started."""
    for name in ("usr/sbin/mkinitramfs", "usr/share/initramfs-tools/hooks/cryptroot", "etc/init.d/cryptdisks"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (initrd,) = (tree / "boot").glob("initrd.img-*")
    content = initrd.read_bytes()
    more = newc.pack(newc.with_parents([newc.file("usr/sbin/cryptsetup", b"", mode=0o755)]))
    initrd.write_bytes(content + bytes(-len(content) % 512) + more)
