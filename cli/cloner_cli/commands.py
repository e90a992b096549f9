"""What all commands share: --json, --dry-run, an example in the help, and every fault of a command line at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource, iter_params_for_processing

from cloner_cli.invocation import Invocation
from cloner_cli.nodefile import NODE_FILE
from cloner_cli.text import parse_duration
from cloner_core.admin.deploying import MAX_NODES
from cloner_core.messages import ConfirmWay
from cloner_core.sizes import parse_bytes, parse_rate

F = TypeVar("F", bound=Callable[..., Any])
_SET_SIGNS = re.compile(r"[\[\],;@*?!&^\s]")
UNSET_WORD = "default"
"""On the command line: neither this nor that is set, so that what is behind it counts."""
METHODS = click.Choice(["exit", "sanboot", "efi-order", UNSET_WORD])
ORDERS = click.Choice(["network-first", "local-first", UNSET_WORD])
WAYS = click.Choice([way.value for way in ConfirmWay])
COUNT = click.IntRange(0, (1 << 63) - 1)
"""A number as the server's database can keep it."""


def said_setting(word: str | None) -> str | None:
    """Return `word` of METHODS or ORDERS as the server takes it: "" for `default`, None for nothing said."""
    return "" if word == UNSET_WORD else word


class FilePath(click.Path):
    """A path; an empty one, which a shell makes of a variable that is not set, is not this directory but a mistake."""

    def __init__(self, *, file_okay: bool = True, readable: bool = True, allow_dash: bool = False) -> None:
        super().__init__(path_type=Path, file_okay=file_okay, readable=readable, allow_dash=allow_dash)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("it is empty, and wants a path", param, ctx)
        return super().convert(value, param, ctx)


class Name(click.types.StringParamType):
    """A name; an empty one that was typed is a mistake, as with paths."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name; a default may be empty."""
        if value == "" and not _is_default(param, ctx):
            self.fail(f"'' is empty, and wants {param.metavar if param is not None else 'a name'}", param, ctx)
        return super().convert(value, param, ctx)


class NodeName(Name):
    """The name of one node, where a set of them is not understood."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name."""
        if _SET_SIGNS.search(str(value)):
            self.fail(f"'{value}' is not the name of one node", param, ctx)
        return super().convert(value, param, ctx)


def _is_default(param: click.Parameter | None, ctx: click.Context | None) -> bool:
    if param is None or ctx is None or param.name is None:
        return False
    return ctx.get_parameter_source(param.name) is not ParameterSource.COMMANDLINE


def _strict(param: click.Parameter) -> None:
    """Have a text that names something refuse what names nothing: required ones, and options that default to ""."""
    if param.type is not click.STRING or param.multiple or param.nargs != 1 or param.metavar in (None, "SET"):
        return
    if param.metavar == "NODE":
        param.type = NodeName()
    elif param.required or (param.default == "" and str(param.metavar).startswith(("NAME", "CHANNEL"))):
        param.type = Name()


class Seconds(click.FloatRange):
    """A time from 0 on; `nan`, which no time is ever later than, and infinity are none."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the seconds as a finite float."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return seconds


class Duration(click.ParamType[float]):
    """A span of time such as 90s, 24h or 7d; in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        try:
            return parse_duration(str(value))
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


class Size(click.ParamType[int]):
    """A size such as 512MiB or 50GiB; in bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        try:
            return parse_bytes(str(value))
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


class Rate(click.ParamType[int]):
    """A rate such as 100Mbit or 12MiB; in bytes a second."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes a second."""
        try:
            return parse_rate(str(value))
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


timeout_option = click.option(
    "--timeout", "timeout_s", type=Seconds(), metavar="SECONDS", help="Wait so long; exit status 9 after."
)


def _note_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Invocation).is_json = True


json_option = click.option(
    "--json", "is_json", is_flag=True, expose_value=False, callback=_note_json, help="Print the result as JSON."
)


