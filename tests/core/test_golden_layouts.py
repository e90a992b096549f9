"""The reviewed layouts: each is read, written back equal, and planned exactly as its reviewed file says."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from cloner_core.facts import Disk, DiskPartition, Facts, Firmware, Signature
from cloner_core.fstab import make_fstab
from cloner_core.layout import Layout, layout_document, parse_layout
from cloner_core.messages import DESTRUCTIVE_FROM, Stage
from cloner_core.plan import Plan, apply, plan_digest, render
from cloner_core.plan.tables import sfdisk_script
from cloner_core.sizes import MIB, parse_bytes
from cloner_core.steps import Command, LuksFormat, Step
from core.machines import machine, plan

LAYOUTS = Path(__file__).parent / "layouts"
GOLDEN = Path(__file__).parent / "golden/layouts"
NAMES = sorted(path.stem for path in LAYOUTS.glob("*.yaml"))


def scene(name: str) -> tuple[Facts, Layout]:
    """Return the machine and the layout of a reviewed file."""
    raw = yaml.safe_load((LAYOUTS / f"{name}.yaml").read_text())
    disks = tuple(_disk(**one) for one in raw["machine"]["disks"])
    bare = machine(*disks, firmware=Firmware(raw["machine"]["firmware"]))
    facts = msgspec.structs.replace(bare, tpm_major=raw["machine"].get("tpm", 0))
    return facts, parse_layout(json.dumps(raw["layout"]))


def _disk(**told: Any) -> Disk:
    partitions = tuple(
        DiskPartition(start_bytes=parse_bytes(one.pop("start")), size_bytes=parse_bytes(one.pop("size")), **one)
        for one in told.pop("partitions", ())
    )
    signatures = tuple(Signature(**one) for one in told.pop("signatures", ()))
    size_bytes = parse_bytes(told.pop("size"))
    return Disk(size_bytes=size_bytes, model="Model", partitions=partitions, signatures=signatures, **told)


def made(name: str) -> Plan:
    """Return its plan; none of the reviewed layouts is refused on its machine."""
    return plan(*scene(name))


def test_there_are_at_least_thirty() -> None:
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_a_layout_written_and_read_again_is_equal(name: str) -> None:
    _, layout = scene(name)
    assert parse_layout(json.dumps(layout_document(layout))) == layout
    assert parse_layout(msgspec.json.encode(layout)) == layout
    assert msgspec.json.decode(msgspec.json.encode(layout), type=Layout) == layout


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_is_the_reviewed_one(name: str) -> None:
    planned = made(name)
    rendered = render(planned).replace(plan_digest(planned), "DIGEST")
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("CLONER_WRITE_GOLDEN"):  # then read the difference before it is committed
        path.parent.mkdir(exist_ok=True)
        path.write_text(rendered)
    assert rendered == path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_identifier_is_used_once_and_survives_its_encoding(name: str) -> None:
    planned = made(name)
    names = [disk.table_guid for disk in planned.disks if disk.table_guid]
    names += [one.part_uuid for one in planned.partitions]
    for made_of in (planned.volumes, planned.arrays, planned.crypts, planned.swapfiles):
        names += [one.uuid for one in made_of]
    assert len(set(names)) == len(names)
    assert msgspec.json.decode(msgspec.json.encode(planned), type=Plan) == planned


@pytest.mark.parametrize("name", NAMES)
def test_partitions_do_not_overlap_and_new_ones_are_aligned(name: str) -> None:
    for disk in made(name).disks:
        inside = [one for one in disk.partitions if one.role != "extended"]
        for one, other in itertools.pairwise(sorted(inside, key=lambda each: each.start_sectors)):
            assert one.start_sectors + one.size_sectors <= other.start_sectors
        for one in inside:
            assert one.is_kept or one.start_sectors * disk.disk.sector_bytes % MIB == 0
            assert one.is_kept or one.size_sectors * disk.disk.sector_bytes % MIB == 0
            assert (one.start_sectors + one.size_sectors) * disk.disk.sector_bytes <= disk.disk.size_bytes


@pytest.mark.parametrize("name", NAMES)
def test_a_gpt_lets_its_partitions_begin_where_they_do_whatever_sfdisk_would_choose(name: str) -> None:
    for disk in made(name).disks:
        if disk.table == "gpt":
            (first,) = re.findall(r"^first-lba: (\d+)$", sfdisk_script(disk), re.MULTILINE)
            assert int(first) <= min(one.start_sectors for one in disk.partitions)
            assert int(first) * disk.disk.sector_bytes <= MIB


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_destroyed_before_partitioning_and_what_is_made_was_carried_by_what_was_made_before(
    name: str,
) -> None:
    planned = made(name)
    stages = list(Stage)
    steps: list[Step] = []
    apply(planned, steps.append)
    order = [stages.index(step.stage) for step in steps]
    assert order == sorted(order)
    assert all(stages.index(step.stage) >= stages.index(DESTRUCTIVE_FROM) for step in steps if step.destroys)
    known = {disk.disk.path for disk in planned.disks}
    for step in steps:
        if isinstance(step.action, LuksFormat):
            assert step.action.device in known, step
            known.add(f"/dev/mapper/{step.action.name}")
        if not isinstance(step.action, Command):
            continue
        words = step.action.argv
        if words[0] == "sfdisk":
            known |= {one.device for disk in planned.disks if disk.disk.path in words for one in disk.partitions}
        elif words[0] == "mdadm":
            known.add(words[2])
        elif "lvcreate" in words:
            group = next(one for one in planned.groups if one.name == words[-1])
            known |= {group.device(one) for one in group.volumes if one.name in words}
        old = {signature.device for disk in planned.disks for signature in disk.disk.signatures}
        named = {word for word in words if word.startswith("/dev/")}
        assert named <= known | old, step


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_named_by_no_step_that_destroys(name: str) -> None:
    planned = made(name)
    kept = {one.device for one in planned.partitions if one.is_kept}
    apply(
        planned,
        lambda step: (
            None
            if not isinstance(step.action, Command) or not step.destroys
            else _require_apart(step, {word for word in step.action.argv if word.startswith("/dev/")} & kept)
        ),
    )
    for disk in planned.disks:
        there = {one.number: one for one in disk.disk.partitions}
        for one in disk.partitions:
            if one.is_kept:
                before = there[one.number]
                assert one.start_sectors * disk.disk.sector_bytes == before.start_bytes
                assert one.size_sectors * disk.disk.sector_bytes == before.size_bytes
                assert (one.part_uuid, one.kind, one.name) == (before.part_uuid, before.type, before.name)
                assert one.attributes == before.attributes


def _require_apart(step: Step, found: set[str]) -> None:
    assert not found, step


def test_an_esp_with_copies_may_be_gone_with_its_disk() -> None:
    esp, alone = made("raid1-lvm").esp, made("one-disk").esp
    assert esp
    assert alone
    assert (esp.options, alone.options) == ("umask=0077,nofail", "umask=0077")
    image = f"UUID=AAAA-BBBB {esp.mount} vfat umask=0077 0 2\n".encode()
    fstab = make_fstab(image, made("raid1-lvm").entries).content.decode()
    assert f"UUID={esp.uuid} /boot/efi vfat umask=0077,nofail 0 2" in fstab
