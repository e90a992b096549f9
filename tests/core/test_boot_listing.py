"""Whether an image can boot, told from names: what is refused before anything is destroyed, and what never is."""

from __future__ import annotations

import pytest

from cloner_core.bootfiles import boot_lacks, is_boot_name

ESP = "/boot/efi"
KERNEL = "/boot/vmlinuz-6.1.0-1-amd64"
GRUB = "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), ("kernel", "GRUB")),
        ((KERNEL,), ("GRUB",)),
        ((GRUB,), ("kernel",)),
        ((KERNEL, GRUB), ()),
        ((GRUB, "/boot/grub/grub.cfg"), ()),
        ((KERNEL, "/boot/efi/EFI/fedora/grubx64.efi"), ()),
        (("/boot/efi/EFI/fedora/grubx64.efi", "/boot/efi/EFI/fedora/grub.cfg"), ()),
        ((KERNEL, "/boot/efi/efi/FEDORA/GRUBX64.EFI"), ()),
        (("/boot/efi/EFI/Linux/debian-6.1.efi",), ()),
        (("/boot/efi/EFI/systemd/systemd-bootx64.efi", "/boot/efi/loader/entries/a.conf"), ()),
        (("/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "/boot/efi/loader/entries/a.conf"), ()),
        (("/boot/efi/EFI/systemd/systemd-bootx64.efi",), ("kernel",)),
        (("/srv/boot/vmlinuz-1", "/srv" + GRUB), ("kernel", "GRUB")),
    ],
)
def test_what_an_image_lacks_is_named(names: tuple[str, ...], words: tuple[str, ...]) -> None:
    lacking = boot_lacks(names, ESP, "x86_64")
    assert len(lacking) == len(words)
    assert all(word in told for word, told in zip(words, lacking, strict=True))


def test_a_loader_of_another_architecture_does_not_count() -> None:
    assert len(boot_lacks((KERNEL, GRUB), ESP, "aarch64")) == 1


BIOS = tuple(f"/usr/lib/grub/i386-pc/{name}.img" for name in ("boot", "diskboot", "kernel"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((KERNEL, *BIOS, "/usr/bin/grub-mkimage"), ()),
        ((KERNEL, *BIOS), ("GRUB for BIOS",)),
        ((KERNEL, *BIOS[1:], "/usr/bin/grub-mkimage"), ("GRUB for BIOS",)),
        ((KERNEL, GRUB), ("GRUB for BIOS",)),
        ((*BIOS, "/usr/bin/grub2-mkimage"), ("kernel",)),
    ],
)
def test_a_machine_that_bios_starts_needs_grub_for_bios(names: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert all(is_boot_name(name, "") for name in names if name != GRUB)
    lacking = boot_lacks(names, "", "x86_64")
    assert len(lacking) == len(words)
    assert all(word in told for word, told in zip(words, lacking, strict=True))


NAMES = [
    *(KERNEL, "/boot/grub/grub.cfg", "/boot/efi/EFI/debian/grubx64.efi", "/boot/efi/EFI/Linux/a.efi"),
    "/usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed",
]


@pytest.mark.parametrize("name", [*NAMES, GRUB])
def test_what_decides_is_never_sorted_out_before(name: str) -> None:
    assert is_boot_name(name, ESP)
