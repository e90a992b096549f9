"""`cloner confirm`: hand over what a clone's console said, where that is how it confirms."""

from __future__ import annotations

from pathlib import Path

import click

from cloner_cli.commands import FilePath, command, dry_run_option
from cloner_cli.documents import read_input
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns
from cloner_core.admin.consoles import ConsoleOutcome, ConsoleReport
from cloner_core.confirmation import console_lines
from cloner_core.errors import NotFoundError, RefusedError

_MOST_BYTES = 256 << 20


@command("confirm", example="cloner confirm --console /var/log/conserver/node01.log")
@click.option(
    "--console",
    "path",
    type=FilePath(),
    required=True,
    metavar="FILE",
    help="What consoles said, of one node or of many; - is stdin.",
)
@dry_run_option
def confirm_command(run: Invocation, path: Path, dry_run: bool) -> None:
    """Confirm clones by the lines they said on their consoles (nodes with --confirm console).

    Give it the whole log: only lines of clones are sent to the server, and a line it has taken before is no fault.
    """
    lines = console_lines(read_input(path, _MOST_BYTES, hint="give its end: tail -c 100M"))
    if not lines:
        raise NotFoundError(
            f"no clone has said on this console that it booted: '{path}' holds no line CLONER-CONFIRM",
            hint="it comes once the clone is up; is it a console of its kernel, and the node's way 'console'?",
        )
    outcomes = run.api.post("/v1/confirmations", list[ConsoleOutcome], ConsoleReport(lines), {"dry_run": dry_run})
    good = "would be confirmed" if dry_run else "confirmed"
    rows = [(one.node or "?", one.task_id, one.refusal or good) for one in outcomes]
    run.result(outcomes, lambda: columns(("NODE", "TASK", "OUTCOME"), rows))
    if not any(not one.refusal for one in outcomes):
        raise RefusedError("none of these lines confirms a clone", hint="cloner events says why")
