"""`cloner node import`: nodes from a file, all of them or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from cloner_cli.checking import Checks
from cloner_cli.commands import FilePath, command, dry_run_option
from cloner_cli.documents import read_input
from cloner_cli.invocation import Invocation
from cloner_cli.network import asked_network
from cloner_cli.nodefiles import FORMATS, read_nodes
from cloner_cli.nodefiles.records import NodeRecord
from cloner_cli.text import columns, printable
from cloner_core.admin.nodes import ImportedNode, ImportRequest, ImportResult, NodePatch, NodeView
from cloner_core.image.reference import VersionName

_MOST_BYTES = 16 << 20


@command("import", example="cloner node import nodes.csv --dry-run")
@click.argument("path", metavar="FILE", type=FilePath())
@click.option("--format", "form", type=click.Choice(FORMATS), help="What FILE is; told from its content unless named.")
@click.option("--update", is_flag=True, help="Change nodes that exist and differ from what FILE says of them.")
@click.option("--image", "-i", default="", metavar="NAME[:VERSION]", help="For the nodes that FILE names no image for.")
@click.option("--disklayout", "-l", "layout", default="", metavar="NAME", help="… no layout for.")
@click.option("--groups", default="", metavar="NAME,NAME", help="Further groups, for every node.")
@click.option(
    "--prefix-length",
    type=click.IntRange(1, 128),
    metavar="N",
    help="Of addresses that FILE gives without: 24 makes 10.1.0.5 10.1.0.5/24.",
)
@dry_run_option
def node_import(
    run: Invocation,
    path: Path,
    *,
    form: str | None,
    update: bool,
    image: str,
    layout: str,
    groups: str,
    prefix_length: int | None,
    dry_run: bool,
) -> None:
    """Add the nodes that FILE (- is standard input) lists: all of them, or none. docs/import.md has the formats.

    A node that is there already as FILE says is left alone, so the same file can be imported again; one that differs
    is refused unless --update changes it. What FILE does not say of a node stays.
    """
    found = read_nodes(read_input(path, _MOST_BYTES), form or "", prefix_length=prefix_length)
    for note in found.notes:
        run.say(printable(f"note: {note}"))
    checks = Checks()
    default = checks.image(image)
    more = tuple(word for word in groups.split(",") if word)
    known = {view.name: view for view in run.api.get("/v1/nodes", list[NodeView])}
    asked = [
        _imported(checks, record, known.get(record.name), default=default, layout=layout, groups=more)
        for record in found.records
    ]
    checks.settle("no node was imported")
    request = ImportRequest(tuple(asked), update=update, dry_run=dry_run)
    results = run.api.post("/v1/import", list[ImportResult], request, is_long=True)
    run.result(results, lambda: _table(results, is_dry=dry_run))


def _imported(
    checks: Checks,
    record: NodeRecord,
    before: NodeView | None,
    *,
    default: tuple[str, VersionName | None],  # image and version
    layout: str,
    groups: tuple[str, ...],
) -> ImportedNode:
    """Return what is asked for one node; an option stands in where the file is silent and the node has nothing."""
    where = f"line {record.line}"
    own = Checks()
    patch: dict[str, Any] = {"macs": record.macs}
    if record.image:
        patch["image"], patch["version"] = own.image(record.image)
    elif record.image is None and default[0] and not (before and before.image):
        patch["image"], patch["version"] = default
    if named := record.layout or ("" if before and before.layout else layout):
        patch["layout"] = named
    if record.groups is not None or groups:
        kept = record.groups if record.groups is not None else (before.groups if before else ())
        patch["groups"] = tuple(sorted({*kept, *groups}))
    for name in ("uuid", "serial", "kernel_arguments", "is_protected"):
        if getattr(record, name) is not None:
            patch[name] = getattr(record, name)
    given = {
        "network": None,
        "hostname": record.hostname,
        "addresses": record.addresses,
        "gateway": record.gateway,
        "dns": record.dns,
        "domains": record.domains,
    }
    if (network := asked_network(own, record.name, record.macs, before, given)) is not None:
        patch["network"] = network
    checks.wrong += [f"{where}: {record.name}: {fault}" for fault in own.wrong]
    if before is not None:
        patch["revision"] = before.revision
    return ImportedNode(where=where, name=record.name, patch=msgspec.convert(patch, NodePatch))


def _table(results: list[ImportResult], *, is_dry: bool) -> str:
    rows = [(one.name, one.action, ",".join(one.node.macs), *_said(one)) for one in results]
    table = columns(("NODE", "ACTION", "MAC", "ADDRESS", "IMAGE", "LAYOUT", "GROUPS", "CHANGES"), rows)
    counts = [f"{sum(one.action == kind for one in results)} {kind}" for kind in ("added", "changed", "unchanged")]
    return f"{table}\n{'would be: ' if is_dry else ''}{', '.join(counts)}"


def _said(one: ImportResult) -> tuple[str, ...]:
    node = one.node
    addresses = ",".join(address for link in node.network.interfaces for address in link.addresses) or "dhcp"
    image = node.image if node.version is None else f"{node.image}:{node.version}"
    return addresses, image, node.layout, ",".join(node.groups), ",".join(one.fields)
