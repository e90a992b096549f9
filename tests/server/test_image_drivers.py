"""The drivers of an image, read from its packs in the store, against the hardware of a node's inventory."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path
from typing import cast

import msgspec
import pytest

from cloner_core import newc
from cloner_core.admin.fitting import FitView
from cloner_core.facts import Disk, Facts, PciDevice
from cloner_server.imagedrivers import ImageDrivers, read_drivers
from cloner_server.state import images, nodes
from cloner_server.store.local import LocalStore
from initramfsbench.node_parts import drivers_part
from serverbench.installers import put_installer, with_shelf
from serverbench.scene import GIB, Scene, facts
from store_images import BOOTABLE, make_image

RELEASE = "6.1.0-50-amd64"
HOME = f"usr/lib/modules/{RELEASE}"
DEP = """kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko
kernel/drivers/nvme/host/nvme-core.ko:
kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko:
kernel/fs/ext4/ext4.ko:
"""
ALIAS = "alias pci:v*d*sv*sd*bc01sc08i02* nvme\nalias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n"
NVME = PciDevice("0000:01:00.0", "010802", "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02", "nvme", ("nvme",))
CARD = PciDevice(
    "0000:02:00.0", "020000", "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00", "e1000e", ("e1000e",)
)
DISK = Disk(path="/dev/nvme0n1", size_bytes=8 * GIB, serial="N1", model="Fast", bus="nvme", controller="0000:01:00.0")
MACHINE = msgspec.structs.replace(facts(), disks=(DISK,), pci=(NVME, CARD))
ALL = ("kernel/drivers/nvme/host/nvme.ko", "kernel/drivers/nvme/host/nvme-core.ko", "kernel/fs/ext4/ext4.ko")


def publish(scene: Scene, *held: str, tools: tuple[str, ...] = (), initramfs: bytes | None = None) -> None:
    """Publish an image whose initramfs holds the modules `held`, and which has `tools`."""
    inside = newc.pack(newc.with_parents(newc.file(f"{HOME}/{path}", b"\x7fELF") for path in ("none.txt", *held)))
    contents = {
        f"boot/vmlinuz-{RELEASE}": b"a kernel",
        f"boot/initrd.img-{RELEASE}": gzip.compress(inside) if initramfs is None else initramfs,
        f"{HOME}/modules.dep": DEP.encode(),
        f"{HOME}/modules.alias": ALIAS.encode(),
        f"{HOME}/modules.builtin": b"",
    } | dict.fromkeys(tools, b"#!/bin/sh\n")
    loader = {path: text for path, text in BOOTABLE.items() if b"grub" in path}
    image = make_image({path.encode(): text for path, text in contents.items()} | loader, name="drivers")
    store = cast(LocalStore, scene.core.catalog.store)
    image.put(store)
    record = store.publish(image.draft)
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("test"), record.image, record.number, record.version)


def fit(scene: Scene, told: Facts = MACHINE) -> FitView:
    scene.add_node()
    with scene.core.database.write() as connection:
        nodes.remember_facts(connection, scene.core.act("test"), "n01", told)
    answer = scene.admin("POST", "/fit", {"nodes": ["n01"], "image": "drivers"})
    assert answer.status_code == 200, answer.text
    (view,) = msgspec.json.decode(answer.content, type=list[FitView])
    return view


def test_an_initramfs_with_all_that_is_needed_gives_no_word_for_a_card_is_not_needed_to_boot(scene: Scene) -> None:
    publish(scene, *ALL)
    view = fit(scene)
    assert (view.fits, view.notes) == (True, ())


@pytest.mark.parametrize("tools", [(), ("usr/sbin/mkinitramfs",)])
def test_a_driver_that_is_lacking_is_refused_unless_the_image_can_make_its_initramfs_anew(
    scene: Scene, tools: tuple[str, ...]
) -> None:
    publish(scene, "kernel/fs/ext4/ext4.ko", tools=tools)
    view = fit(scene)
    told = f"the initramfs of kernel {RELEASE} (/boot/initrd.img-{RELEASE}): it lacks nvme, nvme_core for disk"
    if tools:
        assert view.fits
        assert view.notes[0].startswith(told)
        assert view.notes[0].endswith("the deploy has the image make it anew")
    else:
        assert [one.cause for one in view.refusals] == ["not-bootable"]
        assert view.refusals[0].message.startswith(told)
        assert "no tool to make it anew" in view.refusals[0].message


def test_a_filesystem_of_the_layout_is_looked_for_too(scene: Scene) -> None:
    publish(scene, *ALL[:2])
    assert "it lacks ext4 for filesystem ext4" in fit(scene).refusals[0].message


def test_a_disk_that_is_not_chosen_needs_no_driver(scene: Scene) -> None:
    publish(scene, "kernel/fs/ext4/ext4.ko")
    plain = Disk(path="/dev/vda", size_bytes=8 * GIB, serial="D1", model="VirtDisk", bus="virtio")
    stick = msgspec.structs.replace(DISK, is_removable=True)
    assert fit(scene, msgspec.structs.replace(MACHINE, disks=(plain, stick))).fits


def test_an_initramfs_that_cannot_be_read_is_noted(scene: Scene) -> None:
    publish(scene, initramfs=b"no initramfs at all")
    view = fit(scene)
    assert view.fits
    assert "not looked into" in view.notes[0]


def test_an_image_without_modules_is_noted_and_read_once(scene: Scene) -> None:
    scene.add_node()
    with scene.core.database.write() as connection:
        nodes.remember_facts(connection, scene.core.act("test"), "n01", facts())
    answers = [scene.admin("POST", "/fit", {"nodes": ["n01"], "image": "golden"}).json()[0] for _ in range(2)]
    assert answers[0] == answers[1]
    assert "its drivers were not looked at" in answers[0]["notes"][0]


@pytest.mark.parametrize(
    ("held", "cause", "told"),
    [
        (("nvme", "nvme_core", "e1000e"), "", ""),
        (("e1000e",), "no-disk", "lacks nvme for disk /dev/nvme0n1"),
        (("nvme", "nvme_core"), "boot", "lacks e1000e for network card 8086:10d3"),
    ],
)
def test_the_installer_must_have_what_the_inventory_was_taken_with(
    scene: Scene, tmp_path: Path, held: tuple[str, ...], cause: str, told: str
) -> None:
    publish(scene, *ALL)
    files = [newc.file(f"usr/lib/modules/6.1/kernel/{name}.ko.xz", b"\x7fELF") for name in ("ext4", *held)]
    files.append(newc.file("usr/lib/modules/6.1/modules.builtin", b"kernel/fs/xfs/xfs.ko\n"))
    installer = tmp_path / "initramfs"
    installer.write_bytes(gzip.compress(newc.pack(newc.with_parents(files))))
    scene.core = dataclasses.replace(scene.core, installer=installer)
    card = msgspec.structs.replace(MACHINE.nics[0], pci_id="8086:10d3")
    view = fit(scene, msgspec.structs.replace(MACHINE, nics=(card,)))
    assert [one.cause for one in view.refusals] == [cause] * bool(cause)
    assert told in "".join(one.message for one in view.refusals)


def test_an_installer_of_another_kernel_than_the_images_is_said_and_its_modules_are_judged(
    scene: Scene, tmp_path: Path
) -> None:
    publish(scene, *ALL)
    with_shelf(scene, tmp_path / "installer")
    card = msgspec.structs.replace(MACHINE.nics[0], pci_id="8086:10d3")
    machine = msgspec.structs.replace(MACHINE, nics=(card,))
    view = fit(scene, machine)
    assert view.refusals == (), "that of the settings has no modules, and is not judged"
    answer = put_installer(scene)
    assert answer.status_code == 200, answer.text
    told = scene.admin("POST", "/fit", {"nodes": ["n01"], "image": "drivers"}).json()[0]
    assert "the installer of this server lacks" in told["refusals"][0]["message"]
    for release, notes in (("5.14.0", 1), (RELEASE, 0)):
        home = f"usr/lib/modules/{release}/kernel"
        more = [newc.file(f"{home}/{name}.ko", b"\x7fELF") for name in ("e1000e", "nvme-core")]
        answer = put_installer(scene, drivers=drivers_part(release, *more), release=release, overwrite=True)
        assert answer.status_code == 200, answer.text
        told = scene.admin("POST", "/fit", {"nodes": ["n01"], "image": "drivers"}).json()[0]
        assert (told["fits"], len(told["notes"])) == (True, notes), told
        plan = scene.admin("GET", "/plan/n01", image="drivers").json()
        assert plan["notes"] == told["notes"]
        assert all(f"the installer has kernel 5.14.0, the image {RELEASE}" in note for note in plan["notes"])


def test_an_installer_that_cannot_be_read_is_not_judged(scene: Scene, tmp_path: Path) -> None:
    publish(scene, *ALL)
    installer = tmp_path / "initramfs"
    installer.write_bytes(b"no initramfs")
    scene.core = dataclasses.replace(scene.core, installer=installer)
    assert fit(scene).fits


def test_what_is_read_is_what_was_captured(scene: Scene) -> None:
    publish(scene, *ALL, tools=("usr/bin/dracut",))
    version = scene.core.catalog.find(scene.core.catalog.version_ref("drivers", 1))
    found = read_drivers(scene.core.catalog.store, version)
    assert isinstance(found, ImageDrivers)
    assert (found.release, found.alias, set(found.rebuilders)) == (RELEASE, ALIAS, {"/usr/bin/dracut"})
    assert found.initrd is not None
    assert found.initrd.modules(RELEASE) == {"nvme", "nvme_core", "ext4"}
