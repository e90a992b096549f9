"""`cv-cloner`, `cv-netboot`, `cv-conf`: the names and flags that users of ClusterVisor type, for the commands we have.

Must not know how anything is done: each is a command of `cloner` under another name. What we have nothing for is
refused, never passed over.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import click

from cloner_cli.commands import Command, command, dry_run_option, json_option, server_option, socket_option
from cloner_cli.group import group_command
from cloner_cli.image import image_details_command, image_list_command
from cloner_cli.invocation import Invocation
from cloner_cli.main import COMMANDS
from cloner_cli.netboot import netboot_command
from cloner_cli.node import node_command
from cloner_cli.program import HELP_NAMES, LoneCommand, Verbs
from cloner_core.errors import InvalidError, RefusedError

CLONER_VERBS = (
    "config",
    "disklayout",
    "disklayout-upload",
    "identify",
    "image-details",
    "image-list",
    "make-installer",
    "multicast-image",
    "multicast-list",
    "multicast-show",
    "multicast-start",
    "multicast-status",
    "multicast-stop",
    "new-image",
    "script",
    "update-disklayout",
    "update-filesystem",
    "update-options",
)
_COLLECTIONS = ("node", "cloner_image", "cloner_disklayout", "node_group")
_FIELDS = {
    "cloner_image": "--image",
    "image": "--image",
    "cloner_disklayout": "--disklayout",
    "disklayout": "--disklayout",
    "hostname": "--hostname",
    "mac": "--mac",
    "ip": "--address",
    "gateway": "--gateway",
    "groups": "--groups",
    "switch": "--switch",
    "serial": "--serial",
    "uuid": "--uuid",
}
"""What `cv-conf set node.NAME FIELD=VALUE` calls an option of `cloner node set`."""


class CvCloner(Verbs):
    """The verbs of cv-cloner, each a command of `cloner`."""

    modules: ClassVar[Mapping[str, str]] = {name: COMMANDS[name] for name in CLONER_VERBS}
    example = "cv-cloner new-image --server=head --image=node --disklayout=node"

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command `name` of `cloner`."""
        found = super().get_command(ctx, name)
        return _renamed(found) if isinstance(found, Command) else None


