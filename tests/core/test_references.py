"""Identifiers are replaced whole, in the closed list of files, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.references import mapping_of, rewrite, root_faults
from cloner_core.steps import Reference
from core.machines import disk, layout, machine, plan

PLAN = plan(machine(disk()), layout())
ROOT, OLD = PLAN.root, "5e1f0000-901d-4000-8000-00000000c0de"
FAT, NEW_FAT = "901D-E5B0", "7F34-CB9C"
MAPPING = {OLD: ROOT.uuid, FAT.lower(): NEW_FAT}
GRUB_CFG = "/boot/grub/grub.cfg"


@pytest.mark.parametrize(
    ("path", "line", "changed"),
    [
        ("/etc/default/grub", 'GRUB_CMDLINE_LINUX="root=UUID={} resume=UUID={}"', True),
        (GRUB_CFG, "search --no-floppy --fs-uuid --set=root --hint-efi=hd0,gpt3 {}", True),
        (GRUB_CFG, "search.fs_uuid {} root hd0,gpt2", True),
        (GRUB_CFG, "\tlinux /vmlinuz root=UUID={} ro", True),
        (GRUB_CFG, "menuentry 'x' $menuentry_id_option 'gnulinux-simple-{}' {{", False),
        ("/boot/loader/entries/a.conf", "options root=UUID={} ro", True),
        ("/etc/kernel/cmdline", "root=/dev/disk/by-uuid/{}", True),
        ("/etc/initramfs-tools/conf.d/resume", "RESUME=UUID={}", True),
        ("/etc/dracut.conf.d/x.conf", "add_device+=' /dev/disk/by-uuid/{} '", True),
        ("/etc/crypttab", 'data UUID="{}" none luks', True),
        (GRUB_CFG, "{}0", False),
        (GRUB_CFG, "a{}", False),
        (GRUB_CFG, "{}-0", False),
    ],
)
def test_a_whole_identifier_is_replaced(path: str, line: str, changed: bool) -> None:
    before = line.format(OLD, OLD)
    after = line.format(ROOT.uuid, ROOT.uuid) if changed else before
    assert rewrite(path, before.encode(), MAPPING).decode() == after
    assert rewrite(path, before.upper().encode(), MAPPING) != before.upper().encode() or not changed


@pytest.mark.parametrize(
    ("line", "is_changed"),
    [
        ("UUID={} /boot/efi vfat", True),
        ('UUID="{}"', True),
        ("/dev/disk/by-uuid/{}", True),
        ("search --no-floppy --fs-uuid --set=root {}", True),
        ("search.fs_uuid {} root", True),
        ("PARTUUID={}", False),
        ("version {}", False),
        ("UUID={}a", False),
    ],
)
def test_a_fat_serial_is_replaced_only_where_a_uuid_is_meant(line: str, is_changed: bool) -> None:
    before = line.format(FAT)
    assert rewrite(GRUB_CFG, before.encode(), MAPPING).decode() == (line.format(NEW_FAT) if is_changed else before)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/fstab/x", "/boot/loader/entries/a/b.conf", "etc/fstab", ""])
def test_no_other_file_is_ever_rewritten(path: str) -> None:
    with pytest.raises(ValueError, match="closed list"):
        rewrite(path, b"", MAPPING)


@given(st.binary(max_size=300))
def test_bytes_without_an_identifier_pass_through(content: bytes) -> None:
    assert rewrite(GRUB_CFG, content, MAPPING) == content


@given(st.lists(st.sampled_from([OLD, FAT, "UUID=", " ", "-", "a", "\n", "\xff", "fs-uuid"]), max_size=12).map("".join))
def test_rewriting_twice_is_rewriting_once(text: str) -> None:
    once = rewrite(GRUB_CFG, text.encode("latin-1"), MAPPING)
    assert rewrite(GRUB_CFG, once, MAPPING) == once


def test_names_are_learnt_from_fstab_and_from_the_kernel_command_line() -> None:
    texts = {
        "/etc/fstab": f"UUID={OLD} / ext4 defaults 0 1\nUUID={FAT} /boot/efi vfat defaults 0 1\n".encode(),
        GRUB_CFG: b"linux /v root=PARTUUID=11111111-2222-3333-4444-555555555555\n",
        "/etc/kernel/cmdline": f"root=UUID={ROOT.uuid}".encode(),
    }
    mapping = mapping_of(PLAN, (Reference("AAAA0000-901d-4000-8000-00000000c0de", "n"),), texts)
    assert mapping == {
        "aaaa0000-901d-4000-8000-00000000c0de": "n",
        OLD: ROOT.uuid,
        FAT.lower(): PLAN.volumes[0].uuid,
        "11111111-2222-3333-4444-555555555555": ROOT.part_uuid,
    }


def test_a_root_that_is_not_the_clones_is_found() -> None:
    good = f"\tlinux /vmlinuz root=UUID={ROOT.uuid} ro\n\tlinux /v root=/dev/disk/by-partuuid/{ROOT.part_uuid}\n"
    assert root_faults(GRUB_CFG, good.encode(), ROOT) == []
    for root in (f"UUID={OLD}", "/dev/sda2", "LABEL=other"):
        assert len(root_faults(GRUB_CFG, f"\tlinux /vmlinuz root={root} ro\n".encode(), ROOT)) == 1


def test_grub_s_variables_keep_their_size_and_name_the_new_root_without_what_the_clone_lacks() -> None:
    line = f"kernelopts=root=UUID={OLD} ro rd.lvm.lv=rl/root rd.luks.uuid=luks-{OLD} quiet\n"
    before = f"# GRUB Environment Block\nsaved_entry=a-{OLD}\n{line}".encode().ljust(1024, b"#")
    texts = {"/boot/grub2/grubenv": before}
    mapping = mapping_of(PLAN, [], texts)
    after = rewrite("/boot/grub2/grubenv", before, mapping, PLAN)
    wanted = f"# GRUB Environment Block\nsaved_entry=a-{OLD}\nkernelopts=root=UUID={ROOT.uuid} ro quiet\n"
    assert after == wanted.encode().ljust(1024, b"#")
    assert rewrite("/boot/grub2/grubenv", after, mapping, PLAN) == after
    assert root_faults("/boot/grub2/grubenv", before, ROOT) == [
        f"/boot/grub2/grubenv: root=UUID={OLD} is not the clone's root"
    ]
    assert root_faults("/boot/grub2/grubenv", after, ROOT) == []


def test_only_command_lines_lose_words_for_devices() -> None:
    line = b"rd.lvm.lv=rl/root"
    assert rewrite("/etc/kernel/cmdline", b"quiet " + line, {}, PLAN) == b"quiet"
    assert rewrite("/etc/dracut.conf.d/a.conf", line, {}, PLAN) == line
