"""Debian's own tool makes an initramfs behind the walls, for a machine whose disks it does not see."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentbench.archive import archive
from agentbench.loop import target_directory
from agentbench.scene import Scene
from agentbench.sysfs import Sysfs
from cloner_agent.host import run
from cloner_agent.stages.initramfs import check_initramfs
from cloner_core.steps import CheckInitramfs
from cloner_initramfs import Cache, default_cache
from vmlab.golden_debian import golden_debian

pytestmark = [pytest.mark.root, pytest.mark.slow]

PVSCSI = "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc00i00"


@contextmanager
def copy_of(tree: Path, directory: Path) -> Iterator[Path]:
    """Mount a tree that may be changed, and is not."""
    for name in ("upper", "work"):
        (directory / name).mkdir()
    with target_directory(directory / "clone") as clone:
        layers = f"lowerdir={tree},upperdir={directory}/upper,workdir={directory}/work"
        run(("mount", "-t", "overlay", "-o", layers, "overlay", str(clone)))
        yield clone


def test_an_initramfs_for_another_machine_is_made_anew_by_the_image_itself(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    sysfs = Sysfs(tmp_path / "machine")
    sysfs.disk("vda", "254:0", at="pci0000:00/0000:01:00.0/host0")
    sysfs.bind("pci0000:00/0000:01:00.0", "vmw_pvscsi", PVSCSI)
    with copy_of(golden_debian(Cache(default_cache())), tmp_path) as clone:
        (initramfs,) = clone.glob("boot/initrd.img-*")
        initramfs.write_bytes(archive({"init": b"for one machine alone"}))
        (clone / "etc/initramfs-tools/initramfs.conf").write_text("MODULES=dep\nCOMPRESS=zstd\n")
        (clone / "etc/initramfs-tools/conf.d/golden").unlink()
        attempt = scene.attempt
        attempt.tools = dataclasses.replace(attempt.tools, target=str(clone), machine_root=str(tmp_path / "machine"))
        check_initramfs(attempt, CheckInitramfs())
        (note,) = attempt.tools.reporter.notes
        assert "was made anew by update-initramfs: it lacks scsi_common, scsi_mod, vmw_pvscsi for disk" in note
        assert initramfs.stat().st_size > 5 << 20
        assert list((clone / "etc/initramfs-tools/conf.d").iterdir()) == []
        check_initramfs(attempt, CheckInitramfs())
        assert attempt.tools.reporter.notes == [note], "the second time nothing is missing"
