"""The last look before the commit finds what would not boot or not be itself, all faults at once."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from agentbench.programs import pe
from agentbench.scene import Scene
from agentbench.sysfs import Sysfs
from cloner_agent.failures import StageError, cause_of
from cloner_agent.restore.errors import RestoreError
from cloner_agent.rooted import Rooted
from cloner_agent.stages.check import check
from cloner_core.facts import Signature
from cloner_core.layout import Subvolume
from cloner_core.messages import Cause, Stage
from cloner_core.plan.values import PlannedArray
from cloner_core.steps import Check

KERNEL = bytes(0x202) + b"HdrS" + bytes(100)


class _Clone(Scene):
    """A finished clone in a plain directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        volumes, wanted = self.attempt.plan.volumes, self.attempt.plan.entries
        self.put("boot/vmlinuz-6.1", KERNEL)
        self.put("boot/initrd.img-6.1", b"initrd")
        self.put(
            "boot/grub/grub.cfg", b"menuentry x {\n\tlinux /boot/vmlinuz-6.1 ro\n\tinitrd /boot/initrd.img-6.1\n}\n"
        )
        lines = [f"UUID={p.uuid} {p.mount or 'none'} {p.filesystem} defaults 0 0" for p in wanted]
        self.put("etc/fstab", "# made\n{}\n".format("\n".join(lines)).encode())
        self.identity("etc/machine-id", b"1" * 32 + b"\n")
        self.boot("boot/efi/EFI/debian/shimx64.efi", b"MZ shim")
        signatures = tuple(Signature(p.device, p.filesystem, p.uuid, part_uuid=p.part_uuid) for p in volumes)
        self.show(signatures)

    def put(self, path: str, content: bytes) -> None:
        file = self.target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def identity(self, path: str, content: bytes) -> None:
        self.put(path, content)
        self.attempt.record.written_identity[path.encode()] = blake3(content).digest()

    def boot(self, path: str, content: bytes) -> None:
        self.put(path, content)
        self.attempt.record.written_boot[path.encode()] = blake3(content).digest()

    def show(self, signatures: tuple[Signature, ...]) -> None:
        disk = msgspec.structs.replace(self.facts_now.disks[0], signatures=signatures)
        self.facts_now = msgspec.structs.replace(self.facts_now, disks=(disk, *self.facts_now.disks[1:]))

    def check(self) -> None:
        check(self.attempt, Check())


