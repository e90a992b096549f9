"""The list of what to open is put behind each initramfs, where the kernel finds it, and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from agentbench.archive import archive
from agentbench.container import CLEVIS, SYSTEMD, UUID
from agentbench.scene import Scene
from cloner_agent.failures import StageError
from cloner_agent.stages.opening import open_at_boot
from cloner_core.initrd import read_initrd
from cloner_core.messages import Cause
from cloner_core.steps import OpenAtBoot, Opened

ACTION = OpenAtBoot((Opened("root", UUID, "tpm2"),))
HOLDS = {"sbin/cryptsetup": b"x", "usr/bin/clevis-decrypt-tpm2": b"x", "cryptroot/crypttab": b"old UUID=1 none luks\n"}
DRACUT = {"usr/lib/systemd/systemd-cryptsetup": b"x", "usr/lib64/libtss2-esys.so.0": b"x"}
LINE = f"root UUID={UUID} none luks,discard,initramfs\n".encode()


def image(directory: Path, *means: str, **initramfs: dict[str, bytes]) -> Scene:
    """Return a restored image with these files, and an initramfs for each version ("v6" is 6.1.0-6)."""
    scene = Scene(directory)
    files = dict.fromkeys(means, b"")
    for version, content in initramfs.items():
        files[f"boot/vmlinuz-6.1.0-{version[1:]}"] = b"kernel"
        files[f"boot/initrd.img-6.1.0-{version[1:]}"] = archive(content)
    for name, held in files.items():
        path = scene.target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held)
    return scene


def listed(scene: Scene, version: str, path: str = "cryptroot/crypttab") -> bytes | None:
    content = (scene.target / f"boot/initrd.img-6.1.0-{version}").read_bytes()
    return read_initrd([content], lambda name: name == path).kept.get(path)


def test_every_initramfs_opens_the_container_and_keeps_what_it_had(tmp_path: Path) -> None:
    scene = image(tmp_path, *CLEVIS, v6=HOLDS, v7=HOLDS)
    before = (scene.target / "boot/initrd.img-6.1.0-6").read_bytes()
    open_at_boot(scene.attempt, ACTION)
    for version in ("6", "7"):
        assert listed(scene, version) == LINE
        assert (scene.target / f"boot/initrd.img-6.1.0-{version}").read_bytes().startswith(before)


def test_it_begins_where_the_kernel_takes_an_archive_that_is_not_compressed(tmp_path: Path) -> None:
    scene = image(tmp_path, *CLEVIS, v6=HOLDS)
    path = scene.target / "boot/initrd.img-6.1.0-6"
    size = path.write_bytes(path.read_bytes() + bytes(1))
    open_at_boot(scene.attempt, ACTION)
    content = path.read_bytes()
    added = content[size:].lstrip(b"\0")
    assert added.startswith(b"070701")
    assert (len(content) - len(added)) % 4 == 0
    assert listed(scene, "6") == LINE


def test_the_check_finds_an_initramfs_that_was_made_before_as_it_is_with_the_list(tmp_path: Path) -> None:
    scene = image(tmp_path, *CLEVIS, v6=HOLDS, v7=HOLDS)
    path = "boot/initrd.img-6.1.0-7"
    written = scene.attempt.record.written_boot
    written[path.encode()] = blake3((scene.target / path).read_bytes()).digest()
    open_at_boot(scene.attempt, ACTION)
    assert written == {path.encode(): blake3((scene.target / path).read_bytes()).digest()}


def test_twice_is_as_good_as_once(tmp_path: Path) -> None:
    scene = image(tmp_path, *CLEVIS, v6=HOLDS)
    open_at_boot(scene.attempt, ACTION)
    open_at_boot(scene.attempt, ACTION)
    assert listed(scene, "6") == LINE


def test_an_initramfs_of_dracut_is_told_in_its_crypttab(tmp_path: Path) -> None:
    scene = image(tmp_path, *SYSTEMD, v6=DRACUT)
    open_at_boot(scene.attempt, ACTION)
    said = listed(scene, "6", "etc/crypttab")
    assert said == f"root UUID={UUID} none luks,discard,x-initrd.attach,tpm2-device=auto\n".encode()


@pytest.mark.parametrize(
    ("initramfs", "said"),
    [
        ({}, "there is no initramfs in /boot"),
        ({"v6": {"init": b""}}, "/boot/initrd.img-6.1.0-6 lacks cryptsetup and clevis with its pin tpm2"),
        ({"v6": {"sbin/cryptsetup": b""}, "v5": HOLDS}, "/boot/initrd.img-6.1.0-6 lacks clevis with its pin tpm2"),
    ],
)
def test_a_clone_whose_newest_initramfs_could_not_open_its_root_is_refused(
    tmp_path: Path, initramfs: dict[str, dict[str, bytes]], said: str
) -> None:
    scene = image(tmp_path, *CLEVIS, **initramfs)
    with pytest.raises(StageError) as refused:
        open_at_boot(scene.attempt, ACTION)
    assert refused.value.cause is Cause.NOT_BOOTABLE
    assert said in refused.value.message


def test_an_initramfs_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    scene = image(tmp_path, *CLEVIS, v6=HOLDS)
    path = scene.target / "boot/initrd.img-6.1.0-6"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StageError, match=r"/boot/initrd.img-6.1.0-6 cannot be read") as refused:
        open_at_boot(scene.attempt, ACTION)
    assert refused.value.cause is Cause.NOT_BOOTABLE
