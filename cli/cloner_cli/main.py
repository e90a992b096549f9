"""The entry of the `cloner` command: finds the command, and turns every refusal into a message and an exit status.

Commands are imported when they are named, so that `cloner task list` pays for nothing else.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cloner_cli.commands import json_option, socket_option
from cloner_cli.invocation import Invocation
from cloner_cli.reporting import report, silence, tell
from cloner_cli.statuses import exit_statuses
from cloner_cli.text import encodable
from cloner_core.errors import ClonerError, ExitStatus, InvalidError
from cloner_server import VERSION

COMMANDS = {
    "channel": "cloner_cli.channel",
    "config": "cloner_cli.config",
    "confirm": "cloner_cli.confirm",
    "console": "cloner_cli.console",
    "deploy": "cloner_cli.deploy",
    "disklayout": "cloner_cli.disklayout",
    "disklayout-list": "cloner_cli.disklayout",
    "disklayout-upload": "cloner_cli.disklayout",
    "erase": "cloner_cli.erase",
    "events": "cloner_cli.events",
    "failures": "cloner_cli.failures",
    "fit": "cloner_cli.fit",
    "fix-efiboot": "cloner_cli.efiboot",
    "group": "cloner_cli.group",
    "identify": "cloner_cli.identify",
    "identity": "cloner_cli.identity",
    "image": "cloner_cli.keep",
    "image-details": "cloner_cli.image",
    "image-diff": "cloner_cli.imagediff",
    "image-extract": "cloner_cli.extract",
    "image-list": "cloner_cli.image",
    "image-remove": "cloner_cli.imageremove",
    "image-verify": "cloner_cli.imageverify",
    "init": "cloner_cli.init",
    "initramfs": "cloner_cli.initramfs",
    "known-hosts": "cloner_cli.identity",
    "layout": "cloner_cli.layout",
    "machine": "cloner_cli.machine",
    "manual": "cloner_cli.manual",
    "model": "cloner_cli.model",
    "netboot": "cloner_cli.netboot",
    "new-image": "cloner_cli.capture",
    "node": "cloner_cli.node",
    "plan": "cloner_cli.plan",
    "receipt": "cloner_cli.receipt",
    "script": "cloner_cli.script",
    "serve": "cloner_cli.serve",
    "state": "cloner_cli.state",
    "status": "cloner_cli.status",
    "store": "cloner_cli.store",
    "task": "cloner_cli.task",
    "token": "cloner_cli.token",
    "update-disklayout": "cloner_cli.disklayout",
    "update-filesystem": "cloner_cli.capture",
    "update-options": "cloner_cli.captureoptions",
    "watch": "cloner_cli.watch",
}
"""The module of each command; there it is the attribute `NAME_command`, with `_` for `-`."""


class _ReaderLeftError(Exception):
    """`cloner events | head`: the reader has what it wanted."""


@contextmanager
def _noticing_who_left() -> Iterator[None]:
    """Name a closed pipe before click sees it: its own `main` would exit with 1."""
    try:
        yield
    except BrokenPipeError as fault:
        raise _ReaderLeftError from fault


class Root(click.Group):
    """The command `cloner`."""

    example = "cloner deploy --nodes node[01-02] --image debian --wait"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command `name`, importing its module now."""
        if name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(COMMANDS[name]), name.replace("-", "_") + "_command")
        return found if isinstance(found, click.Command) else None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit statuses: scripts rely on them."""
        with formatter.section("Exit status"):
            formatter.write_dl(exit_statuses())
        formatter.write_paragraph()
        formatter.write_text(f"Example: {self.example}")

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
            status = super().main(words, "cloner", obj=run, **extra)
            return status if isinstance(status, int) else ExitStatus.OK
        except ClonerError as error:
            fault: ClonerError = error
        except click.exceptions.NoArgsIsHelpError as error:
            tell(error.format_message())
            return ExitStatus.USAGE
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "cloner"
            fault = InvalidError(error.format_message(), hint=f"{path} --help")
        except click.ClickException as error:
            fault = InvalidError(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            return ExitStatus.INTERRUPTED
        except _ReaderLeftError:
            silence(sys.stdout)
            return ExitStatus.OK
        except OSError as error:
            named = f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else str(error)
            fault = ClonerError(named)
        report(fault, is_json=run.is_json or "--json" in words)
        return fault.exit_status


@click.command(cls=Root, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@socket_option
@json_option
@click.version_option(VERSION, message="%(prog)s %(version)s")
@click.pass_obj
def cli(run: Invocation) -> None:
    """Turn one configured machine into an image, and put it on many, each with its own identity."""
    if (named := os.environ.get("CLONER_SOCKET")) and not run.is_socket_given:
        run.use_socket(Path(named))


def main() -> int:
    """Run the command line of this process; exits."""
    cli.main()
    return 0


if __name__ == "__main__":
    main()
