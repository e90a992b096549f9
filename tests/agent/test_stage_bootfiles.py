"""The image's own loaders land on the staged ESP; an image without any is refused. Files of root are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from agentbench.programs import pe
from agentbench.scene import Scene
from cloner_agent.failures import StageError
from cloner_agent.stages.bootfiles import place
from cloner_core.messages import Cause
from cloner_core.steps import BootFiles

pytestmark = pytest.mark.root
FILES = {
    "etc/os-release": b'ID=debian\nPRETTY_NAME="Debian"\n',
    "etc/default/grub": b'GRUB_CMDLINE_LINUX="console=ttyS0"\n',
    "usr/lib/shim/shimx64.efi.signed": b"MZ shim",
    "usr/lib/shim/mmx64.efi.signed": b"MZ mm",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": b"MZ grub",
    "boot/vmlinuz-6.1.0": b"kernel",
    "boot/initrd.img-6.1.0": b"initrd",
    "boot/efi/EFI/BOOT/FBX64.EFI": b"MZ reorders BootOrder",
}


def _scene(directory: Path, *without: str) -> Scene:
    scene = Scene(directory)
    for path, content in FILES.items():
        if path not in without:
            file = scene.target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return scene


def test_signed_loaders_go_to_their_places_and_to_the_fallback_path(tmp_path: Path) -> None:
    scene = _scene(tmp_path)
    place(scene.attempt, scene.action(BootFiles))
    esp = scene.target / "boot/efi/EFI"
    assert (esp / "debian/shimx64.efi").read_bytes() == b"MZ shim"
    assert (esp / "debian/grubx64.efi").read_bytes() == b"MZ grub"
    assert (esp / "BOOT/BOOTX64.EFI").read_bytes() == b"MZ shim"
    assert (esp / "BOOT/grubx64.efi").read_bytes() == b"MZ grub"
    assert not (esp / "BOOT/FBX64.EFI").exists()
    assert scene.attempt.record.loader == "\\EFI\\debian\\shimx64.efi"


def test_a_grub_cfg_is_made_where_there_is_none_and_every_file_is_remembered(tmp_path: Path) -> None:
    scene = _scene(tmp_path)
    place(scene.attempt, scene.action(BootFiles))
    config = (scene.target / "boot/grub/grub.cfg").read_text()
    assert f"root=UUID={scene.attempt.plan.root.uuid}" in config
    assert "console=ttyS0" in config
    for path, digest in scene.attempt.record.written_boot.items():
        assert blake3((scene.target / path.decode()).read_bytes()).digest() == digest
    assert b"boot/grub/grub.cfg" in scene.attempt.record.written_boot


@pytest.mark.parametrize(
    "without", ["usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "boot/vmlinuz-6.1.0"], ids=["grub", "kernel"]
)
def test_an_image_that_cannot_boot_is_refused(tmp_path: Path, without: str) -> None:
    scene = _scene(tmp_path, without)
    with pytest.raises(StageError) as caught:
        place(scene.attempt, scene.action(BootFiles))
    assert caught.value.cause is Cause.NOT_BOOTABLE


def test_the_receipt_says_by_what_the_clone_boots(tmp_path: Path) -> None:
    scene = _scene(tmp_path)
    place(scene.attempt, scene.action(BootFiles))
    assert "boots by shim and GRUB: \\EFI\\debian\\shimx64.efi" in scene.attempt.tools.reporter.notes


def test_entries_and_unified_kernels_on_the_esp_are_read(tmp_path: Path) -> None:
    scene = _scene(tmp_path, *FILES)
    esp = scene.target / "boot/efi"
    files = {
        "EFI/systemd/systemd-bootx64.efi": b"MZ systemd-boot",
        "EFI/Linux/a.efi": pe((".cmdline", b"root=UUID=old"), (".linux", b"MZ")),
        "EFI/Linux/tool.efi": pe((".text", b"no kernel")),
        "LOADER/ENTRIES/b.conf": b"linux /b/linux\noptions root=UUID=old quiet\n",
        "b/linux": b"MZ",
    }
    for path, content in files.items():
        (esp / path).parent.mkdir(parents=True, exist_ok=True)
        (esp / path).write_bytes(content)
    place(scene.attempt, scene.action(BootFiles))
    assert scene.attempt.record.loader == "\\EFI\\systemd\\systemd-bootx64.efi"
    root = scene.attempt.plan.root
    assert f"options    root=PARTUUID={root.part_uuid} quiet" in (esp / "LOADER/ENTRIES/b.conf").read_text()
    assert not (esp / "EFI/Linux/a.efi").exists()
    assert (esp / "EFI/Linux/tool.efi").exists()
