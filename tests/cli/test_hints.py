"""What the code and its documents tell a person to type exists: every `cloner …` is held against the command tree."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cloner_cli.main import cli

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("agent", "server", "pxe", "initramfs", "cli", "vm-tests/vmlab")
# A command in a text: at its start, in quotes or backticks, or after a word that introduces one. A name in braces
# (of an f-string) or in capitals stands for a value.
COMMAND = re.compile(r"(?:^|[`'\"]|\$ |: |; |, |\bor |\brun )cloner((?: [^\s`'\";,()]+)+)")
# What is signed or derived begins with such words (docs/image-format.md, docs/api.md); nobody types them.
STATEMENT = re.compile(r"cloner (?:proof|receipt|version|pack map|version record) 1\b|cloner \d")


def texts(tree: ast.AST) -> Iterator[str]:
    """Give every text of a module, an f-string as one with {} for what it fills in."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def commands_in(text: str) -> Iterator[list[str]]:
    """Give the words of each command a text names."""
    for match in COMMAND.finditer(STATEMENT.sub("", text)):
        yield match[1].split()


def fault_of(words: list[str]) -> str:
    """Return why these words are no command of ours; "" when they are one."""
    group: click.Command = cli
    context = click.Context(cli)
    rest = list(words)
    while isinstance(group, click.Group):
        # Options of every level are taken before the command: --socket PATH, --json.
        while rest and rest[0] in ("--json", "--socket"):
            del rest[: 2 if rest[0] == "--socket" else 1]
        if not rest or rest[0].rstrip(".…") in ("", "{}", "COMMAND", "--help", "--version"):
            return ""
        found = group.get_command(context, rest[0].rstrip(".…")) or getattr(group, "default_command", None)
        if found is None:
            return f"cloner {' '.join(words)}: there is no '{rest[0]}'"
        group = found
        del rest[0]
    known = {text for param in group.params for text in (*param.opts, *param.secondary_opts)} | {"--help"}
    wrong = [word for word in rest if re.match(r"--[a-z]", word) and word.partition("=")[0].rstrip(".:") not in known]
    return f"cloner {' '.join(words)}: it has no {', '.join(wrong)}" if wrong else ""


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py"))


def test_every_command_that_the_code_names_exists() -> None:
    named = [
        (path, words)
        for path in modules()
        for text in texts(ast.parse(path.read_text()))
        for words in commands_in(text)
    ]
    assert len(named) > 80, "the search finds what it should"
    faults = [f"{path.relative_to(CHECKOUT)}: {fault}" for path, words in named if (fault := fault_of(words))]
    assert faults == []


@pytest.mark.parametrize("path", sorted((CHECKOUT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_every_command_that_a_document_names_exists(path: Path) -> None:
    words = [
        found for line in path.read_text().splitlines() for found in commands_in(line.replace("# cloner", "$ cloner"))
    ]
    assert [fault for each in words if (fault := fault_of(each))] == []


def test_every_example_parses_with_its_own_command() -> None:
    faults = []
    for path in modules():
        for match in re.finditer(r'example="(cloner [^"]+)"', path.read_text()):
            faults.append(fault_of(shlex.split(match[1])[1:]))
    assert len(faults) > 25
    assert [fault for fault in faults if fault] == []


@pytest.mark.parametrize(
    ("text", "is_fault"),
    [
        ("run 'cloner image-forget'", True),
        ("cloner node set {} --forget-hardware, then task retry", False),
        ("cloner node set {} --forget", True),
        ("wait for it, or: cloner task abort {}", False),
        ("`cloner task stop`", True),
        ("hint: 'cloner store gc'", False),
    ],
)
def test_the_search_tells_commands_that_exist_from_others(text: str, is_fault: bool) -> None:
    (words,) = commands_in(text)
    assert bool(fault_of(words)) == is_fault
