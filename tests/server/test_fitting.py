"""Fit reports: from inventories alone, and never at odds with what a deploy does."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import msgspec
import pytest

from cloner_core.admin.fitting import FitView
from cloner_core.facts import Disk, Facts, Firmware, PciDevice
from cloner_core.layout import parse_layout
from cloner_core.plan import PlanError
from cloner_server.state import images, layouts, nodes
from cloner_server.store.local import LocalStore
from serverbench.scene import GIB, LAYOUT, START_S, Agent, Scene, facts
from store_images import make_image, some_contents

TWO = facts()
TWO = msgspec.structs.replace(
    TWO,
    disks=(*TWO.disks, Disk(path="/dev/vdb", size_bytes=8 * GIB, serial="D2", model="VirtDisk", bus="virtio")),
)


def changed_disk(**changes: Any) -> Facts:
    told = facts()
    return msgspec.structs.replace(told, disks=(msgspec.structs.replace(told.disks[0], **changes),))


MIRROR = """{"name": "mirror", "disks": [
  {"id": "a", "select": {"serial": "D1"}, "partitions": [
    {"role": "esp", "size": "512MiB", "content": {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi"}},
    {"role": "raid", "size": "rest", "content": {"type": "raid", "array": "os"}}]},
  {"id": "b", "select": {"serial": "D2"}, "partitions": [
    {"role": "esp", "size": "512MiB", "content": {"type": "esp-copy"}},
    {"role": "raid", "size": "rest", "content": {"type": "raid", "array": "os"}}]}],
 "arrays": [{"id": "os", "level": "raid1", "content": {"type": "lvm", "group": "vg0"}}],
 "groups": [{"name": "vg0", "volumes": [
   {"name": "root", "size": "rest", "content": {"type": "filesystem", "kind": "ext4", "mount": "/"}}]}]}"""
MACHINES: dict[str, tuple[Facts, str]] = {
    "fits": (facts(), ""),
    "two disks alike": (TWO, "ambiguous-disk"),
    "no disk": (msgspec.structs.replace(facts(), disks=()), "no-disk"),
    "a disk in use": (changed_disk(is_mounted=True), "no-disk"),
    "a small disk": (changed_disk(size_bytes=GIB - 512), "no-disk"),
    "a layout that wants more": (facts(), "disk-too-small"),
    "large sectors": (changed_disk(sector_bytes=4096, physical_sector_bytes=4096), ""),
    "BIOS": (msgspec.structs.replace(facts(), firmware=Firmware.BIOS), "firmware"),
    "little memory": (msgspec.structs.replace(facts(), memory_bytes=256 << 20), "memory"),
}


def fit(scene: Scene, *names: str, **more: Any) -> list[FitView]:
    answer = scene.admin("POST", "/fit", {"nodes": names or ("n01",), "image": "golden"} | more)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=list[FitView])


def remember(scene: Scene, told: Facts, name: str = "n01") -> None:
    with scene.core.database.write() as connection:
        nodes.remember_facts(connection, scene.core.act("test"), name, told)


@pytest.mark.parametrize("name", MACHINES)
def test_a_report_says_what_the_agent_of_a_deploy_would_say(scene: Scene, name: str) -> None:
    told, cause = MACHINES[name]
    scene.add_node()
    if "layout" in name:
        large = parse_layout(LAYOUT.replace("256MiB", "16GiB"))  # the next number of the node's own
        with scene.core.database.write() as connection:
            layouts.add_layout(connection, scene.core.act("test"), large)
    remember(scene, told)
    (view,) = fit(scene)
    assert scene.admin("GET", "/tasks").json() == []
    scene.arm(has_identity=False)
    agent = Agent(scene, told)
    agent.hello()
    if cause:
        with pytest.raises(PlanError) as refusal:
            agent.plan()
        said = refusal.value
        assert said.cause == cause
        assert not view.fits
        assert [(one.cause, one.message, one.hint) for one in view.refusals] == [(cause, said.message, said.hint)]
        return
    plan = agent.plan()
    assert (view.fits, view.refusals) == (True, ())
    assert [disk.serial for disk in view.disks] == [one.disk.serial for one in plan.disks]
    made = {partition.device: partition.size_sectors * plan.disks[0].disk.sector_bytes for partition in plan.partitions}
    assert {size.device: size.size_bytes for size in view.sizes} == made
    assert [(size.filesystem, size.mounts) for size in view.sizes] == [
        ("vfat", ("/boot/efi",)),
        ("swap", ()),
        ("ext4", ("/",)),
    ]


def test_every_disk_that_is_not_chosen_is_told_with_the_reason(scene: Scene) -> None:
    scene.add_node()
    small = msgspec.structs.replace(TWO.disks[1], size_bytes=GIB // 2)
    stick = msgspec.structs.replace(TWO.disks[1], path="/dev/sda", serial="S", bus="usb")
    remember(scene, msgspec.structs.replace(TWO, disks=(TWO.disks[0], small, stick)))
    (view,) = fit(scene)
    assert [disk.path for disk in view.disks] == ["/dev/vda"]
    assert [other.why for other in view.others] == ["is smaller than 1.0 GiB", "is on USB"]
    remember(scene, TWO)
    (view,) = fit(scene)
    assert [other.why for other in view.others] == ["matches, as others do"] * 2


def test_arrays_and_volumes_are_told_with_their_sizes(scene: Scene) -> None:
    scene.add_node()
    remember(scene, TWO)
    with scene.core.database.write() as connection:
        layouts.add_layout(connection, scene.core.act("test"), parse_layout(MIRROR))
    (view,) = fit(scene, layout="mirror")
    assert view.refusals == ()
    told = {size.what.partition(",")[0]: size for size in view.sizes}
    assert told["array os"].size_bytes > 6 * GIB
    assert told["volume of vg0"].mounts == ("/",)
    assert told["volume of vg0"].size_bytes <= told["array os"].size_bytes


def test_a_node_that_told_nothing_is_said_to_have_no_inventory(scene: Scene) -> None:
    scene.add_node()
    (view,) = fit(scene)
    assert (view.fits, [one.cause for one in view.refusals]) == (False, ["no-inventory"])
    assert "--set discover" in view.refusals[0].hint
    assert view.told_s is None


def test_the_age_of_the_inventory_is_told(scene: Scene) -> None:
    scene.add_node()
    remember(scene, facts())
    scene.clock.now_s += 3600
    (view,) = fit(scene)
    assert (view.told_s, view.age_s) == (START_S, 3600)


def test_what_arming_would_refuse_is_refused_here_too(scene: Scene) -> None:
    scene.add_node(is_protected=True)
    remember(scene, facts())
    (view,) = fit(scene)
    assert [(one.cause, one.message) for one in view.refusals] == [("refused", "n01 is protected")]
    assert view.sizes, "what it would be is told all the same"


def test_memory_is_compared_with_the_installer(scene: Scene) -> None:
    scene.add_node()
    remember(scene, facts())
    rules = dataclasses.replace(scene.core.rules, agent_memory_bytes=4 << 30)
    scene.core = dataclasses.replace(scene.core, rules=rules)
    (view,) = fit(scene)
    assert "the agent needs 4096 MiB" in view.refusals[0].message


def test_an_image_that_could_not_boot_fits_nobody(scene: Scene) -> None:
    image = make_image(some_contents(), name="unbootable")
    image.put(cast(LocalStore, scene.core.catalog.store))
    record = scene.core.catalog.store.publish(image.draft)
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("test"), record.image, record.number, record.version)
    scene.add_node()
    remember(scene, facts())
    (view,) = fit(scene, image="unbootable")
    assert [one.cause for one in view.refusals] == ["not-bootable"]


def test_a_node_without_layout_is_told_apart_and_the_others_are_judged(scene: Scene) -> None:
    scene.add_node()
    scene.add_node("n02", "52:54:00:00:00:02")
    scene.admin("PATCH", "/nodes/n02", {"layout": ""})
    remember(scene, facts())
    one, two = fit(scene, "n01", "n02")
    assert one.fits
    assert not two.fits
    assert "no layout" in two.refusals[0].message


def test_a_controller_that_the_installer_cannot_drive_is_noted(scene: Scene) -> None:
    scene.add_node()
    orphan = PciDevice("0000:03:00.0", "010700", "pci:v00001000d00000097sv")
    remember(scene, msgspec.structs.replace(facts(), pci=(orphan,)))
    (view,) = fit(scene)
    assert view.fits
    assert any("no driver for the disk controller 1000:0097" in note for note in view.notes)


def test_what_does_not_exist_is_named(scene: Scene) -> None:
    answer = scene.admin("POST", "/fit", {"nodes": ["n77"], "image": "golden"})
    assert (answer.status_code, "n77" in answer.json()["error"]) == (404, True)
    scene.add_node()
    assert scene.admin("POST", "/fit", {"nodes": ["n01"], "image": "nosuch"}).status_code == 404
