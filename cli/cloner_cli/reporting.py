"""Errors as a person or a program reads them; always on stderr."""

from __future__ import annotations

import click
import msgspec

from cloner_cli.text import printable
from cloner_core.errors import ClonerError, InvalidError
from cloner_core.messages import Fault


def report(error: ClonerError, *, is_json: bool) -> None:
    """Print `error`: as text with its hint, or with `is_json` as one line of JSON, a `Fault`."""
    if not is_json:
        click.echo(printable(f"cloner: {error.message}", keep="\n"), err=True)
        if error.hint:
            click.echo(printable(f"hint: {error.hint}", keep="\n"), err=True)
        return
    headline, *listed = error.message.split("\n  - ")
    faults = error.faults if isinstance(error, InvalidError) else tuple(listed)
    fault = Fault(error=headline, hint=error.hint, faults=faults, status=int(error.exit_status))
    click.echo(msgspec.json.encode(fault), err=True)
