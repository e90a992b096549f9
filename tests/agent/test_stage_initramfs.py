"""The clone's initramfs is compared with the machine, made anew only where needed, and then compared again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from agentbench.archive import archive
from agentbench.scene import Scene
from agentbench.sysfs import Sysfs
from cloner_agent.confined import Ended, Program
from cloner_agent.failures import StageError
from cloner_agent.stages.initramfs import check_initramfs
from cloner_core.messages import Cause
from cloner_core.steps import CheckInitramfs

RELEASE = "6.1.0-50-amd64"
VIRTIO = "virtio:d00000002v00001AF4"
OLD = "5e1f0000-901d-4000-8000-000000005a9e"
GOOD = {
    "init": b"#!/bin/sh\n",
    f"lib/modules/{RELEASE}/kernel/drivers/block/virtio_blk.ko": b"x",
    f"lib/modules/{RELEASE}/kernel/fs/ext4/ext4.ko": b"x",
}
BARE = {"init": b"#!/bin/sh\n"}


class Image:
    """A restored image with one kernel, on a machine with one virtio disk; counts what is run in it."""

    def __init__(self, directory: Path) -> None:
        self.scene = Scene(directory)
        self.target = self.scene.target
        self.ran: list[Program] = []
        self.result: Callable[[], int] = lambda: 0
        sysfs = Sysfs(directory / "machine")
        sysfs.disk("vda", "254:0", at="virtio1")
        sysfs.bind("virtio1", "virtio_blk", VIRTIO)
        tools = dataclasses.replace(
            self.scene.attempt.tools, confine=self._confine, machine_root=str(directory / "machine")
        )
        self.scene.attempt.tools = tools
        self.write(f"boot/vmlinuz-{RELEASE}", b"kernel")
        self.initramfs(GOOD)
        modules = f"usr/lib/modules/{RELEASE}"
        (self.target / "lib").symlink_to("usr/lib")
        self.write(f"{modules}/modules.dep", b"kernel/drivers/block/virtio_blk.ko:\nkernel/fs/ext4/ext4.ko:\n")
        self.write(f"{modules}/modules.alias", b"alias virtio:d00000002v* virtio_blk\n")
        self.write("usr/sbin/mkinitramfs", b"")

    def write(self, path: str, content: bytes) -> None:
        place = self.target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def initramfs(self, files: dict[str, bytes]) -> None:
        self.write(f"boot/initrd.img-{RELEASE}", archive(files))

    def check(self) -> list[str]:
        check_initramfs(self.scene.attempt, CheckInitramfs())
        return self.scene.attempt.tools.reporter.notes

    def _confine(self, target: str, program: Program, *, watch: Callable[[], None] = lambda: None) -> Ended:
        assert target == str(self.target)
        self.ran.append(program)
        return Ended(self.result(), 1.0, False, ("one", "last words", ""), 0)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def test_an_initramfs_that_has_everything_stays_as_it_is(image: Image) -> None:
    assert image.check() == []
    assert image.ran == []


def test_a_missing_driver_has_it_made_anew_and_the_receipt_says_so(image: Image) -> None:
    image.initramfs(BARE)
    drop_in = image.target / "etc/initramfs-tools/conf.d/zz-cloner"

    def rebuild() -> int:
        assert drop_in.read_text() == "MODULES=most\n"
        image.initramfs(GOOD)
        return 0

    image.result = rebuild
    (note,) = image.check()
    assert note.startswith(f"the initramfs of kernel {RELEASE} was made anew by update-initramfs: it lacks virtio_blk")
    assert "disk /dev/vda" in note
    assert [program.argv for program in image.ran] == [("update-initramfs", "-u", "-k", RELEASE)]
    assert not drop_in.exists()
    remembered = image.scene.attempt.record.written_boot
    assert remembered == {f"boot/initrd.img-{RELEASE}".encode(): blake3(archive(GOOD)).digest()}, "for the check"


def test_a_rebuild_that_does_not_help_is_not_bootable(image: Image) -> None:
    image.initramfs(BARE)
    with pytest.raises(StageError, match=r"it lacks virtio_blk for disk /dev/vda .*did not help") as caught:
        image.check()
    assert caught.value.cause is Cause.NOT_BOOTABLE
    assert "MODULES=most" in caught.value.hint


def test_a_rebuild_that_fails_is_told_with_its_last_words(image: Image) -> None:
    image.initramfs(BARE)
    image.result = lambda: 3
    with pytest.raises(StageError, match=r"'update-initramfs -u -k .*' ended with status 3 after 1.0 s: last words"):
        image.check()


def test_a_rebuild_that_leaves_rubbish_is_not_bootable(image: Image) -> None:
    image.initramfs(BARE)

    def rebuild() -> int:
        image.write(f"boot/initrd.img-{RELEASE}", b"rubbish")
        return 0

    image.result = rebuild
    with pytest.raises(StageError, match="cannot be read now") as caught:
        image.check()
    assert caught.value.cause is Cause.NOT_BOOTABLE


def test_an_image_without_a_tool_is_refused_when_it_lacks_what_it_boots_from(image: Image) -> None:
    image.initramfs(BARE)
    (image.target / "usr/sbin/mkinitramfs").unlink()
    with pytest.raises(StageError, match="no tool to make it anew"):
        image.check()
    assert image.ran == []


def test_an_initramfs_that_names_what_is_gone_is_made_anew_or_noted(image: Image) -> None:
    stale = GOOD | {"conf/conf.d/resume": f"RESUME=UUID={OLD}\n".encode()}
    image.initramfs(stale)
    assert image.check() == []
    image.scene.attempt.record.replaced = (OLD,)
    image.check()
    assert "its conf/conf.d/resume names filesystems that are gone" in image.scene.attempt.tools.reporter.notes[-1]
    assert len(image.ran) == 1
    (image.target / "usr/sbin/mkinitramfs").unlink()
    assert "no tool to make it anew" in image.check()[-1]


def test_what_cannot_be_read_or_compared_is_left_alone(image: Image) -> None:
    image.write(f"boot/initrd.img-{RELEASE}", b"\x89LZO" + bytes(100))
    assert "was not looked into" in image.check()[0]
    (image.target / f"usr/lib/modules/{RELEASE}/modules.dep").unlink()
    assert len(image.check()) == 1
    (image.target / f"boot/initrd.img-{RELEASE}").unlink()
    assert len(image.check()) == 1
    assert image.ran == []


def test_a_kernel_whose_name_is_a_word_is_known_by_what_is_inside(image: Image) -> None:
    """As Arch has it: vmlinuz-linux and initramfs-linux.img."""
    (image.target / f"boot/vmlinuz-{RELEASE}").unlink()
    head = bytearray(4096)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x400).to_bytes(2, "little")
    text = f"{RELEASE} (builder@host) #1 SMP".encode()
    head[0x600 : 0x600 + len(text)] = text
    image.write("boot/vmlinuz-linux", bytes(head))
    image.write("boot/initramfs-linux.img", archive(BARE))
    (image.target / "usr/sbin/mkinitramfs").unlink()
    image.write("usr/bin/mkinitcpio", b"")

    def rebuild() -> int:
        image.write("boot/initramfs-linux.img", archive(GOOD))
        return 0

    image.result = rebuild
    assert "made anew by mkinitcpio" in image.check()[0]
    assert image.ran[0].argv[-4:] == ("-k", RELEASE, "-g", "/boot/initramfs-linux.img")


def test_an_initramfs_beside_its_kernel_on_the_esp_is_looked_into_with_the_microcode_before_it(image: Image) -> None:
    """As systemd-boot has them."""
    folder = f"boot/efi/0123/{RELEASE}"
    image.write(f"{folder}/linux", b"MZ")
    image.write(f"{folder}/initrd", archive(BARE))
    image.write("boot/efi/ucode.img", archive({"kernel/x86/microcode/x.bin": bytes(100)}))
    entry = f"linux /0123/{RELEASE}/linux\ninitrd /UCODE.IMG\ninitrd /0123/{RELEASE}/initrd\n"
    image.write("boot/efi/loader/entries/a.conf", entry.encode())
    record = image.scene.attempt.record
    record.loader = "\\EFI\\systemd\\systemd-bootx64.efi"
    record.written_boot[f"{folder}/initrd".encode()] = b"as it was"

    def rebuild() -> int:
        image.write(f"{folder}/initrd", archive(GOOD))
        return 0

    image.result = rebuild
    assert "made anew by mkinitramfs: it lacks virtio_blk" in image.check()[0]
    assert image.ran[0].argv == ("mkinitramfs", "-o", f"/{folder}/initrd", RELEASE)
    assert record.written_boot[f"{folder}/initrd".encode()] == blake3(archive(GOOD)).digest()
