"""The manual pages: made from the commands, the same as those in docs/man, and nothing lost on the way."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from clibench.desk import Desk
from cloner_cli.commands import command
from cloner_cli.main import cli
from cloner_cli.manpage import pages
from cloner_cli.manual import all_pages
from cloner_core.errors import ExitStatus

MAN = Path(__file__).parents[2] / "docs" / "man"
REMEDY = "./run cloner manual --to docs/man"
MACROS = {"TH", "SH", "nh", "B", "BR", "PP", "TP", "nf", "fi"}


def shown(page: str) -> str:
    """Return a page as its reader has it, as far as its words go: what roff takes away is away."""
    text = re.sub(r"\\\[u([0-9A-F]{4,6})\]", lambda one: chr(int(one[1], 16)), page)
    for sign, stands_for in ((r"\fB", ""), (r"\fR", ""), (r"\&", ""), (r"\-", "-"), (r"\e", "\\")):
        text = text.replace(sign, stands_for)
    return " ".join(text.split())


def test_the_pages_in_the_documents_are_those_of_the_commands() -> None:
    made = all_pages(cli)
    kept = {path.name: path.read_text() for path in MAN.glob("*.1")}
    assert sorted(made) == sorted(kept), REMEDY
    assert [name for name, text in made.items() if kept[name] != text] == [], REMEDY


def test_a_page_has_every_section_and_every_word_of_the_help() -> None:
    for name, page in all_pages(cli).items():
        found = re.findall(r"^\.SH (.+)$", page, re.MULTILINE)
        assert found[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"], name
        assert "EXIT STATUS" in found, name
        assert {line[1:].split()[0] for line in page.splitlines() if line.startswith(".")} - MACROS == {'\\"'}, name
        assert not any(line.startswith("'") for line in page.splitlines()), name
    told = shown(all_pages(cli)["cloner-node-set.1"])
    group = cli.get_command(click.Context(cli), "node")
    assert isinstance(group, click.Group)
    for param in group.commands["set"].params:
        assert " ".join((getattr(param, "help", "") or "").replace("`", "").split()) in told


def test_what_roff_would_take_for_its_own_is_shown_as_it_is() -> None:
    @command("odd", example=r"cloner odd C:\dir --x '.hidden'")
    def odd(_: object) -> None:
        """.SH is no macro here, \\fB no font, – no question mark.

        'quoted' begins a line, `--code` is set apart.
        """

    page = pages(odd, "odd")["odd.1"]
    assert "\n.SH is" not in page
    assert "\n'quoted'" not in page
    assert r"\fB\-\-code\fR" in page
    assert page.isascii()
    told = shown(page)
    assert ".SH is no macro here" in told
    assert r"\efB no font, \[u2013] no question mark" in page
    assert r"C:\dir --x '.hidden'" in told


def test_pages_are_written_and_those_of_former_commands_go(desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / "man" / "man1"
    assert desk.run("manual", "--to", str(place), "--dry-run").exit_code == 0
    assert not place.exists()
    told = desk.json("manual", "--to", str(place))
    assert sorted(path.name for path in place.iterdir()) == told["pages"]
    (place / "cloner-gone.1").write_text((place / "cloner-deploy.1").read_text())
    (place / "cloner-theirs.1").write_text(".TH THEIRS 1\n")
    (place / "ls.1").write_bytes(b"\xff")
    assert desk.json("manual", "--to", str(place))["removed"] == ["cloner-gone.1"]
    assert (place / "cloner-theirs.1").exists()
    assert (place / "ls.1").exists()


def test_a_place_that_is_no_directory_is_told(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file", "file/beneath"):
        result = desk.refused("manual", "--to", str(tmp_path / place))
        assert result.exit_code == ExitStatus.USAGE


@pytest.mark.root
def test_a_formatter_finds_nothing_to_complain_of() -> None:
    """A program, so not among the unit tests; a page has no date, for it would differ each day."""
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *sorted(MAN.glob("*.1"))], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stdout.splitlines() if 'missing date, using ""' not in line] == []
    for path in MAN.glob("*.1"):
        assert path.name in done.stdout, "the formatter has read every page"
