"""`cloner config`: all that an image and a layout bring to a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus


def test_what_a_node_gets_is_shown(desk: Desk) -> None:
    text = desk.run("config", "--image", "golden", "--disklayout", "simple:1").stdout
    store = desk.scene.core.catalog.store
    for said in (
        "golden:1 (the newest)",
        store.version("golden").version,
        f"in {len(desk.scene.image.packs)} packs to fetch",
        "inodes at /",
        "scripts    none",
        "layout     simple:1 of ",
        "/boot/efi",
    ):
        assert said in text


def test_a_program_gets_the_layout_as_a_document_and_the_scripts_by_name(desk: Desk, tmp_path: Path) -> None:
    script = tmp_path / "look.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    added = desk.run("script", "--image", "golden", "--type", "pre", "--set", str(script))
    assert added.exit_code == ExitStatus.OK, added.output
    told = desk.json("config", "--image", "golden:1", "--disklayout", "simple")
    assert (told["scripts"], told["scripts_number"]) == (["pre-script look"], 1)
    assert told["layout"]["layout"]["disks"][0]["id"] == "system"
    assert told["stored_bytes"] == sum(len(pack.stored) for pack in desk.scene.image.packs)
    assert [each["mount"] for each in told["filesystems"]] == ["/"]


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        (("--image", "nosuch", "--disklayout", "none"), ExitStatus.NOT_FOUND, ("nosuch", "none")),
        (("--image", "golden:9", "--disklayout", "simple"), ExitStatus.NOT_FOUND, ("golden:9",)),
        (("--image", "golden", "--disklayout", "simple:7"), ExitStatus.NOT_FOUND, ("simple:7",)),
        (("--image", "golden", "--disklayout", "simple:x"), ExitStatus.USAGE, ("'x'",)),
    ],
)
def test_what_is_not_there_is_named(
    desk: Desk, words: tuple[str, ...], status: ExitStatus, named: tuple[str, ...]
) -> None:
    result = desk.refused("config", *words)
    assert result.exit_code == status
    assert all(name in result.stderr for name in named)