def test_a_finished_clone_passes_and_was_read_from_the_disk(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    clone.check()
    assert clone.happened == ["sync-filesystem", "sync-filesystem", "drop-caches"]


def test_a_write_that_fails_after_the_read_back_is_a_fault_of_the_disk(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    clone.on["sync-filesystem"] = fail
    with pytest.raises(RestoreError, match="cannot write to the disk of /") as caught:
        clone.check()
    assert cause_of(caught.value, Stage.CHECK) is Cause.DISK_IO


FAULTS: dict[str, tuple[Callable[[_Clone], object], Cause, str]] = {
    "another machine-id": (lambda c: c.put("etc/machine-id", b"2" * 32), Cause.IDENTITY, "/etc/machine-id"),
    "no machine-id": (lambda c: (c.target / "etc/machine-id").unlink(), Cause.IDENTITY, "cannot be read"),
    "loader changed": (lambda c: c.put("boot/efi/EFI/debian/shimx64.efi", b"MZ"), Cause.NOT_BOOTABLE, "shimx64"),
    "loader is no program": (lambda c: c.boot("boot/efi/EFI/x.efi", b"text"), Cause.NOT_BOOTABLE, "no EFI program"),
    "no kernel": (lambda c: (c.target / "boot/vmlinuz-6.1").unlink(), Cause.NOT_BOOTABLE, "vmlinuz-6.1"),
    "no initramfs": (lambda c: (c.target / "boot/initrd.img-6.1").unlink(), Cause.NOT_BOOTABLE, "initrd.img-6.1"),
    "not a kernel": (lambda c: c.put("boot/vmlinuz-6.1", b"text"), Cause.NOT_BOOTABLE, "not a kernel"),
    "no grub.cfg": (lambda c: (c.target / "boot/grub/grub.cfg").unlink(), Cause.NOT_BOOTABLE, "no entry at all"),
    "golden fstab": (lambda c: c.put("etc/fstab", b"UUID=0 / ext4\n"), Cause.NOT_BOOTABLE, "/etc/fstab has"),
    "no fstab": (lambda c: (c.target / "etc/fstab").unlink(), Cause.NOT_BOOTABLE, "/etc/fstab"),
    "superblocks not there": (lambda c: c.show(()), Cause.NOT_BOOTABLE, "shows nothing"),
}


@pytest.mark.parametrize(("spoil", "cause", "says"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(tmp_path: Path, spoil: Callable[[_Clone], object], cause: Cause, says: str) -> None:
    clone = _Clone(tmp_path)
    spoil(clone)
    with pytest.raises(StageError, match=says) as caught:
        clone.check()
    assert caught.value.cause is cause


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    for name in ("another machine-id", "no kernel", "golden fstab"):
        FAULTS[name][0](clone)
    with pytest.raises(StageError) as caught:
        clone.check()
    assert all(word in caught.value.message for word in ("machine-id", "vmlinuz", "fstab"))


def test_the_wrong_identifier_of_a_partition_is_found(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    good = clone.facts_now.disks[0].signatures
    clone.show((*good[:-1], msgspec.structs.replace(good[-1], part_uuid="0" * 36)))
    with pytest.raises(StageError, match="has GUID 0000"):
        clone.check()


@pytest.mark.parametrize(
    "config",
    [
        "linux /vmlinuz-6.1\ninitrd /initrd.img-6.1\n",  # /boot is a partition of its own
        "linuxefi ($root)/boot/vmlinuz-6.1\ninitrdefi ($root)/boot/initrd.img-6.1 \n",
        "linux /boot/vmlinuz-old\ninitrd /boot/x\nlinux /boot/vmlinuz-6.1\ninitrd /boot/initrd.img-6.1\n",
    ],
    ids=["own /boot", "with a device", "an older entry is broken"],
)
def test_entries_are_found_as_distributions_write_them(tmp_path: Path, config: str) -> None:
    clone = _Clone(tmp_path)
    clone.put("boot/grub/grub.cfg", config.encode())
    clone.check()


def test_entries_of_the_boot_loader_specification_count(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    (clone.target / "boot/grub/grub.cfg").unlink()
    clone.put("boot/loader/entries/a.conf", b"title x\nlinux /vmlinuz-6.1\ninitrd /initrd.img-6.1\n")
    clone.check()


def test_variables_of_grub_count_where_an_entry_asks_for_them(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    root = clone.attempt.plan.root.uuid.encode()
    clone.put("boot/grub2/grubenv", b"# GRUB Environment Block\nkernelopts=root=/dev/mapper/rl-root ro\n####")
    clone.put("boot/loader/entries/a.conf", b"linux /boot/vmlinuz-6.1\noptions root=UUID=" + root + b"\n")
    clone.check()
    clone.put("boot/loader/entries/a.conf", b"linux /boot/vmlinuz-6.1\noptions ${kernelopts} $tuned_params\n")
    with pytest.raises(StageError, match="grubenv: root=/dev/mapper/rl-root is not the clone's root"):
        clone.check()


def test_a_link_that_leads_out_of_the_clone_is_not_followed(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    outside = tmp_path / "outside"
    outside.write_bytes(KERNEL)
    (clone.target / "boot/vmlinuz-6.1").unlink()
    (clone.target / "boot/vmlinuz-6.1").symlink_to(outside)
    with pytest.raises(StageError, match="vmlinuz"):
        clone.check()


def test_a_default_entry_without_its_kernel_is_noted_for_the_receipt(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    whole = (clone.target / "boot/grub/grub.cfg").read_bytes()
    clone.put("boot/grub/grub.cfg", b"menuentry gone {\n\tlinux /boot/vmlinuz-5.10 ro\n}\n" + whole)
    clone.check()
    assert any("/boot/vmlinuz-5.10" in note for note in clone.attempt.tools.reporter.notes)


@pytest.mark.parametrize("name", [b"etc/machine-id", b"boot/efi/EFI/debian/shimx64.efi", b"etc/fstab"])
def test_a_disk_that_cannot_be_read_is_no_fault_of_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    clone = _Clone(tmp_path)
    read = Rooted.read

    def failing(self: Rooted, path: bytes, **limits: int) -> bytes:
        if path == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(self, path, **limits)

    monkeypatch.setattr(Rooted, "read", failing)
    with pytest.raises((StageError, OSError)) as caught:
        clone.check()
    assert cause_of(caught.value, Stage.CHECK) is Cause.DISK_IO


def test_a_disk_that_fails_behind_a_mirror_is_named_and_is_the_only_fault(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    sysfs, plan = Sysfs(tmp_path / "machine"), clone.attempt.plan
    member = plan.root.device
    array = PlannedArray("root", "/dev/md120", "raid1", "1.2", "u", (member,), 1, 1, 1)
    clone.attempt.plan = msgspec.structs.replace(plan, arrays=(array,))
    clone.attempt.tools = dataclasses.replace(clone.attempt.tools, machine_root=str(tmp_path / "machine"))
    home = f"sys/block/md120/md/dev-{member.removeprefix('/dev/')}"
    sysfs.write(f"{home}/state", "in_sync\n")
    clone.check()
    sysfs.write(f"{home}/bad_blocks", "2048 8\n")
    FAULTS["no kernel"][0](clone)
    with pytest.raises(StageError, match=f"^{member}, member of array root, has bad blocks.*serial CL1") as caught:
        clone.check()
    assert caught.value.cause is Cause.DISK_IO
    assert "vmlinuz" not in caught.value.message


def test_systemd_boot_sees_the_kernels_of_the_esp_alone(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    clone.attempt.record.loader = "\\EFI\\systemd\\systemd-bootx64.efi"
    clone.put("boot/efi/loader/entries/a.conf", b"linux /a/linux\ninitrd /a/initrd\n")
    with pytest.raises(StageError, match="missing: /a/linux, /a/initrd"):
        clone.check()
    clone.put("boot/efi/a/linux", KERNEL)
    clone.put("boot/efi/a/initrd", b"initrd")
    clone.check()
    clone.put("boot/efi/loader/entries/a.conf", b"linux /a/linux\noptions root=UUID=other\n")
    with pytest.raises(StageError, match="root=UUID=other is not the clone's root"):
        clone.check()


def test_a_unified_kernel_asks_for_a_label_that_the_clone_has(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    clone.attempt.record.loader = "\\EFI\\Linux\\a.efi"
    clone.put("boot/efi/EFI/Linux/a.efi", pe((".cmdline", b"root=PARTLABEL=root"), (".linux", b"MZ")))
    clone.check()
    clone.put("boot/efi/EFI/Linux/a.efi", pe((".cmdline", b"root=LABEL=system"), (".linux", b"MZ")))
    with pytest.raises(StageError, match="wants a root with label 'system'"):
        clone.check()


def test_a_kernel_in_a_subvolume_is_looked_for_as_grub_sees_it(tmp_path: Path) -> None:
    clone = _Clone(tmp_path)
    entry = b"menuentry x {\n\tlinux /@/boot/vmlinuz-6.1 ro\n\tinitrd /@/boot/initrd.img-6.1 $tuned_initrd\n}\n"
    clone.put("boot/grub/grub.cfg", entry)
    with pytest.raises(StageError, match="no boot entry"):
        clone.check()
    volumes = tuple(
        msgspec.structs.replace(volume, mount="", subvolumes=(Subvolume("@", "/"),)) if volume.mount == "/" else volume
        for volume in clone.attempt.plan.volumes
    )
    clone.attempt.plan = msgspec.structs.replace(clone.attempt.plan, volumes=volumes)
    fstab = (clone.target / "etc/fstab").read_text()
    clone.put("etc/fstab", fstab.replace("ext4 defaults", "ext4 subvol=@").encode())
    clone.check()
