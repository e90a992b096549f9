"""What an image opens encrypted devices with is told from its names, and what it lacks is told in words."""

from __future__ import annotations

import pytest

from cloner_core.initrd import Initrd
from cloner_core.steps import Opened
from cloner_core.unlocking import Means, Wanted, initramfs_lacks, is_unlock_name, means_of, unlock_lacks

DEBIAN = (
    "/usr/sbin/mkinitramfs",
    "/usr/share/initramfs-tools/hooks/cryptroot",
    "/usr/share/initramfs-tools/hooks/clevis",
    "/usr/bin/clevis-luks-bind",
    "/usr/bin/clevis-encrypt-tpm2",
    "/usr/lib/systemd/systemd-cryptsetup",
)
FEDORA = ("/usr/bin/dracut", "/usr/lib/dracut/modules.d/90crypt/module-setup.sh", "/lib/systemd/systemd-cryptsetup")
ENROLL = ("/usr/bin/systemd-cryptenroll", "/usr/lib/dracut/modules.d/91tpm2-tss/module-setup.sh")
CLEVIS_DRACUT = (
    "/usr/bin/clevis-luks-bind",
    "/usr/bin/clevis-encrypt-tpm2",
    "/usr/lib/dracut/modules.d/60clevis-pin-tpm2/module-setup.sh",
)
ROOT = Wanted("root", "tpm2", is_early=True)
TYPED = Wanted("root", "passphrase", is_early=True)
HOME = Wanted("home", "passphrase", is_early=False)
SWAP = Wanted("swap", "random", is_early=False)


@pytest.mark.parametrize(
    ("paths", "means"),
    [
        (DEBIAN, Means("initramfs-tools", "clevis", True)),
        ((*DEBIAN[:2], *DEBIAN[3:]), Means("initramfs-tools", "", True)),
        (DEBIAN[:2], Means("initramfs-tools", "", False)),
        (FEDORA, Means("dracut", "", True)),
        ((*FEDORA, *ENROLL), Means("dracut", "systemd", True)),
        ((*FEDORA, *ENROLL, *CLEVIS_DRACUT), Means("dracut", "clevis", True)),
        (FEDORA[:1], Means("", "", False)),
        ((FEDORA[0], "/usr/lib/dracut/modules.d/91crypt-gpg/module-setup.sh"), Means("", "", False)),
        ((), Means("", "", False)),
    ],
)
def test_the_means_of_an_image_are_told_from_its_names(paths: tuple[str, ...], means: Means) -> None:
    assert means_of((*paths, "/etc/passwd")) == means
    assert all(map(is_unlock_name, (name for name in paths if "gpg" not in name)))


def test_other_names_do_not_matter() -> None:
    others = ("/home/a/usr/sbin/mkinitramfs", "/usr/lib/dracut/modules.d/01fips/module-setup.sh", "/usr/bin/clevis")
    assert not any(map(is_unlock_name, others))


@pytest.mark.parametrize(
    ("paths", "wanted", "lacking"),
    [
        (DEBIAN, (ROOT, HOME, SWAP), []),
        (DEBIAN[:2], (TYPED,), []),
        (DEBIAN[:2], (ROOT,), ["unlock root (packages clevis, clevis-tpm2 and clevis-initramfs)"]),
        (FEDORA, (ROOT,), ["unlock root (clevis-dracut, or systemd-cryptenroll"]),
        ((), (ROOT, SWAP), ["an initramfs that opens root", "what opens swap of /etc/crypttab"]),
        (DEBIAN[:5], (ROOT, HOME), ["what opens home of /etc/crypttab"]),
        ((), (), []),
    ],
)
def test_what_is_lacking_is_said_with_its_packages(
    paths: tuple[str, ...], wanted: tuple[Wanted, ...], lacking: list[str]
) -> None:
    said = unlock_lacks(means_of(paths), wanted)
    assert len(said) == len(lacking)
    assert all(words in told for words, told in zip(lacking, said, strict=True))


@pytest.mark.parametrize(
    ("means", "way", "files", "lacking"),
    [
        (Means("initramfs-tools", "clevis", True), "tpm2", {"sbin/cryptsetup", "usr/bin/clevis-decrypt-tpm2"}, 0),
        (Means("initramfs-tools", "clevis", True), "tpm2", {"sbin/cryptsetup"}, 1),
        (Means("initramfs-tools", "", True), "passphrase", {"sbin/cryptsetup"}, 0),
        (Means("dracut", "systemd", True), "tpm2", {"usr/lib/systemd/systemd-cryptsetup"}, 1),
        (Means("dracut", "systemd", True), "tpm2", set(), 2),
        (
            Means("dracut", "systemd", True),
            "tpm2",
            {"usr/lib/systemd/systemd-cryptsetup", "usr/lib64/libtss2-esys.so.0"},
            0,
        ),
    ],
)
def test_an_initramfs_must_hold_what_opens_its_containers(
    means: Means, way: str, files: set[str], lacking: int
) -> None:
    opened = (Opened("root", "u", way),)  # type: ignore[arg-type]
    assert len(initramfs_lacks(Initrd(files=files), means, opened)) == lacking
