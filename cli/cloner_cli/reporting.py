"""What goes to stdout and stderr, and errors as a person or a program reads them; those always on stderr."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click
import msgspec

from cloner_cli.text import encodable, printable
from cloner_core.errors import ClonerError, InvalidError
from cloner_core.messages import Fault


def report(error: ClonerError, *, is_json: bool) -> None:
    """Print `error`: as text with its hint, or with `is_json` as one line of JSON, a `Fault`."""
    if not is_json:
        tell(printable(f"cloner: {error.message}", keep="\n"))
        if error.hint:
            tell(printable(f"hint: {error.hint}", keep="\n"))
        return
    headline, *listed = error.message.split("\n  - ")
    faults = error.faults if isinstance(error, InvalidError) else tuple(listed)
    fault = Fault(
        error=encodable(headline),
        hint=encodable(error.hint),
        faults=tuple(map(encodable, faults)),
        status=int(error.exit_status),
    )
    tell(msgspec.json.encode(fault).decode())


def tell(text: str) -> None:
    """Print a line on stderr. Where nobody reads it any more, the work goes on and ends with its own status."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        silence(sys.stderr)


def give(text: str | bytes) -> None:
    """Print a result on stdout; a reader who left (`| head`) does not change how the work ended."""
    try:
        click.echo(text)
    except BrokenPipeError:
        silence(sys.stdout)


def silence(stream: TextIO) -> None:
    """Send what is still written to a stream nobody reads to nowhere; else Python complains when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
