"""Mending the boot of a running system: the loader that is chosen, the fallback, what the copies of an ESP lack."""

from __future__ import annotations

import pytest

from cloner_core.bootfiles import NotBootableError
from cloner_core.efi import HardDrive, LoadOption, disk_entry
from cloner_core.efiboot import Copy, copies_of, description_of, fallback_of, loader_of
from cloner_core.nvram import Nvram, after_plan, nvram_faults, nvram_plan

GUID = "aaaaaaaa-0000-4000-8000-000000000001"
DRIVE = HardDrive(1, 2048, 4096, GUID)
SHIM, GRUB = "EFI/debian/shimx64.efi", "EFI/debian/grubx64.efi"
SYSTEMD, UNIFIED = "EFI/systemd/systemd-bootx64.efi", "EFI/Linux/a-6.1.efi"
OURS = disk_entry("cloner debian:3, disk 2", DRIVE, "\\EFI\\debian\\shimx64.efi")
NIC = LoadOption("Onboard LAN", bytes.fromhex("05010a00800000000000") + bytes.fromhex("7fff0400"))


@pytest.mark.parametrize(
    ("files", "entries", "loader"),
    [
        ((SHIM, GRUB), {}, SHIM),
        ((GRUB,), {}, GRUB),
        ((GRUB, "EFI/ubuntu/shimx64.efi"), {}, GRUB),
        (("EFI/BOOT/grubx64.efi", "EFI/fedora/grubx64.efi"), {}, "EFI/fedora/grubx64.efi"),
        ((SHIM, SYSTEMD), {}, SHIM),
        ((SHIM, SYSTEMD, "loader/entries/a.conf"), {}, SYSTEMD),
        ((SHIM, SYSTEMD, "loader/entries/a.conf"), {3: OURS}, SHIM),
        (("efi/DEBIAN/SHIMX64.EFI", SYSTEMD, UNIFIED), {3: OURS}, "efi/DEBIAN/SHIMX64.EFI"),
        ((SYSTEMD, UNIFIED), {3: OURS}, SYSTEMD),
        ((UNIFIED,), {}, UNIFIED),
    ],
)
def test_the_loader_is(files: tuple[str, ...], entries: dict[int, LoadOption], loader: str) -> None:
    assert loader_of(files, Nvram(entries), {GUID}, "x86_64", "debian") == loader


def test_an_esp_without_a_loader_is_refused() -> None:
    with pytest.raises(NotBootableError):
        loader_of(("EFI/BOOT/BOOTX64.EFI",), Nvram({}), {GUID}, "x86_64", "debian")
    with pytest.raises(NotBootableError):
        loader_of((SHIM,), Nvram({}), {GUID}, "riscv64", "debian")


def test_the_fallback_of_shim_has_what_shim_starts() -> None:
    files = (SHIM, GRUB, "EFI/debian/grub.cfg", "EFI/boot/bootx64.efi")
    assert fallback_of(SHIM, files, "x86_64") == {
        "EFI/boot/bootx64.efi": SHIM,
        "EFI/BOOT/grubx64.efi": GRUB,
        "EFI/BOOT/grub.cfg": "EFI/debian/grub.cfg",
    }
    assert fallback_of(SYSTEMD, (SYSTEMD,), "x86_64") == {"EFI/BOOT/BOOTX64.EFI": SYSTEMD}


def test_copies_of_the_esp_get_what_they_lack_or_have_otherwise() -> None:
    first = {SHIM: b"2", GRUB: b"g", "EFI/BOOT/BOOTX64.EFI": b"1"}
    second = {"efi/debian/shimx64.efi": b"1", GRUB: b"g", "own": b"x"}
    made = copies_of({"EFI/BOOT/BOOTX64.EFI": SHIM}, [("/dev/vda1", first), ("/dev/vdb1", second)])
    assert made == (
        Copy(SHIM, "/dev/vda1", "EFI/BOOT/BOOTX64.EFI"),
        Copy(SHIM, "/dev/vdb1", SHIM),
        Copy(SHIM, "/dev/vdb1", "EFI/BOOT/BOOTX64.EFI"),
    )
    assert copies_of({}, [("/dev/vda1", first), ("/dev/vdb1", first)]) == ()


def test_the_entry_keeps_its_name() -> None:
    assert description_of(Nvram({3: OURS}), {GUID}, "Debian") == "cloner debian:3"
    assert description_of(Nvram({3: OURS}), {"other"}, "Debian") == "cloner Debian"


@pytest.mark.parametrize(
    ("order", "policy", "wanted"),
    [
        ((1, 3, 2), "network-first", (1, 3, 2)),  # 1 may be the network: nobody can tell
        ((1, 2), "network-first", (3, 1, 2)),
        ((1, 3, 2), "local-first", (3, 1, 2)),
    ],
)
def test_what_may_be_the_network_stays_before_ours(
    order: tuple[int, ...], policy: str, wanted: tuple[int, ...]
) -> None:
    before = Nvram({1: NIC, 2: NIC, 3: OURS}, order=order)
    plan = nvram_plan(
        before,
        (DRIVE,),
        "\\EFI\\debian\\shimx64.efi",
        description="cloner debian:3",
        policy=policy,  # type: ignore[arg-type]
        destroyed=(),
        live=(GUID,),
        keeps_place=True,
    )
    assert plan.order == wanted
    assert nvram_faults(after_plan(before, plan), plan) == []
