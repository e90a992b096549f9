"""What is the golden node's goes, at any depth and never by way of a link."""

from __future__ import annotations

import os
from pathlib import Path

from agentbench.golden import CLOUD_INIT_KEPT, CLOUD_SECRET, add_cloud_init
from cloner_agent.rooted import Rooted
from cloner_agent.stages.identity import remove
from cloner_core.identity import REMOVALS, Removal


def files_beneath(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink()}


def test_nothing_that_cloud_init_was_given_stays_on_a_clone(tmp_path: Path) -> None:
    add_cloud_init(tmp_path)
    with Rooted(tmp_path) as tree:
        removed = remove(tree, REMOVALS)
        assert remove(tree, REMOVALS) == []
    assert files_beneath(tmp_path) == set(CLOUD_INIT_KEPT)
    assert not any(CLOUD_SECRET in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert list((tmp_path / "var/lib/cloud/instances").iterdir()) == []
    assert {"/var/lib/cloud/instance", "/var/lib/cloud/instances/**"} < set(removed)


def test_removing_follows_no_link_and_is_not_stopped_by_depth(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for path in (outside / "kept", root / "etc/kept", root / "deep/last"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (root / "deep/link").symlink_to("../etc")
    (root / "deep/out").symlink_to(outside)
    (root / "linked").symlink_to("etc")
    deepest = f"{root}/deep"
    for _ in range(1100):  # os.makedirs() is stopped by it
        deepest += "/d"
        os.mkdir(deepest)
    with Rooted(root) as tree:
        assert remove(tree, [Removal("/deep/**"), Removal("/linked/**"), Removal("/nowhere/**")]) == ["/deep/**"]
    assert files_beneath(tmp_path) == {"outside/kept", "root/etc/kept", "root/linked"}
    assert list((root / "deep").iterdir()) == []
