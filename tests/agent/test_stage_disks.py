"""Guard, commands, mounts and the ESP's staging, up to the move that makes the disk bootable."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
from pathlib import Path

import msgspec
import pytest

from agentbench.node import PXE
from agentbench.runner import FakeRunner
from agentbench.scene import Scene
from agentbench.sysfs import Sysfs
from cloner_agent.failures import StageError, cause_of
from cloner_agent.host import run
from cloner_agent.machine import Machine
from cloner_agent.partitions import wait_for_device
from cloner_agent.restore.errors import RestoreError
from cloner_agent.stages.commit import activate_esp, ask
from cloner_agent.stages.disks import command, guard, stop, sync_mounts, unmount_all
from cloner_core.efi import LoadOption, build_load_option, build_order
from cloner_core.facts import Signature
from cloner_core.messages import Cause, Stage
from cloner_core.steps import STAGING, ActivateEsp, Command, Commit, Guard, Nvram, StopHolders


def _with_disk(scene: Scene, index: int, **changes: object) -> None:
    disks = list(scene.facts_now.disks)
    disks[index] = msgspec.structs.replace(disks[index], **changes)
    scene.facts_now = msgspec.structs.replace(scene.facts_now, disks=tuple(disks))


def test_the_guard_passes_a_machine_that_is_as_it_was(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    guard(scene.attempt, scene.action(Guard))


def test_a_firmware_without_variables_is_refused_where_one_is_to_be_written(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for path in scene.efivars.iterdir():
        path.unlink()
    with pytest.raises(StageError, match="no variables") as caught:
        guard(scene.attempt, scene.action(Guard))
    assert caught.value.cause is Cause.NVRAM
    without = tuple(step for step in scene.attempt.plan.steps if not isinstance(step.action, Nvram))
    scene.attempt.plan = msgspec.structs.replace(scene.attempt.plan, steps=without)
    guard(scene.attempt, scene.action(Guard))


def test_another_disk_with_an_identifier_of_ours_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    root = scene.attempt.plan.root
    _with_disk(scene, 1, signatures=(Signature("/dev/vdb1", "ext4", root.uuid),))
    with pytest.raises(StageError, match=root.uuid) as caught:
        guard(scene.attempt, scene.action(Guard))
    assert caught.value.cause is Cause.FOREIGN_UUID


def test_the_other_half_of_a_volume_group_that_shows_up_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first, other = scene.attempt.plan.disks[0].disk.path, scene.facts_now.disks[1].path

    def half(device: str) -> Signature:
        return Signature(device, "LVM2_member", f"pv {device}", group="vg0", group_uuid="vg0-uuid")

    _with_disk(scene, 0, signatures=(half(first),))
    guard(scene.attempt, scene.action(Guard))
    _with_disk(scene, 1, signatures=(half(f"{other}1"),))
    with pytest.raises(StageError, match="volume group 'vg0' lies on") as caught:
        guard(scene.attempt, scene.action(Guard))
    assert caught.value.cause is Cause.LAYOUT


@pytest.mark.parametrize("change", [{"serial": "X"}, {"size_bytes": 1}, {"path": "/dev/vdz"}], ids=str)
def test_a_disk_that_was_swapped_since_the_plan_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    scene = Scene(tmp_path)
    _with_disk(scene, 0, **change)
    with pytest.raises(StageError) as caught:
        guard(scene.attempt, scene.action(Guard))
    assert caught.value.cause is Cause.NO_DISK


def test_a_disk_is_released_on_all_its_paths(tmp_path: Path) -> None:
    scene, stopped = Scene(tmp_path), []
    disk = scene.attempt.facts.disks[0]
    facts = msgspec.structs.replace(scene.attempt.facts, disks=(msgspec.structs.replace(disk, paths=("/dev/vdq",)),))
    tools = dataclasses.replace(scene.attempt.tools, stop_holders=lambda path, _: stopped.append(path))
    stop(dataclasses.replace(scene.attempt, facts=facts, tools=tools), StopHolders(disk.path))
    assert stopped == [disk.path, "/dev/vdq"]


def test_a_command_runs_as_the_plan_says(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    command(scene.attempt, Command(("sfdisk", "/dev/vda"), stdin="label: gpt\n"))
    assert scene.runner.ran == [("sfdisk", "/dev/vda")]


def test_a_partition_that_never_appears_is_an_error_after_the_table_was_told_again() -> None:
    runner, now = FakeRunner(), [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(StageError, match="did not appear within 9 s") as caught:
        wait_for_device(
            "/dev/cloner9", "/dev/cloner", runner, place=(1, 2), timeout_s=9, sleep=sleep, clock=lambda: now[0]
        )
    assert caught.value.cause is Cause.DISK_IO
    assert set(runner.ran) == {("partx", "--update", "/dev/cloner")}


def test_a_partition_that_stays_where_the_old_table_had_it_is_not_formatted(tmp_path: Path) -> None:
    """As when something held a partition open at the re-read: sfdisk succeeds, the kernel keeps its table."""
    sysfs, runner, now = Sysfs(tmp_path), FakeRunner(), [0.0]
    sysfs.disk("null", "1:3", at="pci0/null", start="2048", size="100")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(StageError, match=r"2048\+100 sectors, 4096\+100 wanted") as caught:
        wait_for_device(
            "/dev/null", "/dev/x", runner, place=(4096, 100), timeout_s=9, root=str(tmp_path), sleep=sleep,
            clock=lambda: now[0],
        )  # fmt: skip
    assert caught.value.cause is Cause.DEVICE_BUSY
    assert ("partx", "--update", "/dev/x") in runner.ran


def test_nobody_is_asked_for_leave_over_a_disk_that_does_not_take_what_was_written(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (scene.target / "boot/efi").mkdir(parents=True)
    ask(scene.attempt, Commit())
    assert scene.server.said == ["commit"]

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    scene.on["sync-filesystem"] = fail
    with pytest.raises(RestoreError, match="cannot write to the disk of /") as caught:
        ask(scene.attempt, Commit())
    assert cause_of(caught.value, Stage.COMMIT) is Cause.DISK_IO
    assert scene.server.said == ["commit"]


def test_what_was_there_before_is_not_looked_after(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    volumes = tuple(msgspec.structs.replace(one, is_kept=one.mount != "/") for one in scene.attempt.plan.volumes)
    scene.attempt.plan = msgspec.structs.replace(scene.attempt.plan, volumes=volumes)
    sync_mounts(scene.attempt)
    assert scene.happened == ["sync-filesystem"]


@pytest.mark.root
def test_a_write_that_the_kernel_gave_up_while_nobody_looked_is_told(tmp_path: Path) -> None:
    scene, place = Scene(tmp_path), tmp_path / "room"
    scene.attempt.tools = dataclasses.replace(scene.attempt.tools, machine=Machine())
    place.mkdir()
    run(("mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)))
    try:
        with (place / "disk").open("wb") as file:
            file.truncate(64 << 20)
        run(("mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(place / "disk")))
        run(("mount", "-o", "loop", str(place / "disk"), str(scene.target)))
        (scene.target / "boot/efi").mkdir(parents=True)
        sync_mounts(scene.attempt)
        (scene.target / "late").write_bytes(bytes(1 << 20))
        with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
            while True:  # until the disk has no room for a block at a new place
                filler.write(bytes(4096))
        os.sync()
        with pytest.raises(RestoreError) as caught:
            sync_mounts(scene.attempt)
        assert cause_of(caught.value, Stage.CHECK) is Cause.DISK_IO
    finally:
        unmount_all(run, str(scene.target))
        run(("umount", str(place)))


@pytest.mark.root
def test_a_filesystem_that_turned_read_only_is_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    run(("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(scene.target)))
    try:
        (scene.target / "boot/efi").mkdir(parents=True)
        sync_mounts(scene.attempt)
        run(("mount", "-o", "remount,ro", str(scene.target)))
        with pytest.raises(RestoreError, match="Read-only") as caught:
            sync_mounts(scene.attempt)
        assert cause_of(caught.value, Stage.CHECK) is Cause.DISK_IO
    finally:
        unmount_all(run, str(scene.target))


def test_everything_beneath_the_target_is_unmounted_children_first() -> None:
    runner = FakeRunner()
    mounted = ["/", "/mnt/target", "/mnt/target2", "/mnt/target/boot/efi", "/mnt/target/boot/efi"]
    runner.output["findmnt"] = json.dumps({"filesystems": [{"target": where} for where in mounted]})
    unmount_all(runner, "/mnt/target")
    assert runner.ran[1:] == [
        ("umount", "/mnt/target/boot/efi"),
        ("umount", "/mnt/target/boot/efi"),
        ("umount", "/mnt/target"),
    ]


class _Esp:
    """The ESP with its bind, played with directories: unmounting shows the real one."""

    def __init__(self, scene: Scene) -> None:
        self.where = scene.target / "boot/efi"
        self.real = scene.target.parent / "esp"
        self.where.mkdir(parents=True)
        scene.runner.effects[("umount", str(self.where))] = self._unbind

    def stage(self, path: str, content: bytes) -> None:
        file = self.where / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def _unbind(self) -> None:
        self.real.mkdir()
        self.where.rename(self.real / STAGING)
        self.real.rename(self.where)


def test_activation_moves_the_staged_children_up(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    esp = _Esp(scene)
    esp.stage("EFI/debian/shimx64.efi", b"MZ shim")
    esp.stage("EFI/BOOT/BOOTX64.EFI", b"MZ fallback")
    activate_esp(scene.attempt, ActivateEsp("/boot/efi"))
    assert (esp.where / "EFI/debian/shimx64.efi").read_bytes() == b"MZ shim"
    assert [path.name for path in esp.where.iterdir()] == ["EFI"]
    assert scene.happened == ["sync", "drop-caches"]


def test_a_cut_between_two_renames_leaves_an_esp_that_boots_nothing_or_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    scene.variables.write("Boot0001", build_load_option(LoadOption("disk", bytes.fromhex("7fff0400"))))
    scene.variables.write("Boot0004", build_load_option(PXE))
    scene.variables.write("BootOrder", build_order((1, 4)))
    scene.variables.write("BootCurrent", build_order((4,)))
    esp = _Esp(scene)
    wanted = {"EFI/debian/shimx64.efi", "loader/loader.conf", "vmlinuz", "ABOUT"}
    for path in wanted:
        esp.stage(path, b"MZ")
    seen: list[bool] = []
    rename = os.rename

    def cut(old: bytes, new: bytes, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if dst_dir_fd is None:
            return  # the false umount
        files = {str(path.relative_to(esp.where)) for path in esp.where.rglob("*") if path.is_file()}
        is_bootable = (esp.where / "EFI").exists()
        assert not is_bootable or files == wanted
        assert scene.variables.read("BootOrder") == build_order((4, 1)), "nobody knows of the clone before the receipt"
        seen.append(is_bootable)

    monkeypatch.setattr(os, "rename", cut)
    activate_esp(scene.attempt, ActivateEsp("/boot/efi"))
    assert seen == [False, False, False, True]


def test_an_esp_that_reads_back_differently_is_found_out(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    esp = _Esp(scene)
    esp.stage("EFI/debian/shimx64.efi", b"MZ shim")

    def corrupt() -> None:
        (esp.where / "EFI/debian/shimx64.efi").write_bytes(b"MZ shxm")

    scene.on["drop-caches"] = corrupt
    with pytest.raises(StageError, match="shimx64") as caught:
        activate_esp(scene.attempt, ActivateEsp("/boot/efi"))
    assert caught.value.cause is Cause.READBACK


def test_an_empty_staging_folder_is_not_committed(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    _Esp(scene)
    with pytest.raises(StageError) as caught:
        activate_esp(scene.attempt, ActivateEsp("/boot/efi"))
    assert caught.value.cause is Cause.NOT_BOOTABLE
    assert scene.runner.ran == []
