"""Questions to a person: only on a terminal; elsewhere the way to do without one is named."""

from __future__ import annotations

import click

from cloner_cli.invocation import Invocation
from cloner_core.errors import ClonerError, ExitStatus, RefusedError


class DeclinedError(ClonerError):
    """The person said no."""

    exit_status = ExitStatus.REFUSED


def ask(run: Invocation, question: str, *, is_yes: bool) -> None:
    """Return when the answer is yes; raises DeclinedError for no, RefusedError where nobody can be asked."""
    if is_yes:
        return
    if not run.world.can_ask():
        raise RefusedError("this wants a yes, and there is no terminal to ask at", hint="--yes says it")
    if not click.confirm(question, err=True):
        raise DeclinedError("nothing was changed")


def ask_count(run: Invocation, count: int, limit: int) -> None:
    """Have the number of nodes typed when it is above `limit`; --yes does not answer this."""
    if count <= limit:
        return
    hint = f"--max {count} says that you mean so many"
    if not run.world.can_ask():
        raise RefusedError(f"{count} nodes are named, at most {limit} are taken without saying so", hint=hint)
    typed = click.prompt(f"This destroys the disks of {count} nodes. Type their number to go on", err=True)
    if typed.strip() != str(count):
        raise DeclinedError(f"'{typed.strip()}' is not {count}; nothing was changed", hint=hint)
