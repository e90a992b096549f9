"""The layout of this machine beside the one the server keeps under that name: detected, compared, decided.

Used by `update-disklayout` and `new-image`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from cloner_cli.api import segment
from cloner_cli.asking import ask
from cloner_cli.invocation import Invocation
from cloner_cli.text import printable
from cloner_core.admin.images import LayoutView
from cloner_core.detection import Detected
from cloner_core.errors import NotFoundError, RefusedError
from cloner_core.image.options import Conflict
from cloner_core.layout import Layout, layout_differences

update_conflict_option = click.option(
    "--update-conflict",
    "conflict",
    type=click.Choice([one.value for one in Conflict]),
    default=Conflict.PROMPT.value,
    show_default=True,
    help="Where it differs from what the server keeps: show and ask, keep the server's, or store this one.",
)
exclude_devices_option = click.option(
    "--exclude-devices",
    "excludes",
    multiple=True,
    metavar="DEVICES",
    help="Disks never to be touched, partitions to be kept: /dev/sdb,sda3,model=INTEL*. Repeatable.",
)


def tell_notes(run: Invocation, detected: Detected) -> None:
    """Tell what a person should know about a layout that was found."""
    for note in detected.notes:
        run.say(printable(f"note: {note}"))


def newest(run: Invocation, name: str) -> LayoutView | None:
    """Return the newest number of a layout; None when there is none of that name."""
    try:
        return run.api.get(f"/v1/layouts/{segment(name)}", LayoutView)
    except NotFoundError:
        return None


def tell_differences(run: Invocation, kept: LayoutView, differences: Sequence[str]) -> None:
    """Show what is otherwise than the server has it."""
    run.say(f"layout {kept.name}:{kept.number} differs in {len(differences)} places:")
    for line in differences:
        run.say(printable(f"  {line}"))


def decide(
    run: Invocation, layout: Layout, kept: LayoutView, conflict: Conflict, *, is_yes: bool, is_dry: bool
) -> bool:
    """Whether `layout` is to be stored over the newest number that the server keeps; shows where they differ.

    Raises RefusedError where nobody can be asked, DeclinedError for a no.
    """
    differences = layout_differences(kept.layout, layout)
    if not differences:
        return False
    tell_differences(run, kept, differences)
    if conflict is Conflict.SERVER:
        run.say(f"note: layout {kept.name}:{kept.number} is kept as it is; what was found here is not stored")
        return False
    if conflict is Conflict.PROMPT and not is_dry:
        ask(run, f"Store it as {kept.name}:{kept.number + 1}?", is_yes=is_yes)
    return True


def require_equal(kept: LayoutView, layout: Layout) -> None:
    """Raise RefusedError that shows every difference unless `layout` is what the server keeps."""
    differences = layout_differences(kept.layout, layout)
    if differences:
        raise RefusedError(
            "\n  - ".join((f"layout {kept.name}:{kept.number} is another one", *differences)),
            hint="--update-conflict server takes the server's, commandline stores this one as its next number;"
            " or name another layout",
        )


def store(run: Invocation, layout: Layout, *, is_dry: bool) -> LayoutView:
    """Keep `layout` under the next number of its name."""
    parameters: dict[str, Any] = {"dry_run": is_dry}
    return run.api.post("/v1/layouts", LayoutView, layout, parameters)