def _note_socket(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).use_socket(value)


# Before the command and after it: people write both.
socket_option = click.option(
    "--socket",
    type=FilePath(readable=False),  # whoever may not open it is told so by the attempt
    expose_value=False,
    callback=_note_socket,
    help="The server's socket; $CLONER_SOCKET or /run/cloner/cloner.sock by default.",
)


def _note_server(ctx: click.Context, _param: click.Parameter, value: str) -> None:
    if value:
        ctx.ensure_object(Invocation).server = value


# Of commands that are typed on a golden node.
server_option = click.option(
    "--server",
    metavar="HOST[:PORT]",
    default="",
    expose_value=False,
    callback=_note_server,
    help=f"The server, when it is another machine; by default the one in {NODE_FILE}.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check everything and say what would happen; change nothing."
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
nodes_option = click.option(
    "--nodes", "-n", multiple=True, required=True, metavar="SET", help="Nodes: node[01-16],@rack1."
)
some_nodes_option = click.option(
    "--nodes", "-n", multiple=True, metavar="SET", help="Only these nodes: node[01-16],@rack1."
)
max_option = click.option(
    "--max",
    "limit",
    type=click.IntRange(min=1),
    default=MAX_NODES,
    show_default=True,
    metavar="COUNT",
    help="Above so many nodes their number must be typed.",
)
image_option = click.option(
    "--image",
    "-i",
    default="",
    metavar="NAME[:VERSION]",
    help="Image; VERSION is a number or a channel, the newest unless told.",
)
layout_option = click.option("--disklayout", "-l", default="", metavar="NAME", help="Layout of the disks.")
kernel_argument_option = click.option(
    "--kernel-argument", multiple=True, metavar="WORD", help="Added to the clone's kernel command line. Repeatable."
)


_UNCLEAR = (
    (re.compile(r"\n\t"), " "),  # choices, one a line
    (re.compile(r"is not a valid integer( range)?"), "is not a whole number"),
    (re.compile(r"is not a valid (float( range)?|seconds)"), "is not a number"),
)


def wording(fault: click.UsageError) -> str:
    """Return what click says of a command line, in one line and in words of ours where its own tell nothing."""
    text = fault.format_message()
    for unclear, clear in _UNCLEAR:
        text = unclear.sub(clear, text)
    return text


class Command(click.Command):
    """A command that names every wrong option, not only the first, and ends its help with an example."""

    example: str = ""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write_text(line)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; when anything is wrong, go on and collect what else is."""
        try:
            return super().parse_args(ctx, list(args))
        except (click.NoSuchOption, click.BadOptionUsage):
            raise  # nothing after it was understood
        except click.UsageError as first:
            faults = self._faults(ctx, args)
            if len(faults) < 2:
                raise
            raise click.UsageError("\n  - ".join((f"{len(faults)} faults:", *faults)), ctx) from first

    def _faults(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, left_over, order = self.make_parser(ctx).parse_args(args=list(args))
        faults = []
        for param in iter_params_for_processing(order, self.get_params(ctx)):
            try:
                _, left_over = param.handle_parse_result(ctx, given, left_over)
            except click.UsageError as fault:
                faults.append(wording(fault).rstrip("."))
        if left_over:
            faults.append(f"Got unexpected extra arguments: {' '.join(left_over)}")
        return faults


class Group(click.Group):
    """A noun with verbs."""

    command_class = Command


def command(name: str, *, example: str, group: click.Group | None = None) -> Callable[[F], Command]:
    """Return a decorator that makes a function a command with --json; it gets the Invocation first."""

    def decorate(function: F) -> Command:
        make = click.command(name, cls=Command)
        made: Command = make(socket_option(json_option(click.pass_obj(function))))
        made.example = example
        for param in made.params:
            _strict(param)
        if group is not None:
            group.add_command(made)
        return made

    return decorate
