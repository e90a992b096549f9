"""`cloner node`: the machines we own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.asking import ask
from cloner_cli.checking import Checks, known_nodes
from cloner_cli.commands import (
    COUNT,
    METHODS,
    ORDERS,
    UNSET_WORD,
    WAYS,
    FilePath,
    Group,
    command,
    dry_run_option,
    said_setting,
    some_nodes_option,
    yes_option,
)
from cloner_cli.console import warn_of_default
from cloner_cli.extrafiles import extra_files
from cloner_cli.invocation import Invocation
from cloner_cli.network import asked_network, network_fields
from cloner_cli.nodeimport import node_import
from cloner_cli.text import columns, fields, moment
from cloner_core.admin.identities import RecoveryKeys
from cloner_core.admin.nodes import AcceptRequest, HardwareView, NodePatch, NodeSpec, NodeView
from cloner_core.errors import RefusedError
from cloner_core.lldp import switch_of
from cloner_core.sightings import Sighting

_WAYS = click.Choice([*WAYS.choices, "site"])
_FOR_ONE = ("macs", "uuid", "serial", "network", "hostname", "addresses", "revision")  # what two nodes cannot share


def _settings(function: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--image", "-i", metavar="NAME[:VERSION]", help="What it gets: a number, a channel, else the newest."
        ),
        click.option("--disklayout", "-l", "layout", metavar="NAME", help="Layout of its disks."),
        click.option(
            "--network",
            type=FilePath(),
            metavar="FILE",
            help="Interfaces, bonds, VLANs as JSON or YAML; for one node.",
        ),
        click.option("--hostname", metavar="NAME", help="Host name of the clone; the node's name by default."),
        click.option("--address", "addresses", multiple=True, metavar="IP/PREFIX", help="Static, on the first MAC."),
        click.option("--gateway", metavar="IP", help="Default route."),
        click.option("--dns", multiple=True, metavar="IP", help="Name server. Repeatable."),
        click.option("--domain", "domains", multiple=True, metavar="DOMAIN", help="Searched. Repeatable."),
        click.option("--groups", metavar="NAME,NAME", help="Groups it is in, in place of those it was in."),
        click.option("--uuid", metavar="UUID", help="Its machine must say so, or it is turned away."),
        click.option("--serial", metavar="SERIAL", help="Its machine must say so, or it is turned away."),
        click.option("--local-method", type=METHODS, help="How the firmware is sent on to the disk."),
        click.option("--boot-order", type=ORDERS, help="What the firmware tries first after a deploy."),
        click.option("--kernel-argument", "kernel_arguments", multiple=True, metavar="WORD", help="For the clone."),
        click.option("--confirm", type=_WAYS, help="How its clone is known to have booted; site: as the server says."),
        click.option("--protected/--no-protected", "is_protected", default=None, help="Refuse every deploy."),
        click.option(
            "--protect-serial", "protected_serials", multiple=True, metavar="SERIAL", help="Untouchable disk."
        ),
        click.option("--switch", metavar="NAME", help="Switch it hangs on, where LLDP does not tell."),
        click.option(
            "--installer", metavar="NAME", help=f"It boots the agent with (installer list); {UNSET_WORD}: not said."
        ),
        click.option(
            "--file", "files", multiple=True, metavar="PATH=TEMPLATE", help="Extra file of the clone. Repeatable."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.group("node", cls=Group)
def node_command() -> None:
    """Machines we own, known by their MAC addresses."""


node_command.add_command(node_import)


@command(
    "add",
    example="cloner node add node01 --mac 52:54:00:12:34:56 --image debian --disklayout debian",
    group=node_command,
)
@click.argument("name", metavar="NODE")
@click.option("--mac", "macs", multiple=True, required=True, metavar="MAC", help="Hardware address. Repeatable.")
@_settings
@dry_run_option
def node_add(run: Invocation, name: str, *, macs: tuple[str, ...], dry_run: bool, **given: Any) -> None:
    """Add a node. Its netboot is `local`: nothing happens to it until it is told.

    --file /etc/motd=motd.txt gives the clone a file of its own, with the permissions of motd.txt; in it ${node},
    ${hostname}, ${short_hostname}, ${domain}, ${machine_id}, ${mac}, ${address}, ${prefix_length} and ${gateway} stand
    for the node's, and $$ for a dollar sign.
    """
    checks = Checks()
    known = checks.macs(macs)
    changes = _changes(checks, given)
    changes["network"] = asked_network(checks, name, known, None, given)
    _settle(run, checks, changes, f"the node '{name}' cannot be added")
    spec = msgspec.convert({"name": name, "macs": known} | changes, NodeSpec)
    view = run.api.post("/v1/nodes", NodeView, spec, {"dry_run": dry_run})
    run.result(view, lambda: f"{'would add' if dry_run else 'added'} {view.name}")


@command("set", example="cloner node set node[01-16] --image debian:3 --disklayout debian", group=node_command)
@click.argument("nodes", metavar="SET")
@click.option("--mac", "macs", multiple=True, metavar="MAC", help="Replaces all; for one node.")
@click.option("--add-group", "joined", multiple=True, metavar="NAME", help="One more group. Repeatable.")
@click.option("--remove-group", "left", multiple=True, metavar="NAME", help="Out of this group. Repeatable.")
@click.option("--forget-hardware", is_flag=True, help="Forget which machine it is.")
@click.option("--revision", type=COUNT, metavar="N", help="Only if the node still has this revision; for one node.")
@_settings
@dry_run_option
def node_set(
    run: Invocation,
    nodes: str,
    *,
    macs: tuple[str, ...],
    joined: tuple[str, ...],
    left: tuple[str, ...],
    forget_hardware: bool,
    dry_run: bool,
    **given: Any,
) -> None:
    """Change fields of the nodes in SET; what is not named stays. An empty value ("") clears a field."""
    checks = Checks()
    names = checks.nodes(run.api, [nodes])
    given["macs"] = checks.macs(macs)
    if len(names) > 1 and (single := [f"--{_spelled(name)}" for name in _FOR_ONE if given[name] not in (None, "", ())]):
        checks.wrong.append(f"{', '.join(single)}: for one node, and {len(names)} are named")
    changes = _changes(checks, given) | ({"fingerprint": ""} if forget_hardware else {})
    changes |= {name: given[name] for name in ("macs", "revision") if given[name] not in (None, ())}
    if (joined or left) and given["groups"] is not None:
        checks.wrong.append("--groups names all groups; --add-group and --remove-group some: want one or the other")
    known = {view.name: view for view in run.api.get("/v1/nodes", list[NodeView])} if not checks.wrong else {}
    patches = {}
    for name in names:
        view = known.get(name)
        network = asked_network(checks, name, given["macs"] or (view.macs if view else ()), view, given)
        patches[name] = changes | ({"network": network} if network else {})
        if view is not None and (joined or left):
            # With the revision it was read from: a group that somebody else gave it meanwhile must not be lost.
            kept = {*view.groups, *joined} - {*left}
            patches[name] = {"revision": view.revision} | patches[name] | {"groups": tuple(sorted(kept))}
    _settle(run, checks, changes, "nothing was changed", names)
    trials = [_patch(run, name, patch, is_dry=True) for name, patch in patches.items()]  # all of them, or none
    views = trials if dry_run else [_patch(run, name, patch, is_dry=False) for name, patch in patches.items()]
    run.result(views, lambda: f"{'would change' if dry_run else 'changed'} {', '.join(names)}")


@command("list", example="cloner node list --nodes @rack1", group=node_command)
@some_nodes_option
def node_list(run: Invocation, nodes: tuple[str, ...]) -> None:
    """List every node, or those of a set."""
    names = known_nodes(run.api, nodes)
    views = [view for view in run.api.get("/v1/nodes", list[NodeView]) if names is None or view.name in names]
    titles = ("NODE", "MAC", "NETBOOT", "IMAGE", "LAYOUT", "GROUPS", "SEEN")
    rows = [
        (v.name, ",".join(v.macs), v.netboot, _image(v), v.layout, ",".join(v.groups), moment(v.seen_s)) for v in views
    ]
    run.result(views, lambda: columns(titles, rows))
    warn_of_default(run, views)


@command("show", example="cloner node show node01", group=node_command)
@click.argument("name", metavar="NODE")
def node_show(run: Invocation, name: str) -> None:
    """Show one node."""
    view = run.api.get(f"/v1/nodes/{segment(name)}", NodeView)
    run.result(view, lambda: node_fields(view, ("boot steps", _boot_steps(run, name))))
    warn_of_default(run, [view])


@command("facts", example="cloner node facts node01 > node01.json", group=node_command)
@click.argument("name", metavar="NODE")
def node_facts(run: Invocation, name: str) -> None:
    """Print what a machine last told about itself, as JSON; `cloner plan --facts` takes it."""
    facts = run.api.get(f"/v1/nodes/{segment(name)}/facts", dict[str, Any])
    run.say(f"told {moment(run.api.get(f'/v1/nodes/{segment(name)}', NodeView).seen_s)}")
    run.result(facts, lambda: msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())


@command("accept", example="cloner node accept node01", group=node_command)
@click.argument("name", metavar="NODE")
@yes_option
@dry_run_option
def node_accept(run: Invocation, name: str, yes: bool, dry_run: bool) -> None:
    """Let the machine that was turned away be NODE: its board was replaced, or nobody had accepted it yet.

    From then on the vault opens to it, and to no other. A task it froze goes on with `cloner task retry`.
    """
    offered = run.api.get(f"/v1/nodes/{segment(name)}/hardware", HardwareView).offered
    if offered is None:
        raise RefusedError(f"no machine waits to be accepted as {name}", hint=f"cloner events --object node/{name}")
    run.say(
        fields(
            [
                ("machine", f"{offered.vendor} {offered.product}".strip()),
                ("uuid", offered.uuid),
                ("serial", offered.serial),
                ("mac", ", ".join(offered.macs)),
                ("seen", moment(offered.seen_s)),
            ]
        )
    )
    if not dry_run:
        ask(run, f"Accept this machine as {name}?", is_yes=yes)
    asked = AcceptRequest(offered.fingerprint, dry_run)
    view = run.api.post(f"/v1/nodes/{segment(name)}/accept", NodeView, asked)
    run.result(view, lambda: f"{name} {'would be' if dry_run else 'is'} {offered.fingerprint}")


@command("recovery-key", example="cloner node recovery-key node01", group=node_command)
@click.argument("name", metavar="NODE")
@click.option("--all", "is_all", is_flag=True, help="Former ones too, for a disk that was cloned before.")
def node_recovery_key(run: Invocation, name: str, is_all: bool) -> None:
    """Print what opens the encrypted disks of NODE by hand. Its spaces are a part of it.

    Who asked is noted in the events of the node. The key is also good when NODE itself was removed.
    """
    found = run.api.post(f"/v1/recovery-key/{segment(name)}", RecoveryKeys)
    shown = found if is_all else RecoveryKeys(found.node, found.keys[:1])
    rows = [(str(one.number), moment(one.made_s), one.key) for one in shown.keys]
    run.result(shown, lambda: columns(("NUMBER", "MADE", "KEY"), rows) if is_all else shown.keys[0].key)


@command("remove", example="cloner node remove node[15-16]", group=node_command)
@click.argument("nodes", metavar="SET")
@yes_option
@dry_run_option
def node_remove(run: Invocation, nodes: str, *, yes: bool, dry_run: bool) -> None:
    """Remove nodes. Their identities stay in the vault: added again, they are the same machines."""
    checks = Checks()
    names = checks.nodes(run.api, [nodes])
    checks.exist(run.api, nodes=names)
    checks.settle("nothing was removed")
    views = [_delete(run, name, is_dry=True) for name in names]  # all of them can be removed, or none is
    if not dry_run:
        ask(run, f"Remove {', '.join(names)}?", is_yes=yes)
        views = [_delete(run, name, is_dry=False) for name in names]
    run.result(views, lambda: f"{'would remove' if dry_run else 'removed'} {', '.join(names)}")


def node_fields(view: NodeView, *more: tuple[str, object]) -> str:
    """Return a node as text, with `more` lines at the end."""
    shown: list[tuple[str, object]] = [
        ("node", view.name),
        ("revision", view.revision),
        ("mac", ", ".join(view.macs)),
        ("hostname", view.network.hostname),
        *network_fields(view.network),
        ("netboot", view.netboot),
        ("image", _image(view)),
        ("layout", view.layout),
        ("local method", f"{view.local_method} (by {view.local_method_from})"),
        ("boot order", f"{view.boot_order} (by {view.boot_order_from})"),
        ("confirm", view.confirm or "site"),
        ("kernel arguments", " ".join(view.kernel_arguments)),
        ("groups", ", ".join(view.groups)),
        ("protected", _protection(view)),
        ("protected disks", ", ".join(view.protected_serials)),
        ("files", ", ".join(file.path for file in view.files)),
        ("switch", _switch(view)),
        ("installer", view.installer or "as its image or the site has it"),
        ("uuid", view.uuid),
        ("serial", view.serial),
        ("hardware", view.fingerprint or "none accepted yet"),
        ("console password", view.console_password),
        ("seen", moment(view.seen_s)),
        *more,
    ]
    return fields(shown)


def _boot_steps(run: Invocation, name: str) -> str:
    seen = run.api.get(f"/v1/nodes/{segment(name)}/sightings", list[Sighting])
    lines = [f"{moment(one.time_s)}  {one.step} {one.address}".rstrip() for one in seen]
    return "\n".join(lines) or "none seen yet"


def _changes(checks: Checks, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that options name; an empty word clears a list, an empty image the image."""
    changes: dict[str, Any] = {}
    if given["image"] is not None:
        changes["image"], changes["version"] = checks.image(given["image"])
    given |= {name: said_setting(given[name]) for name in ("local_method", "boot_order", "installer")}
    for name in ("uuid", "serial", "layout", "local_method", "boot_order", "is_protected", "switch", "installer"):
        if given[name] is not None:
            changes[name] = given[name]
    if given["groups"] is not None:
        changes["groups"] = tuple(word for word in given["groups"].split(",") if word)
    if given["confirm"] is not None:
        changes["confirm"] = "" if given["confirm"] == "site" else given["confirm"]
    if given["files"]:
        changes["files"] = extra_files(checks, given["files"])
    for name in ("kernel_arguments", "protected_serials"):
        if given[name]:
            changes[name] = tuple(word for word in given[name] if word)
    return changes


