"""What dracut is told of devices: those of the clone on which its system lies, and no others."""

from __future__ import annotations

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.bootfiles.sources import has_dracut
from cloner_core.facts import Facts
from cloner_core.identifiers import md_uuid
from cloner_core.layout import parse_layout
from cloner_core.plan import Plan
from cloner_core.plan.dracut import arguments, without_absent
from core.machines import disk, layout, machine
from core.worlds import built

STACKED = """
name: stacked
disks:
  - id: a
    select: {serial: A}
    partitions:
      - {role: esp, size: 64MiB, content: {type: filesystem, kind: vfat, mount: /boot/efi}}
      - {size: 512MiB, content: {type: raid, array: boot}}
      - {size: 4GiB, content: {type: raid, array: system}}
      - {size: rest, content: {type: lvm, group: data}}
  - id: b
    select: {serial: B}
    partitions:
      - {size: 512MiB, content: {type: raid, array: boot}}
      - {size: 4GiB, content: {type: raid, array: system}}
      - {size: rest, content: {type: filesystem, kind: xfs, mount: /scratch}}
arrays:
  - {id: boot, level: raid1, metadata: "1.0", content: {type: filesystem, kind: ext4, mount: /boot}}
  - id: system
    level: raid1
    content: {type: luks, name: vault, unlock: passphrase, content: {type: lvm, group: vg-0}}
groups:
  - name: vg-0
    volumes:
      - {name: root, size: 1GiB, content: {type: filesystem, kind: ext4, mount: /}}
      - {name: usr, size: rest, content: {type: filesystem, kind: ext4, mount: /usr}}
  - name: data
    volumes:
      - {name: srv, size: rest, content: {type: filesystem, kind: xfs, mount: /srv}}
"""


def stacked() -> Plan:
    disks = [disk(path=f"/dev/sd{serial.lower()}", serial=serial) for serial in "AB"]
    facts: Facts = machine(*disks)
    return built(facts, parse_layout(msgspec.json.encode(yaml.safe_load(STACKED))))


def test_dracut_is_told_of_what_the_system_lies_on_and_of_nothing_else() -> None:
    plan = stacked()
    system = next(one for one in plan.arrays if one.id == "system")
    assert arguments(plan) == (f"rd.md.uuid={md_uuid(system.uuid)}", "rd.lvm.vg=vg-0")
    assert arguments(built(machine(disk()), layout())) == ()


@pytest.mark.parametrize(
    "word",
    [
        "rd.luks.uuid=luks-00000000-901d-4000-8000-00000000c0de",
        "rd.luks.name=00000000-901d-4000-8000-00000000c0de=old",
        "rd.md.uuid=00000000:901d4000:80000000:0000c0de",
        "rd.lvm.lv=vg-0/home",
        "rd.lvm.lv=vg/root",
        "rd.lvm.vg=vg",
    ],
)
@pytest.mark.parametrize(
    "line", ["linux /vmlinuz root=x {} quiet", 'GRUB_CMDLINE_LINUX="{} quiet"', "options {}", "{}"]
)
def test_words_for_devices_of_the_golden_node_are_taken_out(line: str, word: str) -> None:
    told = without_absent(line.format(word).encode(), stacked()).decode()
    assert "rd." not in told
    assert told.replace(" ", "") == line.format("").replace(" ", "")


def test_words_for_devices_of_the_clone_stay() -> None:
    plan = stacked()
    vault, system = plan.crypts[0], next(one for one in plan.arrays if one.id == "system")
    line = (
        f"options rd.luks.uuid=luks-{vault.uuid} rd.luks.name={vault.uuid}=vault rd.md.uuid={md_uuid(system.uuid)}"
        f" rd.md.uuid={system.uuid} rd.lvm.lv=vg-0/root rd.lvm.vg=data rd.lvm=1 rd.luks.options=discard\n"
    ).encode()
    assert without_absent(line, plan) == line


@given(
    st.lists(st.sampled_from(["rd.lvm.lv=", "rd.", "a/b", " ", '"', "=", "\n", "\\", "rd.lvm.vg=x", "\xff"])).map(
        "".join
    )
)
def test_taking_out_twice_is_taking_out_once(text: str) -> None:
    plan = built(machine(disk()), layout())
    once = without_absent(text.encode("latin-1"), plan)
    assert without_absent(once, plan) == once


@pytest.mark.parametrize(
    ("paths", "is_dracut"),
    [
        ({"/usr/bin/dracut"}, True),
        ({"/usr/sbin/dracut", "/boot/x"}, True),
        ({"/usr/bin/dracut", "/usr/sbin/mkinitramfs"}, False),
        (set(), False),
    ],
)
def test_an_image_has_its_initramfs_made_by_dracut_where_nothing_else_does(paths: set[str], is_dracut: bool) -> None:
    assert has_dracut(paths) is is_dracut
