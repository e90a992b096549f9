"""The options of a capture that are kept with an image: those given here beside those the server has.

Used by the commands that capture, and by `cloner update-options`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import click

from cloner_cli.api import segment
from cloner_cli.asking import ask
from cloner_cli.checking import Checks
from cloner_cli.commands import command, dry_run_option, server_option, yes_option
from cloner_cli.detected import exclude_devices_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, printable
from cloner_core.admin.options import OptionsChange, OptionsView
from cloner_core.errors import InvalidError
from cloner_core.image.options import (
    DIFFERENCE_TITLES,
    Conflict,
    GivenOptions,
    StoredOptions,
    difference_rows,
    differences_of,
    settle,
)

_COMMA = re.compile(r"(?<!\\),")

exclude_paths_option = click.option(
    "--exclude-paths",
    multiple=True,
    metavar="PATHS",
    help="Left out: /srv/data,/var/log/*; a comma of a name is written \\,. Repeatable.",
)
disklayout_option = click.option(
    "--disklayout", "-l", metavar="NAME", help="The layout it is meant for; the one kept with the image unless told."
)


def split_list(texts: Sequence[str]) -> tuple[str, ...] | None:
    """Return the values of a list that may be repeated and holds commas; None when it was not given at all."""
    if not texts:
        return None
    words = (word.strip().replace("\\,", ",") for text in texts for word in _COMMA.split(text))
    return tuple(word for word in words if word)


def given_options(disklayout: str | None, exclude_paths: Sequence[str], exclude_devices: Sequence[str]) -> GivenOptions:
    """Return what the command line says."""
    return GivenOptions(disklayout, split_list(exclude_paths), split_list(exclude_devices))


def stored_options(run: Invocation, image: str) -> OptionsView:
    """Return what the server keeps with `image`, which need not be there yet."""
    return run.api.get(f"/v1/images/{segment(image)}/options", OptionsView)


@dataclass(frozen=True, slots=True)
class Agreed:
    """The options that count."""

    options: StoredOptions
    is_new: bool  # the server is to keep them
    revision: int  # of those that it keeps now
    conflicts: tuple[tuple[str, str, str], ...] = ()  # what is otherwise than stored: flag, stored, given


def agree(
    run: Invocation, image: str, given: GivenOptions, conflict: Conflict, *, is_yes: bool, is_dry: bool
) -> Agreed:
    """Return the options that count for a capture of `image`; shows and asks where those kept are others.

    Raises InvalidError with every fault, RefusedError where somebody is to be asked and nobody can be (with --yes
    nobody is: which options count is not a thing to be nodded through), DeclinedError for a no.
    """
    kept = stored_options(run, image)
    settled = settle(kept.options, given, conflict, can_ask=is_dry or (run.world.can_ask() and not is_yes))
    rows = difference_rows(settled.differences)
    if rows:
        run.say(f"the options kept with {image} are others than those given:")
        run.say(columns(DIFFERENCE_TITLES, rows))
    for flag in settled.ignored:
        run.say(printable(f"note: ignored: {flag}"))
    if settled.is_asked and not is_dry:
        ask(run, "Take and keep those given?", is_yes=False)
    return Agreed(settled.options, settled.options != kept.options, kept.revision, tuple(rows))


def _no_conflict(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            "--update-conflict means nothing here: update-options is how stored options are changed, so what is given"
            " counts always; what would change is shown first (--dry-run), and asked"
        )


@command("update-options", example="cloner update-options --image debian --exclude-paths /srv/data,/var/log/*")
@server_option
@click.option("--image", "-i", required=True, metavar="NAME", help="The image whose options they are.")
@disklayout_option
@exclude_paths_option
@exclude_devices_option
@click.option(
    "--update-conflict", metavar="POLICY", expose_value=False, callback=_no_conflict, help="Refused: nothing conflicts."
)
@yes_option
@dry_run_option
def update_options_command(
    run: Invocation,
    *,
    image: str,
    disklayout: str | None,
    exclude_paths: tuple[str, ...],
    excludes: tuple[str, ...],
    yes: bool,
    dry_run: bool,
) -> None:
    """Change the options that are kept with an image: how its next version is captured. No version is made.

    A list that is given stands for the whole of the one kept: --exclude-paths "" leaves nothing out any more. Before
    and after are shown.
    """
    given = given_options(disklayout, exclude_paths, excludes)
    checks = Checks()
    if given == GivenOptions():
        checks.wrong.append("no option is given: want one of --disklayout, --exclude-paths, --exclude-devices")
    after = before = StoredOptions()
    name, version = checks.image(image)
    if version is not None:
        checks.wrong.append(f"--image {image}: options are those of the image, not of a version")
    try:
        settle(None, given, Conflict.COMMANDLINE, can_ask=False)
    except InvalidError as fault:
        checks.wrong += fault.faults
    checks.exist(run.api, image=name, layout=disklayout or "")
    checks.settle()
    kept = stored_options(run, name)
    before = kept.options or before
    after = settle(before, given, Conflict.COMMANDLINE, can_ask=False).options
    rows = difference_rows(list(differences_of(before, after)))
    if rows:
        run.say(columns(("OPTION", "BEFORE", "AFTER"), rows))
        if not dry_run:
            ask(run, f"Keep this with {name}?", is_yes=yes)
    view = run.api.patch(
        f"/v1/images/{segment(name)}/options", OptionsView, OptionsChange(after, kept.revision), {"dry_run": dry_run}
    )
    told = {"options": view, "before": before, "changed": bool(rows), "dry_run": dry_run}
    what = ("would be changed" if dry_run else "changed") if rows else "are so already"
    run.result(told, lambda: f"options of {name} {what} (revision {view.revision})")