class CvConf(Verbs):
    """The verbs of cv-conf; they are all here."""

    modules: ClassVar[Mapping[str, str]] = dict.fromkeys(("list", "set", "show"), __name__)
    example = "cv-conf set node.node[01-16] cloner_image=node"

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command `name`."""
        return {"list": conf_list, "show": conf_show, "set": conf_set}.get(name)


def _renamed(found: Command) -> Command:
    """Return a command of `cloner` as cv-cloner has it: with --server everywhere."""
    made = copy.copy(found)
    made.example = f"cv-{found.example}"
    if not any(param.name == "server" or "--server" in param.opts for param in made.params):
        holder = server_option(click.Command("holder"))
        made.params = [*made.params, *holder.params]
    return made


@click.command("cv-cloner", cls=CvCloner, no_args_is_help=True, context_settings=HELP_NAMES)
@socket_option
@json_option
def cv_cloner() -> None:
    """Make, update and look at images, in the words of ClusterVisor: each verb is the command of cloner of that name.

    --server may be said to every verb.
    """


cv_netboot = LoneCommand(
    "cv-netboot",
    callback=netboot_command.callback,
    params=netboot_command.params,
    help=netboot_command.help,
    context_settings=HELP_NAMES,
)
cv_netboot.example = "cv-netboot --nodes node01,node02 --set cloner"


@click.command("cv-conf", cls=CvConf, no_args_is_help=True, context_settings=HELP_NAMES)
@socket_option
@json_option
def cv_conf() -> None:
    """Show and set nodes, and show images, layouts and groups, by ClusterVisor's names: COLLECTION.SECTION.

    The collections are node, cloner_image, cloner_disklayout and node_group; node.node[01-16] are sixteen sections.
    All else of a cluster's configuration is none of Cloner's; it is refused.
    """


@command("list", example="cv-conf list node")
@click.argument("collection", metavar="COLLECTION")
@click.pass_context
def conf_list(ctx: click.Context, run: Invocation, collection: str) -> None:
    """List the sections of COLLECTION, a line each."""
    _pass_on(ctx, _listing(_known(collection)), [])


@command("show", example="cv-conf show node.node01")
@click.argument("section", metavar="COLLECTION.SECTION")
@click.pass_context
def conf_show(ctx: click.Context, run: Invocation, section: str) -> None:
    """Show one section."""
    collection, name = _parted(section)
    if collection == "node":
        _pass_on(ctx, node_command.commands["show"], [name])
    elif collection == "node_group":
        _pass_on(ctx, group_command.commands["show"], [name])
    elif collection == "cloner_image":
        _pass_on(ctx, image_details_command, ["--image", name])
    else:
        _pass_on(ctx, _layout_command("disklayout"), ["--disklayout", name])


@command("set", example="cv-conf set node.node[01-16] cloner_image=node cloner_disklayout=node")
@click.argument("section", metavar="node.SET")
@click.argument("settings", nargs=-1, required=True, metavar="FIELD=VALUE…")
@dry_run_option
@click.pass_context
def conf_set(ctx: click.Context, run: Invocation, section: str, *, settings: tuple[str, ...], dry_run: bool) -> None:
    """Set fields of nodes, all or none: cloner_image, cloner_disklayout, hostname, mac, ip, gateway, groups, …

    An empty value clears a field.
    """
    collection, nodes = _parted(section)
    if collection != "node":
        raise RefusedError(
            f"cv-conf set {section}: only nodes are set here",
            hint="a version of an image never changes; layouts: cv-cloner disklayout-upload",
        )
    words = [nodes, *(["--dry-run"] if dry_run else [])]
    unknown = []
    for setting in settings:
        field, sign, value = setting.partition("=")
        if not sign or field not in _FIELDS:
            unknown.append(f"{setting}: want FIELD=VALUE, with a field of {', '.join(_FIELDS)}")
        else:
            words += [_FIELDS[field], value]
    if unknown:
        raise InvalidError("cv-conf set: nothing was changed", faults=unknown, hint="cloner node set --help has more")
    _pass_on(ctx, node_command.commands["set"], words)


def _listing(collection: str) -> click.Command:
    if collection == "node":
        return node_command.commands["list"]
    if collection == "node_group":
        return group_command.commands["list"]
    return image_list_command if collection == "cloner_image" else _layout_command("disklayout-list")


def _layout_command(name: str) -> click.Command:
    from cloner_cli import disklayout

    found = {"disklayout": disklayout.disklayout_command, "disklayout-list": disklayout.disklayout_list_command}
    return found[name]


def _parted(section: str) -> tuple[str, str]:
    collection, sign, name = section.partition(".")
    if not sign or not name:
        raise InvalidError(f"'{section}' is not COLLECTION.SECTION", hint="node.node01, cloner_image.node")
    return _known(collection), name


def _known(collection: str) -> str:
    if collection not in _COLLECTIONS:
        raise RefusedError(
            f"'{collection}' is no collection of Cloner's", hint=f"there are {', '.join(_COLLECTIONS)}: no other"
        )
    return collection


def _pass_on(ctx: click.Context, to: click.Command, words: list[Any]) -> None:
    """Run a command of `cloner` with `words`, as if it had been typed."""
    with to.make_context(ctx.info_name, words, parent=ctx.parent) as beneath:
        to.invoke(beneath)


PROGRAMS: dict[str, click.Command] = {"cv-cloner": cv_cloner, "cv-netboot": cv_netboot, "cv-conf": cv_conf}


def cloner() -> None:
    """Run cv-cloner; exits."""
    cv_cloner.main()


def netboot() -> None:
    """Run cv-netboot; exits."""
    cv_netboot.main()


def conf() -> None:
    """Run cv-conf; exits."""
    cv_conf.main()
