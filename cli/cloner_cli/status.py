"""`cloner status`: the server at a glance."""

from __future__ import annotations

from cloner_cli.commands import command
from cloner_cli.events import event_line
from cloner_cli.invocation import Invocation
from cloner_cli.text import fields
from cloner_core.admin.tasks import Status
from cloner_core.sizes import format_bytes


@command("status", example="cloner status")
def status_command(run: Invocation) -> None:
    """Show version, services, counts and the alarms of the last day."""
    status = run.api.get("/v1/status", Status)
    run.result(status, lambda: status_fields(status))


def status_fields(status: Status) -> str:
    """Return the status as text."""
    tasks = ", ".join(f"{count} {state}" for state, count in sorted(status.tasks.items()))
    shown: list[tuple[str, object]] = [
        ("version", status.version),
        ("address", status.address),
        ("services", ", ".join(status.services)),
        ("nodes", status.nodes),
        ("versions", status.images),
        ("tasks", tasks or "none"),
        ("free", format_bytes(status.free_bytes)),
        ("warnings", "\n".join(status.warnings) or "none"),
        ("alarms", "\n".join(map(event_line, status.alarms)) or "none"),
    ]
    return fields(shown)
