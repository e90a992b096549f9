"""`cloner events`: the audit."""

from __future__ import annotations

import click
import msgspec

from cloner_cli.commands import COUNT, command
from cloner_cli.invocation import Invocation
from cloner_cli.text import moment, printable
from cloner_core.admin.tasks import EventView
from cloner_core.errors import UnreachableError

_FOLLOW_EVERY_S = 0.5
_PAGE = 1000


@command("events", example="cloner events --object node/node01 --follow")
@click.option("--follow", "-F", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--after", type=COUNT, metavar="ID", help="From the one after this on.")
@click.option("--object", "subject", default="", metavar="OBJECT", help="Only of node/NAME, task/ID, image/NAME:N, ….")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=_PAGE, show_default=True, help="At most so many: the newest."
)
def events_command(run: Invocation, *, follow: bool, after: int | None, subject: str, limit: int) -> None:
    """Print who did what to which object, and when, oldest first. With --follow and --json, one line of JSON each."""
    page = _fetch(run, after, subject, limit)
    after = after or 0
    if subject and "/" not in subject and subject not in ("site", "store"):
        run.say(f"note: objects are named with their kind, as node/{subject} or task/{subject}")
    if not follow:
        run.result(page, lambda: "\n".join(map(event_line, page)))
        return
    while True:
        for event in page:
            run.result_line(event, lambda shown=event: event_line(shown))  # type: ignore[misc]
            after = event.id
        if not page:
            run.world.sleep(_FOLLOW_EVERY_S)
        try:
            page = _fetch(run, after, subject, _PAGE)
        except UnreachableError:
            page = []  # it was there a moment ago; it may be restarting


def event_line(event: EventView) -> str:
    """Return one event as a line."""
    told = " ".join(
        f"{name}={value if isinstance(value, str) else _json(value)}" for name, value in event.detail.items()
    )
    alarm = "ALARM " if event.is_alarm else ""
    text = f"{event.id} {moment(event.time_s)} {alarm}{event.author}: {event.object} {event.what} {told}"
    return printable(text.rstrip())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _fetch(run: Invocation, after: int | None, subject: str, limit: int) -> list[EventView]:
    return run.api.get("/v1/events", list[EventView], {"after": after, "subject": subject, "limit": limit})
