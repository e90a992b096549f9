"""Layouts with a filesystem for a folder that the source kept elsewhere or did not have: filled, never shadowed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agentbench.golden import GOLDEN_UUID, make_golden
from agentbench.loop import LoopDisk, loop_disk, target_directory
from agentbench.node import Node, make_node
from agentbench.scene import layout
from agentbench.store_server import StoreServer
from cloner_agent.host import run
from cloner_core.layout import Filesystem, Layout, Partition, Size
from cloner_core.sizes import MIB

pytestmark = pytest.mark.root


def _with(*mounts: str) -> Layout:
    """Return the plain layout with a small ext4 for each of `mounts` before the root."""
    plain = layout()
    esp, swap, root = plain.disks[0].partitions
    size = Size(32 * MIB, 32 * MIB)
    more = (Partition(role="data", size=size, content=Filesystem(kind="ext4", mount=mount)) for mount in mounts)
    return Layout(
        name="parted", disks=(type(plain.disks[0])(plain.disks[0].id, plain.disks[0].select, (esp, swap, *more, root)),)
    )


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    root = make_golden(tmp_path / "golden")
    for path, content in {"home/anna/letter": b"dear\n", "var/log/syslog": b"golden boot\n"}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    # Left by a copy of another filesystem's top: a folder like any other, and it stays.
    (root / "srv/old/lost+found").mkdir(parents=True)
    (root / "var/lost+found").mkdir()
    (root / "var").chmod(0o711)
    return root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    with loop_disk(tmp_path / "disk", 320 * MIB) as made:
        yield made


@pytest.fixture
def node(tmp_path: Path, golden: Path, disk: LoopDisk) -> Iterator[Node]:
    with loop_disk(tmp_path / "spare", MIB) as spare, target_directory(tmp_path / "target") as target:
        yield make_node(tmp_path, StoreServer(tmp_path / "store", golden), disk, spare, target)


def test_folders_of_the_image_fill_the_partitions_the_layout_gives_them(node: Node) -> None:
    node.layout = _with("/home", "/var")
    failure = node.deploy()
    assert failure is None, failure.message
    for number, path, content in ((3, "anna/letter", b"dear\n"), (4, "log/syslog", b"golden boot\n")):
        run(("mount", f"{node.disk.device}p{number}", str(node.target)))
        assert (node.target / path).read_bytes() == content
        mode = node.target.stat().st_mode & 0o777
        run(("umount", str(node.target)))
        assert mode == {3: 0o755, 4: 0o711}[number]
    run(("mount", f"{node.disk.device}p5", str(node.target)))
    assert list((node.target / "home").iterdir()) == [], "files under the mount point would be shadowed"
    assert list((node.target / "var").iterdir()) == []
    assert (node.target / "srv/old/lost+found").is_dir()


def test_a_mount_point_that_the_image_does_not_have_becomes_an_empty_filesystem(node: Node) -> None:
    node.layout = _with("/srv/data/deep")
    failure = node.deploy()
    assert failure is None, failure.message
    run(("mount", f"{node.disk.device}p4", str(node.target)))
    assert (node.target / "srv/data/deep").is_dir()
    assert (node.target / "home/anna/letter").exists()
    assert "/srv/data/deep" in (node.target / "etc/fstab").read_text()


def test_a_receipt_over_files_whose_names_are_no_utf8_can_be_sent(node: Node, golden: Path) -> None:
    folder = golden / "etc/default/grub.d"
    folder.mkdir()
    (folder / os.fsdecode(b"M\xfcller.cfg")).write_text(f"GRUB_DEVICE=UUID={GOLDEN_UUID}\n")
    node.server = StoreServer(golden.parent / "second", golden)
    failure = node.deploy()
    assert failure is None, failure.message
    (body,) = node.server.receipts
    assert any("ller.cfg" in path for path in body.rewritten)
    assert msgspec.json.encode(body)
