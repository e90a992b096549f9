"""The clone's fstab names the new filesystems, whatever the image's named, and says what it cannot know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.fstab import entries, image_references, make_fstab
from cloner_core.plan import PlannedMount
from core.machines import disk, layout, machine, plan

PARTS = plan(machine(disk()), layout()).entries
ROOT, ESP, SWAP = PARTS

GOLDEN = b"""# Disks of the golden machine.
UUID=5e1f0000-901d-4000-8000-00000000c0de\t/\text4\terrors=remount-ro\t0 1
UUID=901D-E5B0\t/boot/efi\tvfat\tumask=0077\t0 2
UUID=5e1f0000-901d-4000-8000-000000005a9e\tnone\tswap\tsw\t0 0
"""


def sources(content: bytes) -> dict[str, str]:
    return {entry.mount: entry.device for entry in entries(content)}


def test_each_line_is_kept_and_only_its_device_changes() -> None:
    made = make_fstab(GOLDEN, PARTS)
    assert made.content.decode() == (
        "# Disks of the golden machine.\n"
        f"UUID={ROOT.uuid}\t/\text4\terrors=remount-ro\t0 1\n"
        f"UUID={ESP.uuid}\t/boot/efi\tvfat\tumask=0077\t0 2\n"
        f"UUID={SWAP.uuid}\tnone\tswap\tsw\t0 0\n"
    )
    assert made.notes == ()


def test_the_images_names_are_learnt_from_its_fstab() -> None:
    assert [(one.old, one.new) for one in image_references(GOLDEN, PARTS)] == [
        ("5e1f0000-901d-4000-8000-00000000c0de", ROOT.uuid),
        ("901D-E5B0", ESP.uuid),
        ("5e1f0000-901d-4000-8000-000000005a9e", SWAP.uuid),
    ]
    by_part = b"PARTUUID=5e1f0000-901d-4000-8000-00000000c0de / ext4 defaults 0 1\n"
    assert [one.new for one in image_references(by_part, PARTS)] == [ROOT.part_uuid]
    by_link = b"/dev/disk/by-partuuid/5e1f0000-901d-4000-8000-00000000c0de / ext4 defaults 0 1\n"
    assert [one.new for one in image_references(by_link, PARTS)] == [ROOT.part_uuid]


@pytest.mark.parametrize("device", ["/dev/sda2", "LABEL=root", "PARTUUID=x", "/dev/mapper/vg-root", "UUID=x"])
def test_the_root_is_named_by_its_new_uuid_however_it_was_named(device: str) -> None:
    made = make_fstab(f"{device} / ext4 noatime 0 1\n".encode(), PARTS)
    assert sources(made.content)["/"] == f"UUID={ROOT.uuid}"
    assert b"noatime" in made.content


def test_an_image_without_fstab_gets_one_with_the_root_first() -> None:
    made = make_fstab(None, PARTS)
    assert [(one.mount, one.kind) for one in entries(made.content)] == [
        ("/", "ext4"),
        ("/boot/efi", "vfat"),
        ("none", "swap"),
    ]
    assert b"umask=0077" in made.content


def test_what_the_image_did_not_mount_is_added() -> None:
    made = make_fstab(b"UUID=x / ext4 defaults 0 1", PARTS)
    assert sources(made.content) == {
        "/": f"UUID={ROOT.uuid}",
        "/boot/efi": f"UUID={ESP.uuid}",
        "none": f"UUID={SWAP.uuid}",
    }


def test_options_of_another_kind_of_filesystem_are_replaced() -> None:
    made = make_fstab(b"UUID=x / btrfs subvol=@,compress=zstd 0 0\n", PARTS)
    assert f"UUID={ROOT.uuid} / ext4 defaults 0 0\n".encode() in made.content


@pytest.mark.parametrize(
    ("device", "rest", "becomes"),
    [
        ("UUID=5e1f0000-901d-4000-8000-0000000000ff", " /home ext4 defaults 0 2", " /home ext4 nofail 0 2"),
        ("LABEL=data", "\t/data\txfs\tnoatime,ro", "\t/data\txfs\tnoatime,ro,nofail"),
        ("/dev/sdb1", " none swap sw 0 0", " none swap sw,nofail 0 0"),
        ("/dev/sdb1", " /old ext4", " /old ext4\tnofail"),
        ("UUID=901D-E5B0", " /boot/other vfat umask=0077 0 1", " /boot/other vfat umask=0077,nofail 0 1"),
    ],
)
def test_no_boot_waits_for_a_device_that_nobody_made(device: str, rest: str, becomes: str) -> None:
    made = make_fstab(GOLDEN + f"{device}{rest}\n".encode(), PARTS)
    assert made.content.endswith(f"\n{device}{becomes}\n".encode())
    (note,) = made.notes
    assert f"from {device}, which the layout does not make: with nofail" in note
    assert make_fstab(made.content, PARTS).content == made.content, "once is enough"


@pytest.mark.parametrize(
    "line",
    [
        "UUID=5e1f0000-901d-4000-8000-0000000000ff /home ext4 defaults,nofail 0 2",
        "/dev/sr0 /media/cdrom udf,iso9660 user,noauto 0 0",
        "tmpfs /tmp tmpfs defaults 0 0",
        "server:/export /srv nfs4 defaults 0 0",
        "/swapfile none swap sw 0 0",
        "/srv/data /export none bind 0 0",
    ],
)
def test_a_line_that_no_boot_waits_for_is_kept(line: str) -> None:
    made = make_fstab(GOLDEN + line.encode() + b"\n", PARTS)
    assert line.encode() + b"\n" in made.content
    assert made.notes == ()


def test_a_line_with_few_fields_is_understood() -> None:
    made = make_fstab(b"/dev/sda1 / ext4\n", PARTS)
    assert sources(made.content)["/"] == f"UUID={ROOT.uuid}"


FIELDS = st.sampled_from(
    ["UUID=x", "/dev/sda1", "/", "/boot/efi", "none", "swap", "ext4", "defaults", "0", "#", "\\040", "\xff"]
)


@given(st.lists(st.lists(FIELDS, max_size=7).map(" ".join), max_size=8).map("\n".join))
def test_every_filesystem_is_mounted_once_by_its_new_name_and_again_changes_nothing(text: str) -> None:
    content = text.encode("latin-1")
    made = make_fstab(content, PARTS)
    assert make_fstab(made.content, PARTS).content == made.content
    first: dict[str, str] = {}
    for entry in entries(made.content):
        if entry.kind != "swap":
            first.setdefault(entry.mount, entry.device)
    for partition in (ROOT, ESP):
        assert first[partition.mount] == f"UUID={partition.uuid}"


@given(st.binary(max_size=200))
def test_any_bytes_survive(content: bytes) -> None:
    made = make_fstab(content, PARTS)
    assert isinstance(made.content, bytes)
    assert all(isinstance(part, PlannedMount) for part in PARTS)


FRESH = PlannedMount("/dev/mapper/cryptswap", "swap", "", "")


@pytest.mark.parametrize("old", ["UUID=5e1f0000-901d-4000-8000-000000005a9e", "/dev/sda3", "/dev/mapper/cryptswap"])
def test_swap_that_is_made_anew_at_each_boot_takes_the_place_of_the_images_swap(old: str) -> None:
    made = make_fstab(f"{old} none swap sw 0 0\n".encode(), (FRESH,))
    assert made.content == b"/dev/mapper/cryptswap none swap sw 0 0\n"
    assert made.notes == ()


def test_an_image_with_two_swaps_keeps_the_one_that_names_the_device_itself() -> None:
    made = make_fstab(b"UUID=1-2 none swap sw 0 0\n/dev/mapper/cryptswap none swap sw,pri=5 0 0\n", (FRESH,))
    assert made.content.endswith(b"/dev/mapper/cryptswap none swap sw,pri=5 0 0\n")
    assert made.content.count(b"cryptswap") == 1
    assert len(made.notes) == 1
