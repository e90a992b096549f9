"""The clone's crypttab has a line for each device of the layout, and the image's others as they were."""

from __future__ import annotations

import pytest

from cloner_core.crypttab import initramfs_list, make_crypttab
from cloner_core.layout import Unlock
from cloner_core.plan.values import PlannedCrypt
from cloner_core.steps import Opened
from cloner_core.unlocking import Means

UUID = "0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e"
DEBIAN, FEDORA = Means("initramfs-tools", "clevis", True), Means("dracut", "systemd", True)
ROOT = PlannedCrypt("root", "/dev/vda3", UUID, Unlock("tpm2"), f"UUID={UUID}", 512, is_early=True)
HOME = PlannedCrypt("home", "/dev/vda4", UUID[::-1], Unlock("passphrase"), f"UUID={UUID[::-1]}", 512)
SWAP = PlannedCrypt("swap", "/dev/vda2", "", Unlock("random"), "PARTUUID=1234", 4096)
FRESH = "swap\tPARTUUID=1234\t/dev/urandom\tswap,cipher=aes-xts-plain64,size=512,sector-size=4096"


def lines(content: bytes | None, *wanted: PlannedCrypt, means: Means = DEBIAN) -> list[str]:
    return make_crypttab(content, wanted, means).content.decode().splitlines()


def test_an_image_without_one_gets_the_lines_of_the_layout() -> None:
    assert lines(None, ROOT, HOME, SWAP) == [
        f"root\tUUID={UUID}\tnone\tluks,discard,initramfs",
        f"home\tUUID={UUID[::-1]}\tnone\tluks,discard",
        FRESH,
    ]


def test_systemd_is_told_of_the_tpm_where_it_asks_it() -> None:
    assert lines(None, ROOT, means=FEDORA) == [
        f"root\tUUID={UUID}\tnone\tluks,discard,x-initrd.attach,tpm2-device=auto"
    ]


@pytest.mark.parametrize("old", [f"sda3_crypt UUID={UUID} none luks,discard", "root /dev/sda3 /key luks"])
def test_a_line_for_the_same_name_or_the_same_container_gives_way(old: str) -> None:
    kept = "# <name> <device>\ndata UUID=99999999-1b1b-4c2c-8d3d-4e4e4e4e4e4e /etc/key luks,nofail"
    assert lines(f"{kept}\n{old}\n".encode(), ROOT) == [*kept.splitlines(), *lines(None, ROOT)]


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("data UUID=99 none luks", "data\tUUID=99\tnone\tluks,nofail"),
        ("data /dev/sdb1 /etc/key", "data\t/dev/sdb1\t/etc/key\tnofail"),
        ("data LABEL=x", "data\tLABEL=x\tnone\tnofail"),
    ],
)
def test_no_boot_waits_for_a_container_that_nobody_made(line: str, becomes: str) -> None:
    made = make_crypttab(line.encode(), (), DEBIAN)
    assert made.content.decode() == f"{becomes}\n"
    assert ["/etc/crypttab still opens 'data'" in note for note in made.notes] == [True]


@pytest.mark.parametrize("options", ["luks,nofail", "noauto"])
def test_a_container_that_no_boot_waits_for_is_kept(options: str) -> None:
    line = f"data UUID=99 none {options}"
    made = make_crypttab(line.encode(), (), DEBIAN)
    assert (made.content.decode(), made.notes) == (f"{line}\n", ())


def test_bytes_that_are_no_text_stay() -> None:
    assert make_crypttab(b"# caf\xe9\n", (ROOT,), DEBIAN).content.startswith(b"# caf\xe9\n")


def test_an_initramfs_lists_what_it_opens_where_its_kind_looks() -> None:
    opened = (Opened("root", UUID, "tpm2"), Opened("pv", UUID, "passphrase"))
    assert initramfs_list(opened, DEBIAN) == (
        "cryptroot/crypttab",
        f"root UUID={UUID} none luks,discard,initramfs\npv UUID={UUID} none luks,discard,initramfs\n".encode(),
    )
    path, content = initramfs_list(opened, FEDORA)
    assert path == "etc/crypttab"
    assert content.decode().splitlines() == [
        f"root UUID={UUID} none luks,discard,x-initrd.attach,tpm2-device=auto",
        f"pv UUID={UUID} none luks,discard,x-initrd.attach",
    ]
