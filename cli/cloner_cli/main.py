"""The entry of the `cloner` command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

from cloner_cli.commands import json_option, socket_option
from cloner_cli.program import HELP_NAMES, Verbs
from cloner_server import VERSION

COMMANDS = {
    "capture": "cloner_cli.atrest",
    "channel": "cloner_cli.channel",
    "config": "cloner_cli.config",
    "confirm": "cloner_cli.confirm",
    "console": "cloner_cli.console",
    "deploy": "cloner_cli.deploy",
    "disklayout": "cloner_cli.disklayout",
    "disklayout-list": "cloner_cli.disklayout",
    "disklayout-upload": "cloner_cli.disklayout",
    "erase": "cloner_cli.erase",
    "events": "cloner_cli.events",
    "failures": "cloner_cli.failures",
    "fit": "cloner_cli.fit",
    "fix-efiboot": "cloner_cli.efiboot",
    "group": "cloner_cli.group",
    "identify": "cloner_cli.identify",
    "identity": "cloner_cli.identity",
    "image": "cloner_cli.keep",
    "image-details": "cloner_cli.image",
    "image-diff": "cloner_cli.imagediff",
    "image-export": "cloner_cli.imageexport",
    "image-extract": "cloner_cli.extract",
    "image-import": "cloner_cli.imageimport",
    "image-list": "cloner_cli.image",
    "image-remove": "cloner_cli.imageremove",
    "image-verify": "cloner_cli.imageverify",
    "init": "cloner_cli.init",
    "initramfs": "cloner_cli.initramfs",
    "installer": "cloner_cli.installer",
    "kit": "cloner_cli.kit",
    "known-hosts": "cloner_cli.identity",
    "layout": "cloner_cli.layout",
    "machine": "cloner_cli.machine",
    "make-installer": "cloner_cli.installer",
    "manual": "cloner_cli.manual",
    "model": "cloner_cli.model",
    "multicast-image": "cloner_cli.multicastimage",
    "multicast-list": "cloner_cli.multicast",
    "multicast-show": "cloner_cli.multicast",
    "multicast-start": "cloner_cli.multicast",
    "multicast-status": "cloner_cli.multicast",
    "multicast-stop": "cloner_cli.multicast",
    "netboot": "cloner_cli.netboot",
    "new-image": "cloner_cli.capture",
    "node": "cloner_cli.node",
    "plan": "cloner_cli.plan",
    "receipt": "cloner_cli.receipt",
    "relay": "cloner_cli.relay",
    "relay-list": "cloner_cli.relay",
    "script": "cloner_cli.script",
    "serve": "cloner_cli.serve",
    "state": "cloner_cli.state",
    "status": "cloner_cli.status",
    "store": "cloner_cli.store",
    "task": "cloner_cli.task",
    "token": "cloner_cli.token",
    "update-disklayout": "cloner_cli.disklayout",
    "update-filesystem": "cloner_cli.capture",
    "update-options": "cloner_cli.captureoptions",
    "watch": "cloner_cli.watch",
}


class Root(Verbs):
    """The command `cloner`."""

    modules: ClassVar[Mapping[str, str]] = COMMANDS
    example = "cloner deploy --nodes node[01-02] --image debian --wait"


@click.command("cloner", cls=Root, no_args_is_help=True, context_settings=HELP_NAMES)
@socket_option
@json_option
@click.version_option(VERSION, message="%(prog)s %(version)s")
def cli() -> None:
    """Turn one configured machine into an image, and put it on many, each with its own identity."""


def main() -> int:
    """Run the command line of this process; exits."""
    cli.main()
    return 0


if __name__ == "__main__":
    main()
