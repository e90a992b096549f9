"""`cloner plan`: exactly what a node would run and destroy."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from cloner_cli.api import LONG_S, segment
from cloner_cli.checking import Checks
from cloner_cli.commands import FilePath, command, image_option, layout_option
from cloner_cli.documents import read_document
from cloner_cli.invocation import Invocation
from cloner_cli.text import moment, printable
from cloner_core.admin.deploying import PlanView
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError
from cloner_core.facts import Facts


@command("plan", example="cloner plan node01 --image debian --disklayout debian")
@click.argument("name", metavar="NODE")
@image_option
@layout_option
@click.option("--facts", type=FilePath(), metavar="FILE", help="A machine as JSON, for one never seen.")
def plan_command(run: Invocation, name: str, *, image: str, disklayout: str, facts: Path | None) -> None:
    """Print every command a deploy would run on NODE, and what each destroys; nothing is touched.

    Planned from what the machine last told of itself, for its live task or its own image and layout unless others
    are named. `cloner node facts` prints what --facts takes.
    """
    checks = Checks()
    image_name, version = checks.image(image)
    machine = None
    try:
        machine = _read_facts(facts) if facts else None
    except InvalidError as fault:
        checks.wrong += [f"{fault.message}"]
    checks.exist(run.api, nodes=[name], image=image_name, version=version, layout=disklayout)
    checks.settle("no plan can be made")
    query = {"image": image, "layout": disklayout}
    path = f"/v1/plan/{segment(name)}"
    # It reads the image's tree, which takes its time with millions of files.
    view = (
        run.api.get(path, PlanView, query, within_s=LONG_S)
        if machine is None
        else run.api.post(path, PlanView, machine, query)
    )
    if not run.is_json and view.facts_s is not None:
        run.say(f"planned from what the machine told at {moment(view.facts_s)}")
    for note in view.notes:
        run.say(printable(f"note: {note}"))
    run.result(view, lambda: printable(view.rendered.rstrip("\n"), keep="\n\t"))


def _read_facts(path: Path) -> Facts:
    try:
        return msgspec.convert(read_document(path), Facts)
    except UNREADABLE as fault:
        raise InvalidError(f"{path} does not hold the facts of a machine: {fault}") from fault
