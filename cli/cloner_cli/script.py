"""`cloner script`: the pre- and post-scripts of an image, in numbered sets that never change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from cloner_cli.api import segment
from cloner_cli.checking import Checks
from cloner_cli.commands import COUNT, FilePath, command, dry_run_option
from cloner_cli.documents import read_input
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, moment, printable
from cloner_core.errors import InvalidError, NotFoundError
from cloner_core.scripts import (
    DEFAULT_ORDER,
    DEFAULT_TIMEOUT_S,
    MAX_BYTES,
    MAX_ORDER,
    MAX_TIMEOUT_S,
    OnFailure,
    Script,
    ScriptChange,
    ScriptSetView,
    ScriptType,
)

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


@command("script", example="cloner script --image debian --type post --set motd.sh --order 20")
@click.option("--image", "-i", required=True, metavar="NAME[:VERSION]", help="Image; the newest version unless told.")
@click.option("--type", "-t", "kind", type=click.Choice([kind.value for kind in ScriptType]), help="When it runs.")
@click.option("--set", "path", type=FilePath(), metavar="FILE", help="Put this script; - is stdin.")
@click.option("--get", "is_get", is_flag=True, help="Print a script.")
@click.option("--list", "is_list", is_flag=True, help="List the scripts; with --history every set there was.")
@click.option("--remove", "is_remove", is_flag=True, help="Remove a script.")
@click.option("--name", metavar="NAME", help="Of the script; the name of FILE without its ending unless told.")
@click.option(
    "--order", type=click.IntRange(0, MAX_ORDER), help=f"The lower the earlier; {DEFAULT_ORDER} for a new one."
)
@click.option(
    "--on-failure",
    type=click.Choice([policy.value for policy in OnFailure]),
    help="End the deploy (fail, for a new one), or note it in the receipt.",
)
@click.option(
    "--time-limit",
    "timeout_s",
    type=click.IntRange(1, MAX_TIMEOUT_S),
    metavar="SECONDS",
    help=f"Killed after; {DEFAULT_TIMEOUT_S} for a new one.",
)
@click.option("--number", type=COUNT, metavar="N", help="--get, --list: of this set, not of the present one.")
@click.option("--history", is_flag=True, help="--list: every set there was.")
@dry_run_option
def script_command(
    run: Invocation,
    *,
    image: str,
    kind: str | None,
    path: Path | None,
    is_get: bool,
    is_list: bool,
    is_remove: bool,
    name: str | None,
    order: int | None,
    on_failure: str | None,
    timeout_s: int | None,
    number: int | None,
    history: bool,
    dry_run: bool,
) -> None:
    """Keep, print, list or remove scripts that run with each deploy of an image.

    A pre-script runs in the agent, before anything is destroyed, and can refuse the machine; a post-script runs
    confined in the finished clone. Every change makes a new numbered set; a task runs the set it was armed with.
    A set made for a version serves the later ones too, until one of them has a set of its own.
    """
    checks = Checks()
    image_name, version = checks.image(image)
    if [path is not None, is_get, is_list, is_remove].count(True) != 1:
        checks.wrong.append("want one of --set FILE, --get, --list and --remove")
    if kind is None and not is_list:
        checks.wrong.append("want --type pre or --type post")
    if is_remove and name is None:
        checks.wrong.append("--remove wants --name")
    if (number is not None or history) and not (is_get or is_list):
        checks.wrong.append("--number and --history go with --get and --list")
    if path is None and (order, on_failure, timeout_s) != (None, None, None):
        checks.wrong.append("--order, --on-failure and --time-limit go with --set")
    checks.settle()
    at = f"/v1/images/{segment(image_name)}/scripts"
    if is_list and history:
        views = run.api.get(f"{at}/all", list[ScriptSetView])
        run.result(views, lambda: _history(views))
        return
    present = run.api.get(at, ScriptSetView, {"version": version, "number": number})
    if is_list:
        shown = [script for script in present.scripts if kind is None or script.type == kind]
        run.result(present, lambda: _table(present, shown))
        return
    script_type = ScriptType(kind or "")
    if is_get:
        script = _one(present, script_type, name)
        run.result(script, lambda: script.content.rstrip("\n"))
        return
    if path is not None:
        script = _read(path, script_type, name)
        former = next((s for s in present.scripts if (s.type, s.name) == (script.type, script.name)), script)
        put = Script(
            type=script.type,
            name=script.name,
            content=script.content,
            # What is not said stays as it was.
            order=former.order if order is None else order,
            on_failure=former.on_failure if on_failure is None else OnFailure(on_failure),
            timeout_s=former.timeout_s if timeout_s is None else timeout_s,
        )
        change = ScriptChange(put=put, number=present.number)
    else:
        change = ScriptChange(remove=(script_type, name or ""), number=present.number)
    made = run.api.post(at, ScriptSetView, change, {"version": version, "dry_run": dry_run})
    run.result(made, lambda: _told(made, present, is_dry=dry_run))


def _read(path: Path, kind: ScriptType, name: str | None) -> Script:
    content = read_input(path, MAX_BYTES, hint="a script fetches or brings no more; put files into the image")
    try:
        text = content.decode()
    except UnicodeDecodeError as fault:
        raise InvalidError(f"{path} is not UTF-8: a binary is no script", hint="put programs into the image") from fault
    if name is None and str(path) == "-":
        raise InvalidError("a script from standard input wants --name")
    return Script(type=kind, name=name or _UNFIT.sub("-", path.stem).strip("-._"), content=text)


def _one(present: ScriptSetView, kind: ScriptType, name: str | None) -> Script:
    of_type = [script for script in present.scripts if script.type is kind]
    found = [script for script in of_type if name in (None, script.name)]
    if len(found) == 1:
        return found[0]
    what = f"{present.image} (set {present.number})"
    if not found:
        raise NotFoundError(
            f"{what} has no {kind}-script" + (f" '{name}'" if name else ""), hint="cloner script --list shows all"
        )
    raise InvalidError(
        f"{what} has {len(found)} {kind}-scripts: {', '.join(s.name for s in found)}", hint="--name NAME"
    )


def _table(present: ScriptSetView, scripts: Sequence[Script]) -> str:
    rows = [(s.type, s.order, s.name, s.on_failure, f"{s.timeout_s} s", len(s.content), s.digest[:12]) for s in scripts]
    since = f", since {moment(present.created_s)} by {present.author}" if present.number else ""
    head = f"{present.image}: set {present.number}{since}"
    return printable(head) + "\n" + columns(("TYPE", "ORDER", "NAME", "ON FAILURE", "LIMIT", "BYTES", "DIGEST"), rows)


def _history(views: Sequence[ScriptSetView]) -> str:
    rows = [
        (v.number, f"{v.image}:{v.version}", len(v.scripts), moment(v.created_s), v.author, v.digest[:12])
        for v in views
    ]
    return columns(("SET", "FROM", "SCRIPTS", "SINCE", "AUTHOR", "DIGEST"), rows)


def _told(made: ScriptSetView, present: ScriptSetView, *, is_dry: bool) -> str:
    if made.number == present.number:
        return f"scripts of {made.image} are set {made.number} already"
    return f"scripts of {made.image}:{made.version} {'would be' if is_dry else 'are'} set {made.number}"