def _settle(run: Invocation, checks: Checks, changes: dict[str, Any], headline: str, names: Sequence[str] = ()) -> None:
    image, version, layout = (changes.get(name) for name in ("image", "version", "layout"))
    checks.exist(run.api, nodes=names, image=image or "", version=version, layout=layout or "")
    checks.settle(headline)


def _patch(run: Invocation, name: str, changes: dict[str, Any], *, is_dry: bool) -> NodeView:
    return run.api.patch(
        f"/v1/nodes/{segment(name)}", NodeView, msgspec.convert(changes, NodePatch), {"dry_run": is_dry}
    )


def _delete(run: Invocation, name: str, *, is_dry: bool) -> NodeView:
    return run.api.delete(f"/v1/nodes/{segment(name)}", NodeView, {"dry_run": is_dry})


def _image(view: NodeView) -> str:
    return view.image if view.version is None else f"{view.image}:{view.version}"


def _protection(view: NodeView) -> str:
    own = ["yes"] if view.is_protected else []
    return ", ".join((*own, *(f"by group {group}" for group in view.protected_groups))) or "no"


def _switch(view: NodeView) -> str:
    """Return what node show says of the network: what groups its failures, then all that is known."""
    known = [f"{one.interface} in {one.switch} port {one.port}" for one in view.neighbors]
    if known and view.neighbors[0].port_description:
        known[0] += f" ({view.neighbors[0].port_description})"
    told = [f"LLDP: {', '.join(known)}"] if known else []
    told += [f"DHCP relay {view.relay}"] if view.relay else []
    called = switch_of(view.switch, view.neighbors, view.relay)
    return f"{called} ({'; '.join(told)})" if told else called


def _spelled(name: str) -> str:
    return {"macs": "mac", "addresses": "address"}.get(name, name)
