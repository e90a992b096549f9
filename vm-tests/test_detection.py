"""What a deploy makes of a layout is detected as that layout, with the kernel and the tools of a node."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from cloner_core.layout import Layout, layout_document, parse_layout
from cloner_initramfs import Cache
from core import worlds
from vmlab import Lab, blank_disk
from vmlab.disk import GIB
from vmlab.workbench import run_on_node

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

LAYOUT = """
name: everything
disks:
  - id: a
    select: {serial: A}
    partitions:
      - {role: esp, size: 64MiB, content: {type: filesystem, kind: vfat, mount: /boot/efi, label: EFI}}
      - {role: bios-boot, size: 1MiB, content: {type: none}}
      - {size: 128MiB, content: {type: raid, array: boot}}
      - {size: rest, label: big one, content: {type: raid, array: system}}
  - id: b
    select: {serial: B}
    partitions:
      - {role: esp, size: 64MiB, content: {type: esp-copy}}
      - {size: 1MiB, content: {type: none}}
      - {size: 128MiB, content: {type: raid, array: boot}}
      - {size: rest, content: {type: raid, array: system}}
  - id: c
    select: {serial: C}
    table: mbr
    partitions:
      - {size: 64MiB, active: true, content: {type: filesystem, kind: ext4, mount: /opt, label: opt}}
      - {size: 64MiB, logical: true, content: {type: luks, name: cryptswap, unlock: random, content: {type: swap}}}
      - size: rest
        logical: true
        content:
          type: luks
          name: crypthome
          unlock: passphrase
          content:
            type: filesystem
            kind: btrfs
            label: homes
            subvolumes:
              - {name: "@home", mount: /home, options: "compress=zstd:1"}
              - {name: "@home/mail", mount: /home/mail, options: noatime}
              - {name: "@snapshots"}
  - id: d
    select: {serial: D}
    table: none
    content: {type: lvm, group: vg-data}
arrays:
  - {id: boot, level: raid1, metadata: "1.0", content: {type: filesystem, kind: ext4, mount: /boot}}
  - {id: system, level: raid1, content: {type: lvm, group: vg0}}
groups:
  - name: vg0
    volumes:
      - {name: root, size: 320MiB, content: {type: filesystem, kind: ext4, mount: /, options: noatime, label: root}}
      - {name: swap-1, size: 64MiB, content: {type: swap, label: sw}}
      - {name: var, size: rest, content: {type: filesystem, kind: xfs, mount: /var}}
  - name: vg-data
    extent_mib: 8
    volumes:
      - {name: srv, size: rest, content: {type: filesystem, kind: xfs, mount: /srv, label: srv}}
swapfiles: [{path: /swapfile, size: 8MiB}]
"""


def test_arrays_groups_encryption_and_subvolumes_are_detected_as_the_layout_they_were_made_from(
    lab: Lab, cache: Cache
) -> None:
    document = yaml.safe_load(LAYOUT)
    layout = parse_layout(msgspec.json.encode(document))
    disks = tuple(blank_disk(lab.directory / serial, GIB, serial=serial) for serial in "ABCD")
    files = {
        "layout.json": msgspec.json.encode(layout_document(layout)),
        "usr/lib/cloner/core/worlds.py": Path(worlds.__file__).read_bytes(),
    }
    told = run_on_node(lab, cache, "detection", disks, name="detect", files=files)
    detected = msgspec.convert(told["layout"], Layout)
    assert worlds.without_measure(detected) == worlds.without_measure(layout)
    system = {group.name: [volume.size for volume in group.volumes] for group in layout.groups}
    found = {
        group.name: [next(one.size for one in group.volumes if one.name == volume.name) for volume in wanted.volumes]
        for wanted in layout.groups
        for group in detected.groups
        if group.name == wanted.name
    }
    assert found == system
