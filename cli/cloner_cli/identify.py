"""`cloner identify`: which image nodes have and are to get, by name, by MAC address, or this very machine."""

from __future__ import annotations

import click

from cloner_cli.checking import Checks
from cloner_cli.commands import command
from cloner_cli.invocation import Invocation
from cloner_cli.text import fields, moment
from cloner_core.admin.configs import Identified, IdentifyRequest, Installed, NodeImage
from cloner_core.errors import NotFoundError
from cloner_core.identity import Origin, parse_origin


@command("identify", example="cloner identify --method mac 52:54:00:12:34:56,52:54:00:12:34:57")
@click.option("--method", type=click.Choice(["mac", "node"]), help="Whether LIST has MAC addresses or node names.")
@click.argument("lists", nargs=-1, metavar="[LIST…]")
def identify_command(run: Invocation, method: str | None, lists: tuple[str, ...]) -> None:
    """Show the image data of nodes: what a deploy put there, and what a deploy of now would put there.

    LIST is 52:54:00:12:34:56,52:54:00:12:34:57 or node[01-03],node07. Exit status 3 when one of them is no node; the
    others are shown all the same.

    Without LIST this machine is meant. A clone says in /etc/cloner/image.json which image it was made of, and that is
    shown without asking the server. Any other machine, and with --method a clone too, is looked for by its MAC
    addresses, then its host name.
    """
    if lists and method is None:
        raise click.UsageError("say what the list has: --method mac or --method node")
    if not lists and method is None and (content := run.world.origin()) is not None:
        origin = parse_origin(content)
        run.result([origin], lambda: origin_text(origin))
        return
    if not lists:
        found = _this_machine(run, method)
    else:
        checks = Checks()
        if method == "mac":
            values = checks.macs([text for each in lists for text in each.split(",") if text.strip()])
            request = IdentifyRequest("mac", values)
        else:
            request = IdentifyRequest("node", tuple(checks.nodes(run.api, lists)))
        if not request.values and not checks.wrong:
            checks.wrong.append("nothing is named")
        checks.settle("nobody is identified")
        found = _ask(run, request)
    if found.nodes:
        run.result(found.nodes, lambda: "\n\n".join(map(identified_text, found.nodes)))
    if found.unknown:
        raise NotFoundError(
            "\n  - ".join(("no node of ours", *found.unknown)), hint="cloner node list; cloner node add makes one"
        )


def _this_machine(run: Invocation, method: str | None) -> Identified:
    """Return what is known of this machine; all its names are unknown when none of them is."""
    macs, names = tuple(run.world.macs()), (run.world.host_name(),)
    unknown: list[str] = []
    requests = [IdentifyRequest("mac", macs)] if method != "node" else []
    requests += [IdentifyRequest("node", names)] if method != "mac" else []
    for request in requests:
        found = _ask(run, request)
        if found.nodes:
            return Identified(nodes=found.nodes, unknown=())
        unknown += found.unknown
    return Identified(nodes=(), unknown=tuple(unknown) or ("this machine has no network card",))


def _ask(run: Invocation, request: IdentifyRequest) -> Identified:
    return run.api.post("/v1/identify", Identified, request)


def origin_text(origin: Origin) -> str:
    """Return what a clone says of itself as text."""
    return fields(
        [
            ("node", origin.node),
            ("installed", f"{origin.image}:{origin.number} with layout {origin.layout}, by task {origin.task}"),
            ("digest", origin.digest),
        ]
    )


def identified_text(node: NodeImage) -> str:
    """Return the image data of a node as text."""
    return fields(
        [
            ("node", node.node),
            ("image", _wanted(node)),
            ("layout", node.layout or "none is set"),
            ("installed", _installed(node.installed)),
            ("netboot", node.netboot),
        ]
    )


def _wanted(node: NodeImage) -> str:
    if not node.image:
        return "none is set"
    if node.number is None:
        return f"{node.image}{'' if node.version is None else f':{node.version}'}, which is not there"
    return f"{node.image}:{node.number}{' (the newest)' if node.version is None else ''}"


def _installed(told: Installed | None) -> str:
    if told is None:
        return "nothing, as far as is known here"
    confirmed = f"confirmed {moment(told.confirmed_s)}" if told.confirmed_s is not None else "not confirmed"
    current = "as it is to be" if told.is_wanted else "another version than it is to get"
    return f"{told.image}:{told.number} with layout {told.layout}, {moment(told.accepted_s)}, {confirmed}; {current}"
