"""`cloner fit`: whether an image fits nodes, from their inventories alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from cloner_cli.checking import Checks
from cloner_cli.commands import command, nodes_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import moment, printable
from cloner_core.admin.fitting import FitRequest, FitSize, FitView
from cloner_core.errors import failed_status
from cloner_core.sizes import format_bytes


@command("fit", example="cloner fit debian --nodes node[01-16]")
@click.argument("image", metavar="IMAGE[:VERSION]")
@nodes_option
@click.option(
    "--layout", "--disklayout", "-l", "layout", default="", metavar="NAME", help="Each node's own by default."
)
def fit_command(run: Invocation, image: str, *, nodes: tuple[str, ...], layout: str) -> int:
    """Say for each node what a deploy would choose, make and refuse, from what its machine last told; touch nothing.

    Exit status: 0 when the image fits every node, else 20 plus the number of nodes it does not fit, those without an
    inventory among them (120: a hundred or more).
    """
    checks = Checks()
    names = checks.nodes(run.api, nodes)
    name, version = checks.image(image)
    checks.exist(run.api, nodes=names, image=name, version=version, layout=layout)
    checks.settle("nothing can be said")
    request = FitRequest(nodes=tuple(names), image=name, version=version, layout=layout)
    # It reads the image's tree, which takes its time with millions of files.
    views = run.api.post("/v1/fit", list[FitView], request)
    run.result(views, lambda: fit_text(views))
    return failed_status(sum(not view.fits for view in views))


def fit_text(views: Sequence[FitView]) -> str:
    """Return a paragraph for each node, and the count of those that fit."""
    fitting = sum(view.fits for view in views)
    parts = ["\n".join(_lines(view)) for view in views]
    return "\n\n".join((*parts, f"fits {fitting} of {len(views)} nodes"))


def _lines(view: FitView) -> Iterator[str]:
    what = f"{view.image}:{view.version} with layout {view.layout}" if view.layout else f"{view.image}:{view.version}"
    yield printable(f"{view.node}: {'fits' if view.fits else 'DOES NOT FIT'}, {what}")
    for refusal in view.refusals:
        hint = f" ({refusal.hint})" if refusal.hint else ""
        yield printable(f"  {refusal.cause}: {refusal.message}{hint}", keep="\n").replace("\n", "\n  ")
    if view.told_s is not None:
        machine = [view.machine, view.firmware, view.arch, f"{format_bytes(view.memory_bytes)} of memory"]
        yield printable(f"  machine  {', '.join(filter(None, machine))}; told {moment(view.told_s)}")
    for disk in view.disks:
        named = f"{disk.path} ({disk.model} serial {disk.serial or 'none'}, {format_bytes(disk.size_bytes)}"
        yield printable(f"  disk     {disk.id} is {named}, {disk.sector_bytes}-byte sectors)")
    for other in view.others:
        yield printable(f"  not      {other.disk}: {other.why}")
    for size in view.sizes:
        yield printable(f"  makes    {_size(size)}")
    for note in view.notes:
        yield printable(f"  note     {note}")


def _size(size: FitSize) -> str:
    holds = f", {size.filesystem}" if size.filesystem else ""
    mounts = f" at {', '.join(size.mounts)}" if any(size.mounts) else ""
    return f"{size.device}: {format_bytes(size.size_bytes)}, {size.what}{holds}{mounts}"
