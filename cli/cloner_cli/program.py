"""What every program of ours does around its commands: finds them, and turns each refusal into a message and a status.

Commands are imported when they are named, so that `cloner task list` pays for nothing else.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import click

from cloner_cli.commands import Command, wording
from cloner_cli.invocation import Invocation
from cloner_cli.reporting import report, silence, tell
from cloner_cli.statuses import exit_statuses
from cloner_cli.text import encodable
from cloner_core.errors import ClonerError, ExitStatus, InvalidError, RefusedError

HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class _ReaderLeftError(Exception):
    """`cloner events | head`: the reader has what it wanted."""


@contextmanager
def _noticing_who_left() -> Iterator[None]:
    """Name a closed pipe before click sees it: its own `main` would exit with 1."""
    try:
        yield
    except BrokenPipeError as fault:
        raise _ReaderLeftError from fault


class Program(click.Command):
    """A command that is typed at the shell by itself; its name is the program's."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse; whatever prints its help here may find nobody who reads it."""
        with _noticing_who_left():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a stream of results ends when its reader leaves."""
        with _noticing_who_left():
            return super().invoke(ctx)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run, and exit with one of the documented statuses."""
        words = list(sys.argv[1:] if args is None else args)
        run = extra.pop("obj", None) or Invocation()
        sys.exit(int(self._run(words, run, **extra)))

    def _run(self, words: list[str], run: Invocation, **extra: Any) -> int:
        try:
            extra["standalone_mode"] = False
            if wrong := [word for word in words if encodable(word) != word]:
                # They become names, texts and paths in documents, all of them Unicode.
                raise InvalidError(
                    "the command line is not UTF-8", faults=[str(os.fsencode(word))[1:] for word in wrong]
                )
            if (socket := os.environ.get("CLONER_SOCKET")) and not run.is_socket_given:
                run.use_socket(Path(socket))  # what the command line says comes later
            status = super().main(words, self.name, obj=run, **extra)
            return status if isinstance(status, int) else ExitStatus.OK
        except ClonerError as error:
            fault: ClonerError = error
        except click.exceptions.NoArgsIsHelpError as error:
            tell(error.format_message())
            return ExitStatus.USAGE
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else self.name
            fault = InvalidError(wording(error), hint=f"{path} --help")
        except click.ClickException as error:
            fault = InvalidError(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            return ExitStatus.INTERRUPTED
        except _ReaderLeftError:
            silence(sys.stdout)
            return ExitStatus.OK
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("cloner_"):
                raise
            fault = RefusedError("this is a command of a server, and here is the kit of a golden node")
        except OSError as error:
            named = f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else str(error)
            fault = ClonerError(named)
        report(fault, is_json=run.is_json or "--json" in words)
        return fault.exit_status


class LoneCommand(Program, Command):
    """A program that is one command."""


class Verbs(Program, click.Group):
    """A program with commands, each in a module of its own."""

    modules: ClassVar[Mapping[str, str]] = {}
    """The module of each command; there it is the attribute `NAME_command`, with `_` for `-`."""
    example = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted(self.modules)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command `name`, importing its module now."""
        if name not in self.modules:
            return None
        found = getattr(importlib.import_module(self.modules[name]), name.replace("-", "_") + "_command")
        return found if isinstance(found, click.Command) else None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit statuses: scripts rely on them."""
        with formatter.section("Exit status"):
            formatter.write_dl(exit_statuses())
        formatter.write_paragraph()
        formatter.write_text(f"Example: {self.example}")
