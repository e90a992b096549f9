"""By what a clone boots: one rule whatever the image has; its entries and unified kernels find the clone's root."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbench.programs import pe
from cloner_core.bootfiles import BootFilesMade, CopyFile, Image, NotBootableError, RemoveFile, WriteFile, boot_files
from cloner_core.bootfiles.systemdboot import for_clone, without_waiting
from cloner_core.bootfiles.unified import Section, labels_named, newest, read_command_line, sections
from cloner_core.steps import BootFiles

ROOT = "2a65a371-7ca3-49c3-91b3-21efb4b17de5"
PART = "6a7eeea2-4e2a-4fd4-9723-030c3f336df6"
ACTION = BootFiles(
    esp="/boot/efi",
    root_uuid=ROOT,
    boot_uuid=ROOT,
    boot_path="/boot",
    root=f"UUID={ROOT}",
    root_part_uuid=PART,
)
DEBIAN = Image(
    present=frozenset({"/usr/lib/shim/shimx64.efi.signed", "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"}),
    boot=("initrd.img-6.1.0", "vmlinuz-6.1.0"),
    esp=(),
    texts={"/etc/os-release": b"ID=debian\n"},
)
BOOT = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
MACHINE = "901de0000000000000000000000000aa"
ENTRY = f"loader/entries/{MACHINE}-6.1.0.conf"
TEXT = (
    b"title      Debian\nversion    6.1.0\nmachine-id 901de0000000000000000000000000aa\n"
    b"options    root=UUID=old ro console=ttyS0 rootflags=subvol=@old\n"
    b"linux      /901de0000000000000000000000000aa/6.1.0/linux\n"
    b"initrd     /901de0000000000000000000000000aa/6.1.0/initrd\n"
)
# As bootctl(1) and kernel-install(8) of Debian 12 leave it.
SYSTEMD = Image(
    present=frozenset({BOOT}),
    boot=("efi", "vmlinuz-6.1.0", "initrd.img-6.1.0"),
    esp=(
        "EFI/BOOT/BOOTX64.EFI",
        "EFI/systemd/systemd-bootx64.efi",
        f"{MACHINE}/6.1.0/linux",
        f"{MACHINE}/6.1.0/initrd",
        ENTRY,
        "loader/loader.conf",
    ),
    texts={"/etc/os-release": b"ID=debian\n"},
    esp_texts={ENTRY: TEXT, "loader/loader.conf": b"timeout menu-force\n"},
)
UNIFIED = Image(
    present=frozenset(),
    boot=(),
    esp=("EFI/Linux/debian-6.1.0.efi", "EFI/Linux/debian-6.10.0.efi"),
    texts={"/etc/os-release": b"ID=debian\n"},
    unified={"EFI/Linux/debian-6.1.0.efi": "quiet", "EFI/Linux/debian-6.10.0.efi": "root=LABEL=root quiet"},
)


def changed(image: Image, **fields: object) -> Image:
    return msgspec.structs.replace(image, **fields)


def copies(made: BootFilesMade) -> dict[str, str]:
    return {one.path: one.source for one in made.files if isinstance(one, CopyFile)}


def written(made: BootFilesMade) -> dict[str, bytes]:
    return {one.path: one.content for one in made.files if isinstance(one, WriteFile)}


def with_all(image: Image) -> Image:
    """Return `image` with everything Debian needs to boot by shim and GRUB, too."""
    return changed(image, present=image.present | DEBIAN.present, boot=(*image.boot, *DEBIAN.boot))


@pytest.mark.parametrize(
    ("image", "way", "loader"),
    [
        pytest.param(DEBIAN, "shim and GRUB", "\\EFI\\debian\\shimx64.efi", id="GRUB alone"),
        pytest.param(SYSTEMD, "systemd-boot", "\\EFI\\systemd\\systemd-bootx64.efi", id="systemd-boot alone"),
        pytest.param(with_all(SYSTEMD), "systemd-boot", "\\EFI\\systemd\\systemd-bootx64.efi", id="it was installed"),
        pytest.param(
            with_all(changed(SYSTEMD, esp_texts={})),
            "shim and GRUB",
            "\\EFI\\debian\\shimx64.efi",
            id="it has no entry",
        ),
        pytest.param(
            with_all(changed(SYSTEMD, esp=(*SYSTEMD.esp[2:4], ENTRY))),
            "shim and GRUB",
            "\\EFI\\debian\\shimx64.efi",
            id="its package is there, and GRUB",
        ),
        pytest.param(
            changed(SYSTEMD, esp=(*SYSTEMD.esp[2:4], ENTRY)),
            "systemd-boot",
            "\\EFI\\systemd\\systemd-bootx64.efi",
            id="its package is there alone",
        ),
        pytest.param(UNIFIED, "a unified kernel image", "\\EFI\\Linux\\debian-6.10.0.efi", id="unified kernels alone"),
        pytest.param(with_all(UNIFIED), "shim and GRUB", "\\EFI\\debian\\shimx64.efi", id="unified kernels and GRUB"),
        pytest.param(
            changed(UNIFIED, present=frozenset({BOOT})),
            "systemd-boot",
            "\\EFI\\systemd\\systemd-bootx64.efi",
            id="unified kernels and systemd-boot",
        ),
    ],
)
def test_the_way_to_boot_is_chosen_by_one_rule(image: Image, way: str, loader: str) -> None:
    made = boot_files(image, ACTION)
    assert (made.way, made.loader) == (way, loader)
    assert "/boot/efi/EFI/BOOT/BOOTX64.EFI" in copies(made)


def test_the_entries_of_systemd_boot_lead_to_the_root_of_this_clone() -> None:
    made = boot_files(SYSTEMD, msgspec.structs.replace(ACTION, kernel_arguments=("nosplash", "ro")))
    (line,) = [line for line in written(made)[f"/boot/efi/{ENTRY}"].splitlines() if line.startswith(b"options")]
    assert line == f"options    root=UUID={ROOT} ro console=ttyS0 nosplash".encode()
    assert copies(made) == {
        "/boot/efi/EFI/systemd/systemd-bootx64.efi": BOOT,
        "/boot/efi/EFI/BOOT/BOOTX64.EFI": BOOT,
    }


def test_entries_lead_into_the_subvolume_of_the_clone() -> None:
    action = msgspec.structs.replace(ACTION, root="/dev/mapper/vg0-root", root_part_uuid="", root_flags="subvol=@")
    assert b"options    root=/dev/mapper/vg0-root rootflags=subvol=@ ro console=ttyS0\n" in for_clone(TEXT, action)


def test_a_clone_goes_on_installing_kernels_under_the_name_its_entries_have() -> None:
    assert written(boot_files(SYSTEMD, ACTION))["/etc/kernel/entry-token"] == f"{MACHINE}\n".encode()
    own = changed(SYSTEMD, texts={**SYSTEMD.texts, "/etc/kernel/entry-token": b"debian\n"})
    assert "/etc/kernel/entry-token" not in written(boot_files(own, ACTION))


@pytest.mark.parametrize("image", [DEBIAN, SYSTEMD])
@pytest.mark.parametrize(("maker", "is_told"), [("/usr/bin/dracut", True), ("/usr/sbin/mkinitramfs", False)])
def test_an_initramfs_of_dracut_is_told_what_to_assemble(image: Image, maker: str, is_told: bool) -> None:
    action = msgspec.structs.replace(ACTION, kernel_arguments=("nosmt",), dracut_arguments=("rd.lvm.vg=vg0",))
    texts = written(boot_files(changed(image, present=image.present | {maker}), action))
    lines = [line for text in texts.values() for line in text.splitlines() if b"nosmt" in line]
    assert lines
    assert all((b"rd.lvm.vg=vg0 nosmt" in line) == is_told for line in lines)


def test_no_menu_waits_for_a_key() -> None:
    assert written(boot_files(SYSTEMD, ACTION))["/boot/efi/loader/loader.conf"] == b"timeout 2\n"
    assert without_waiting(b"timeout 5\n#timeout menu-force x\n") == b"timeout 5\n#timeout menu-force x\n"


def test_an_entry_without_initramfs_finds_its_root_by_partition() -> None:
    made = for_clone(b"linux /vmlinuz\n", ACTION)
    assert made.splitlines()[1] == f"options    root=PARTUUID={PART}".encode()


FEDORA = Image(
    present=frozenset(),
    boot=("vmlinuz-6.9", "initramfs-6.9.img"),
    esp=("EFI/fedora/shimx64.efi", "EFI/fedora/grubx64.efi"),
    texts={"/etc/os-release": b"ID=fedora\n", "/boot/grub2/grub.cfg": b"insmod blscfg\nblscfg\n"},
)
BLS = "/boot/loader/entries/aa-6.9.conf"


@pytest.mark.parametrize(
    ("entry", "changes", "wanted"),
    [
        pytest.param(
            f"linux /boot/vmlinuz-6.9\ninitrd /boot/i $tuned_initrd\noptions root=UUID={ROOT} ro\n",
            {},
            None,
            id="it fits",
        ),
        pytest.param(
            f"linux /boot/vmlinuz-6.9\ninitrd /boot/i\noptions root=UUID={ROOT} ro\n",
            {"kernel_arguments": ("nosmt", "ro")},
            f"linux /boot/vmlinuz-6.9\ninitrd /boot/i\noptions root=UUID={ROOT} ro nosmt\n",
            id="the node has arguments",
        ),
        pytest.param(
            "linux /vmlinuz-6.9\ninitrd /i $tuned_initrd\noptions root=/dev/mapper/rhel-root ro $tuned_params\n",
            {},
            f"linux /boot/vmlinuz-6.9\ninitrd /boot/i $tuned_initrd\noptions    root=UUID={ROOT} ro $tuned_params\n",
            id="/boot was apart, / on LVM",
        ),
        pytest.param(
            f"linux /boot/vmlinuz-6.9\ninitrd /boot/i\noptions root=UUID={ROOT} ro rootflags=subvol=root\n",
            {"boot_path": "/@/boot", "root_flags": "subvol=@"},
            f"linux /@/boot/vmlinuz-6.9\ninitrd /@/boot/i\noptions    root=UUID={ROOT} rootflags=subvol=@ ro\n",
            id="another subvolume",
        ),
    ],
)
def test_the_entries_that_grub_shows_are_those_of_the_clone(
    entry: str, changes: dict[str, object], wanted: str | None
) -> None:
    image = changed(FEDORA, texts={**FEDORA.texts, BLS: entry.encode()})
    made = boot_files(image, msgspec.structs.replace(ACTION, **changes))
    assert written(made).get(BLS) == (wanted.encode() if wanted else None)


def test_an_entry_of_which_a_file_is_missing_is_none() -> None:
    image = changed(SYSTEMD, esp=tuple(path for path in SYSTEMD.esp if not path.endswith("initrd")))
    with pytest.raises(NotBootableError):
        boot_files(image, ACTION)


@given(st.binary(max_size=200), st.lists(st.text(max_size=8), max_size=3))
def test_a_rewritten_entry_names_one_root_and_rewriting_it_again_changes_nothing(text: bytes, more: list[str]) -> None:
    action = msgspec.structs.replace(ACTION, kernel_arguments=tuple("".join(one.split()) for one in more))
    once = for_clone(text, action)
    options = [line for line in once.splitlines() if line.split()[:1] == [b"options"]]
    assert len(options) == 1
    assert for_clone(once, action).split() == once.split()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("root=UUID=2a65a371-0000-4000-8000-000000000000 ro", "root=UUID=2a65a371"),
        ("root=PARTUUID=aa ro", "root=PARTUUID=aa"),
        ("root=LABEL=root roothash=abcd", "verity"),
        (f"root=UUID={ROOT}", ""),  # kept, or named alike by chance: it boots
        ("root=/dev/disk/by-partlabel/root", ""),
        ("root=gpt-auto", ""),
        ("", ""),
    ],
)
def test_a_signed_command_line_must_find_the_root_of_any_clone(line: str, fault: str) -> None:
    image = changed(UNIFIED, unified={"EFI/Linux/debian-6.1.0.efi": line})
    if not fault:
        assert boot_files(image, ACTION).loader == "\\EFI\\Linux\\debian-6.1.0.efi"
        return
    with pytest.raises(NotBootableError, match=fault) as caught:
        boot_files(image, ACTION)
    assert "LABEL" in caught.value.hint


def test_a_root_that_is_no_partition_is_not_found_by_its_type() -> None:
    with pytest.raises(NotBootableError, match="no partition"):
        boot_files(
            changed(UNIFIED, unified={"EFI/Linux/a.efi": ""}), msgspec.structs.replace(ACTION, root_part_uuid="")
        )


def test_a_unified_kernel_that_cannot_find_the_root_is_taken_away_and_it_is_said() -> None:
    unified = {"EFI/Linux/debian-6.1.0.efi": "", "EFI/Linux/debian-6.10.0.efi": "root=UUID=old"}
    made = boot_files(changed(UNIFIED, unified=unified), ACTION)
    assert made.loader.endswith("debian-6.1.0.efi")
    assert [one.path for one in made.files if isinstance(one, RemoveFile)] == ["/boot/efi/EFI/Linux/debian-6.10.0.efi"]
    assert "6.10.0.efi is left out" in made.notes[0]


def test_arguments_of_a_node_that_a_signature_keeps_out_are_said() -> None:
    made = boot_files(UNIFIED, msgspec.structs.replace(ACTION, kernel_arguments=("nosmt",)))
    assert any("arguments" in note for note in made.notes)


def test_the_command_line_of_a_unified_kernel_is_read_from_its_section() -> None:
    def line_of(*wanted: tuple[str, bytes]) -> str | None:
        program = pe(*wanted)
        return read_command_line(lambda offset, size: program[offset : offset + size])

    command_line = b"root=LABEL=a quiet\n\0"
    assert line_of((".osrel", b"ID=x"), (".cmdline", command_line), (".linux", b"MZ kernel")) == "root=LABEL=a quiet"
    assert line_of((".linux", b"MZ kernel")) == ""
    assert line_of((".text", b"x"), (".cmdline", command_line)) is None


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_looked_at_for_sections(junk: bytes, is_pe: bool) -> None:
    head = pe((".linux", b"x"))[:0x60] + junk if is_pe else junk
    assert all(isinstance(one, Section) for one in sections(head))


@pytest.mark.parametrize(
    ("line", "labels"),
    [
        ("root=LABEL=a", ("a", "")),
        ("root=/dev/disk/by-label/a", ("a", "")),
        ("root=PARTLABEL=b", ("", "b")),
        ("root=UUID=c", ("", "")),
        ("quiet", ("", "")),
    ],
)
def test_labels_are_told_from_other_names(line: str, labels: tuple[str, str]) -> None:
    assert labels_named(line) == labels


def test_the_newest_unified_kernel_is_by_number_and_rescue_last() -> None:
    assert newest(["EFI/Linux/a-6.9.efi", "EFI/Linux/a-6.10.efi", "EFI/Linux/rescue-7.efi"]) == "EFI/Linux/a-6.10.efi"
