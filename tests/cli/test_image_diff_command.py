"""`cloner image-diff`: what a person sees of the way from one version to another."""

from __future__ import annotations

from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_cli.imagediff import diff_text
from cloner_core.admin.differences import (
    ChangeCounts,
    Difference,
    DiffSide,
    DirectorySize,
    ImageDiff,
    PathChange,
)
from cloner_core.errors import ExitStatus

SIDE = DiffSide("debian", 1, "a" * 64, 1.8e9, "Debian GNU/Linux 12", "x86_64", 10, 1 << 20, 1 << 19, 300)
DIFF = ImageDiff(
    before=SIDE,
    after=DiffSide("debian", 2, "b" * 64, 1.8e9, "", "x86_64", 12, 3 << 20, 2 << 19, None),
    counts=ChangeCounts(3, 1, 2, 1, 7, 5),
    new_stored_bytes=1 << 19,
    packages=(Difference("bash", "5.1", "5.2"), Difference("new", "", "1"), Difference("old", "2", "")),
    unread=("rpm (/var/lib/rpm/Packages): not read; it differs",),
    kernels=(Difference("6.1.0-2", "", "kernel, modules"),),
    left_out=(Difference("/srv", "", "left out"),),
    etc=(PathChange("/etc/motd\x1b", "changed", "1 → 2 bytes"), PathChange("/etc/shadow", "metadata", "mode …")),
    etc_more=8,
    directories=(DirectorySize("/usr", 1 << 20, 3 << 20), DirectorySize("/var", 2048, 1024)),
)


@pytest.mark.parametrize(
    "line",
    [
        "before  debian:1 of ",
        "paths   3 added, 1 removed, 2 changed, 1 with other metadata, 7 with another time only, 5 the same",
        "size    +2.0 MiB; 512.0 KiB of packs that only the second needs",
        "packages: 3",
        "  ~ bash  5.1 → 5.2",
        "  + new  1",
        "  - old  2",
        "  rpm (/var/lib/rpm/Packages): not read; it differs",
        "  + 6.1.0-2  kernel, modules",
        "  + /srv  left out",
        "/etc: 10",
        "  ~ /etc/motd\\x1b  1 → 2 bytes",
        "  m /etc/shadow  mode …",
        "  and 8 more",
        "  +2.0 MiB  to 3.0 MiB  /usr",
        "  -1.0 KiB  to 1.0 KiB  /var",
    ],
)
def test_a_person_is_told_each_kind_of_difference(line: str) -> None:
    assert f"\n{line}" in f"\n{diff_text(DIFF)}"


def test_a_program_is_told_all_of_it(desk: Desk) -> None:
    told = desk.json("image-diff", "golden:1", "golden")
    assert (told["before"]["number"], told["counts"]["added"], told["etc"]) == (1, 0, [])
    assert "paths  " in desk.run("image-diff", "golden", "golden:1").stdout


def test_a_version_is_named_by_its_channel_as_well(desk: Desk, tmp_path: Path) -> None:
    set_ = desk.run("channel", "set", "--image", "golden", "--channel", "prod", "--version", "1")
    assert set_.exit_code == ExitStatus.OK, set_.output
    told = desk.json("image-diff", "golden:prod", "golden:1")
    assert (told["before"]["number"], told["after"]["number"]) == (1, 1)
    assert desk.json("image-verify", "--image", "golden:prod")["number"] == 1
    assert desk.json("config", "--image", "golden:prod", "--disklayout", "simple")["number"] == 1
    extract = ("image-extract", "--image", "golden:prod", "--to", str(tmp_path / "to"), "--dry-run", "--no-owners")
    assert desk.json(*extract)["number"] == 1
    assert desk.refused("image-verify", "--image", "golden:test").exit_code == ExitStatus.NOT_FOUND


def test_every_image_that_is_not_there_is_named(desk: Desk) -> None:
    result = desk.refused("image-diff", "golden:7", "nosuch")
    assert result.exit_code == ExitStatus.NOT_FOUND
    assert "golden:7" in result.stderr
    assert "nosuch" in result.stderr
    assert desk.refused("image-diff", "golden:X", "golden").exit_code == ExitStatus.USAGE
