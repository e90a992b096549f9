"""Boot files: the image's signed loaders go where firmware looks, and GRUB finds the root of this very clone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.bootfiles import (
    LOADERS,
    BootFilesMade,
    CopyFile,
    Image,
    NotBootableError,
    RemoveFile,
    WriteFile,
    append_arguments,
    boot_files,
    kernels_of,
    named_files,
)
from cloner_core.bootfiles.grub import quoted, whole_config
from cloner_core.bootfiles.image import shell_assignments
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
SHIM = "/usr/lib/shim/shimx64.efi.signed"
GRUB = "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
MOK = "/usr/lib/shim/mmx64.efi.signed"

# As a minimal Debian 12 tree with signed GRUB has it.
DEBIAN = Image(
    present=frozenset({SHIM, GRUB, MOK, "/usr/lib/shim/mmx64.efi"}),
    boot=(
        "System.map-6.1.0-50-cloud-amd64",
        "config-6.1.0-50-cloud-amd64",
        "efi",
        "initrd.img-6.1.0-50-cloud-amd64",
        "vmlinuz-6.1.0-50-cloud-amd64",
    ),
    esp=(),
    texts={
        "/etc/os-release": b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
        "/etc/default/grub": b'GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX_DEFAULT=""\n'
        b'GRUB_CMDLINE_LINUX="console=ttyS0"\nGRUB_TERMINAL="console"\n',
    },
)


def changed(image: Image, **fields: object) -> Image:
    return msgspec.structs.replace(image, **fields)


def copies(made: BootFilesMade) -> dict[str, str]:
    return {one.path: one.source for one in made.files if isinstance(one, CopyFile)}


def written(made: BootFilesMade) -> dict[str, str]:
    return {one.path: one.content.decode() for one in made.files if isinstance(one, WriteFile)}


def test_debians_signed_loaders_go_to_their_place_and_to_the_fallback() -> None:
    made = boot_files(DEBIAN, ACTION)
    assert copies(made) == {
        "/boot/efi/EFI/debian/shimx64.efi": SHIM,
        "/boot/efi/EFI/debian/grubx64.efi": GRUB,
        "/boot/efi/EFI/debian/mmx64.efi": MOK,
        "/boot/efi/EFI/BOOT/BOOTX64.EFI": SHIM,
        "/boot/efi/EFI/BOOT/grubx64.efi": GRUB,
        "/boot/efi/EFI/BOOT/mmx64.efi": MOK,
    }
    assert made.loader == "\\EFI\\debian\\shimx64.efi"
    assert made.notes == ()


def test_the_stub_leads_to_the_root_of_this_clone() -> None:
    stubs = {path: text for path, text in written(boot_files(DEBIAN, ACTION)).items() if path.startswith("/boot/efi")}
    assert stubs.keys() == {"/boot/efi/EFI/debian/grub.cfg", "/boot/efi/EFI/BOOT/grub.cfg"}
    for text in stubs.values():
        assert f"search.fs_uuid {ROOT} root\nset prefix=($root)'/boot/grub'\n" in text
        assert "configfile $prefix/grub.cfg" in text


def test_an_image_without_grub_cfg_gets_one_that_boots_its_kernel() -> None:
    config = written(boot_files(DEBIAN, ACTION))["/boot/grub/grub.cfg"]
    assert f"search --no-floppy --fs-uuid --set=root {ROOT}\n" in config
    assert f"\tlinux /boot/vmlinuz-6.1.0-50-cloud-amd64 root=UUID={ROOT} ro console=ttyS0\n" in config
    assert "\tinitrd /boot/initrd.img-6.1.0-50-cloud-amd64\n" in config
    assert "set timeout=1\n" in config
    assert "serial" not in config  # GRUB_TERMINAL=console
    assert named_files(config.encode()) == (
        ("/boot/vmlinuz-6.1.0-50-cloud-amd64",),
        ("/boot/initrd.img-6.1.0-50-cloud-amd64",),
    )


def test_the_menu_comes_to_the_serial_line_the_kernel_uses() -> None:
    texts = {"/etc/default/grub": b'GRUB_CMDLINE_LINUX="console=tty0 console=ttyS1,57600n8"\n'}
    config = written(boot_files(changed(DEBIAN, texts=texts), ACTION))["/boot/grub/grub.cfg"]
    assert "if serial --unit=1 --speed=57600; then" in config


def test_boot_on_its_own_filesystem_is_found_there() -> None:
    action = msgspec.structs.replace(ACTION, boot_uuid="bbbbbbbb-0000-4000-8000-000000000000", boot_path="")
    texts = written(boot_files(DEBIAN, action))
    assert "search.fs_uuid bbbbbbbb-0000-4000-8000-000000000000 root" in texts["/boot/efi/EFI/debian/grub.cfg"]
    assert "set prefix=($root)'/grub'" in texts["/boot/efi/EFI/debian/grub.cfg"]
    assert f"linux /vmlinuz-6.1.0-50-cloud-amd64 root=UUID={ROOT} ro" in texts["/boot/grub/grub.cfg"]


def test_an_images_own_grub_cfg_is_kept_and_gets_the_nodes_arguments() -> None:
    own = f"menuentry x {{\n\tlinux\t/boot/vmlinuz-1 root=UUID={ROOT} ro\n\tinitrd /boot/initrd.img-1\n}}\n".encode()
    image = changed(DEBIAN, texts={**DEBIAN.texts, "/boot/grub/grub.cfg": own})
    assert "/boot/grub/grub.cfg" not in written(boot_files(image, ACTION))
    action = msgspec.structs.replace(ACTION, kernel_arguments=("console=ttyS0", "ro"))
    config = written(boot_files(image, action))["/boot/grub/grub.cfg"]
    assert f"\tlinux\t/boot/vmlinuz-1 root=UUID={ROOT} ro console=ttyS0\n" in config


@pytest.mark.parametrize(
    ("line", "action", "says"),
    [
        ("/boot/vmlinuz-1 root=/dev/sda3", {}, "root=/dev/sda3"),
        ("/vmlinuz-1 root=UUID=" + ROOT, {}, "looks for /vmlinuz-1"),
        ("/boot/vmlinuz-1 root=UUID=" + ROOT, {"boot_path": "/@/boot"}, "looks for /boot/vmlinuz-1"),
        ("/boot/vmlinuz-1 root=UUID=" + ROOT, {"root_flags": "subvol=@"}, "rootflags=none"),
        ("/boot/vmlinuz-1 root=UUID=" + ROOT + " rootflags=subvol=@", {}, "rootflags=subvol=@"),
        ("/boot/vmlinuz-1 root=UUID=" + ROOT + " rootflags=data=journal", {}, ""),
        ("/boot/vmlinuz-1 root=LABEL=root", {}, ""),
        ("$kernel root=$root", {}, ""),
    ],
)
def test_a_grub_cfg_for_other_disks_is_written_anew(line: str, action: dict[str, str], says: str) -> None:
    own = f"menuentry x {{\n\tlinux {line} ro quiet\n}}\n".encode()
    image = changed(DEBIAN, texts={**DEBIAN.texts, "/boot/grub/grub.cfg": own})
    made = boot_files(image, msgspec.structs.replace(ACTION, **action))
    assert ("/boot/grub/grub.cfg" in written(made)) == bool(says)
    assert [note for note in made.notes if says in note and "other disks" in note] == list(made.notes if says else ())


def test_loaders_that_live_on_the_esp_alone_are_copied_to_the_fallback() -> None:
    image = Image(
        present=frozenset(),
        boot=("vmlinuz-5.14.0", "initramfs-5.14.0.img"),
        esp=("EFI/rocky/shimx64.efi", "EFI/rocky/grubx64.efi", "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/fbx64.efi"),
        texts={"/etc/os-release": b'ID="rocky"\nID_LIKE="rhel centos"\n', "/boot/grub2/grub.cfg": b"blscfg\n"},
    )
    made = boot_files(image, ACTION)
    assert copies(made) == {
        "/boot/efi/EFI/BOOT/BOOTX64.EFI": "/boot/efi/EFI/rocky/shimx64.efi",
        "/boot/efi/EFI/BOOT/grubx64.efi": "/boot/efi/EFI/rocky/grubx64.efi",
    }
    assert RemoveFile("/boot/efi/EFI/BOOT/fbx64.efi") in made.files
    assert "set prefix=($root)'/boot/grub2'" in written(made)["/boot/efi/EFI/rocky/grub.cfg"]
    assert made.loader == "\\EFI\\rocky\\shimx64.efi"


def test_without_shim_grub_itself_is_the_loader_and_it_is_said() -> None:
    made = boot_files(changed(DEBIAN, present=frozenset({GRUB})), ACTION)
    assert made.loader == "\\EFI\\debian\\grubx64.efi"
    assert copies(made)["/boot/efi/EFI/BOOT/BOOTX64.EFI"] == GRUB
    assert "without Secure Boot only" in made.notes[0]


def test_a_kernel_without_initramfs_finds_its_root_by_partition() -> None:
    made = boot_files(changed(DEBIAN, boot=("vmlinuz-6.1.0",)), ACTION)
    config = written(made)["/boot/grub/grub.cfg"]
    assert f"root=PARTUUID={PART} ro" in config
    assert "initrd" not in config
    assert any("no initramfs" in note for note in made.notes)


@pytest.mark.parametrize(
    ("image", "arch", "match"),
    [
        pytest.param(changed(DEBIAN, present=frozenset({SHIM})), "x86_64", "no EFI GRUB", id="no grub"),
        pytest.param(changed(DEBIAN, boot=("efi",)), "x86_64", "no kernel", id="no kernel"),
        pytest.param(DEBIAN, "aarch64", "no EFI GRUB for aarch64", id="other architecture"),
        pytest.param(DEBIAN, "mips", "architecture 'mips'", id="unknown architecture"),
    ],
)
def test_an_image_that_cannot_boot_is_refused(image: Image, arch: str, match: str) -> None:
    with pytest.raises(NotBootableError, match=match):
        boot_files(image, ACTION, arch)


@given(
    st.frozensets(st.sampled_from(LOADERS)),
    st.lists(
        st.sampled_from(["EFI/debian/shimx64.efi", "EFI/debian/grubx64.efi", "EFI/Boot/FBX64.EFI", "x"]), unique=True
    ),
    st.lists(st.sampled_from(["vmlinuz-1", "vmlinuz-2-rescue", "initrd.img-1", "grub"]), unique=True),
)
def test_whatever_the_image_has_fbx64_is_never_placed_and_every_fallback_is_whole(
    present: frozenset[str], esp: list[str], boot: list[str]
) -> None:
    image = changed(DEBIAN, present=present, esp=tuple(esp), boot=tuple(boot))
    try:
        made = boot_files(image, ACTION)
    except NotBootableError:
        return
    placed = copies(made)
    assert not [path for path in placed if path.lower().endswith("fbx64.efi")]
    assert "/boot/efi/EFI/BOOT/BOOTX64.EFI" in placed
    if "shim" in placed["/boot/efi/EFI/BOOT/BOOTX64.EFI"]:
        assert "/boot/efi/EFI/BOOT/grubx64.efi" in placed
    if "EFI/Boot/FBX64.EFI" in esp:
        assert RemoveFile("/boot/efi/EFI/Boot/FBX64.EFI") in made.files


def test_the_newest_kernel_comes_first_and_rescue_last() -> None:
    versions = ["6.1.0-9", "6.1.0-50", "6.10.0", "0-rescue-abc", "6.10.0~rc1"]
    found = kernels_of(["vmlinuz", *(f"vmlinuz-{version}" for version in versions)])
    assert [one.version for one in found] == ["6.10.0", "6.10.0~rc1", "6.1.0-50", "6.1.0-9", "0-rescue-abc"]


@given(st.lists(st.text(max_size=20), max_size=20))
def test_any_names_in_boot_are_sorted(names: list[str]) -> None:
    assert len(kernels_of(names)) <= len(names)


def test_settings_are_read_without_running_anything() -> None:
    text = b"""
    A="one two"   # comment
    B='$A'
    C="$A three"
    D=`reboot`
    E=$(reboot)
    F="un
    export G=x
    A+=" more"
    """
    assert shell_assignments(text) == {"A": "one two more", "B": "$A", "C": "one two three", "G": "x"}


@given(st.binary(max_size=200))
def test_any_settings_are_read(text: bytes) -> None:
    assert isinstance(shell_assignments(text), dict)
    assert isinstance(named_files(text), tuple)
    assert append_arguments(text, ()) == text


@given(st.lists(st.text(min_size=1, max_size=12), max_size=4))
def test_hostile_kernel_arguments_stay_words_of_one_line(arguments: list[str]) -> None:
    config = whole_config(
        kernels_of(["vmlinuz-1", "initrd.img-1"]),
        title="x'y",
        boot_uuid=ROOT,
        boot_path="/boot",
        root=f"UUID={ROOT}",
        root_flags="",
        root_part_uuid="",
        settings={},
        kernel_arguments=arguments,
    )
    lines = [line for line in config.decode().splitlines() if line.startswith("\tlinux ")]
    assert len(lines) == 1
    assert lines[0].endswith("".join(f" {quoted(one)}" for one in arguments))
    assert named_files(config)[0] == ("/boot/vmlinuz-1",)


@given(st.binary(max_size=120), st.lists(st.sampled_from(["quiet", "console=ttyS0"]), unique=True))
def test_appending_twice_is_appending_once(config: bytes, arguments: list[str]) -> None:
    once = append_arguments(b"linux /vmlinuz a\n" + config, arguments)
    assert append_arguments(once, arguments) == once
