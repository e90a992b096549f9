"""What a tree lacks to boot, told before it is captured."""

from __future__ import annotations

from pathlib import Path

from cloner_agent.capture.booting import boot_lacks
from cloner_agent.rooted import Rooted

GRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"


def test_a_tree_that_could_not_boot_is_told_at_its_capture(tmp_path: Path) -> None:
    with Rooted(tmp_path) as tree:
        assert len(boot_lacks(tree, "x86_64")) == 2
        for name in ("boot/vmlinuz-6.1.0-1-amd64", GRUB):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).touch()
        assert boot_lacks(tree, "x86_64") == ()


def test_what_lies_outside_of_the_tree_is_none_of_it(tmp_path: Path) -> None:
    tree, other = tmp_path / "tree", tmp_path / "other"
    (other / "boot").mkdir(parents=True)
    (other / "boot/vmlinuz-6.1.0-1-amd64").touch()
    tree.mkdir()
    (tree / "boot").symlink_to(other / "boot")
    with Rooted(tree) as rooted:
        assert len(boot_lacks(rooted, "x86_64")) == 2
