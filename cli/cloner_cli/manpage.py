"""Manual pages made from the commands themselves: what `--help` says, in roff, a page for each command.

Pure: the same commands give the same bytes on every machine, at any time; so a page holds no date and no width.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

import click

from cloner_cli.statuses import exit_statuses

SECTION = 1
_WIDTH = 110
_MADE_BY = r'.\" Made by "cloner manual"'
_CODE = re.compile(r"`([^`]+)`")
_HELP_NAMES = ["-h", "--help"]


def pages(root: click.Command, name: str) -> dict[str, str]:
    """Return the pages of the command `name` and all beneath it, by file name."""
    top = click.Context(root, info_name=name, help_option_names=_HELP_NAMES)
    return {f"{_page(context)}.{SECTION}": _render(context) for context in _contexts(top)}


def is_ours(page: bytes) -> bool:
    """Whether a manual page was made here."""
    return page.startswith(_MADE_BY.encode())


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for context_beneath in _beneath(context, context.command):
            yield from _contexts(context_beneath)


def _beneath(context: click.Context, group: click.Group) -> Iterator[click.Context]:
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if found is not None:
            yield click.Context(found, info_name=name, parent=context)


def _page(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _render(context: click.Context) -> str:
    command = context.command
    page = _page(context)
    lines = [
        f"{_MADE_BY} from what {context.command_path} --help says; do not edit.",
        f'.TH {_escape(page.upper())} {SECTION} "" "Cloner" "Cloner manual"',
        *(".SH NAME", rf"{_escape(page)} \- {_inline(command.get_short_help_str(limit=1000))}"),
        *(".SH SYNOPSIS", ".nh", *_synopsis(context)),
        *(".SH DESCRIPTION", *_paragraphs(command.help or "")),
    ]
    if isinstance(command, click.Group):
        named = {f"{_page(one)}({SECTION})": one.command for one in _beneath(context, command)}
        told = {name: beneath.get_short_help_str(limit=1000) for name, beneath in named.items()}
        lines += [".SH COMMANDS", *_definitions(told)]
    if records := [found for one in command.get_params(context) if (found := one.get_help_record(context))]:
        lines += [".SH OPTIONS", *_definitions(dict(records))]
    lines += [".SH EXIT STATUS", *_definitions(dict(exit_statuses()))]
    if example := getattr(command, "example", ""):
        lines += [".SH EXAMPLE", ".nf", *(f"{_escape(line)}" for line in example.splitlines()), ".fi"]
    if related := list(_related(context)):
        shown = (rf".BR {_escape(name)} ({SECTION})" for name in related)
        lines += [".SH SEE ALSO", *(f"{line} ," for line in shown)]
        lines[-1] = lines[-1].removesuffix(" ,")
    return "\n".join(lines) + "\n"


def _synopsis(context: click.Context) -> list[str]:
    words = " ".join(context.command.collect_usage_pieces(context))
    return [rf".B {_escape(context.command_path)}", _wrapped(_escape(words))]


def _related(context: click.Context) -> Iterator[str]:
    """Give the pages of the root, of the group and of the others in it; never every command there is."""
    above = context.parent
    if above is None:
        return
    yield _page(context.find_root())
    if above.parent is not None and isinstance(above.command, click.Group):
        yield _page(above)
        yield from (name for one in _beneath(above, above.command) if (name := _page(one)) != _page(context))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", textwrap.dedent(_flush(text)).strip())):
        if number:
            yield ".PP"
        yield _inline(" ".join(paragraph.split()))


def _flush(text: str) -> str:
    """Return a docstring with its first line as far in as the others."""
    first, _, rest = text.partition("\n")
    return f"{first}\n{textwrap.dedent(rest)}"


def _definitions(told: Mapping[str, str]) -> Iterable[str]:
    for word, meaning in told.items():
        yield ".TP"
        yield rf"\fB{_escape(word)}\fR"
        yield _inline(meaning)


def _inline(text: str) -> str:
    return _wrapped(_CODE.sub(r"\\fB\1\\fR", _escape(text)))


def _wrapped(text: str) -> str:
    lines = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(rf"\&{line}" if line.startswith((".", "'")) else line for line in lines) or r"\&"


def _escape(text: str) -> str:
    """Return text that roff shows as it is, whatever the encoding of the terminal's system."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in escaped)
