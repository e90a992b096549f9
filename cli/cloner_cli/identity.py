"""`cloner identity` and `cloner known-hosts`: what makes a node itself, and how clients recognise it."""

from __future__ import annotations

import click

from cloner_cli.api import LONG_S, Query, segment
from cloner_cli.checking import Checks
from cloner_cli.commands import command, image_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import printable
from cloner_core.admin.identities import IdentityPreview, IdentityView, KnownHosts

_PATTERN_LETTERS = set("abcdefghijklmnopqrstuvwxyz0123456789.-*?:")


@command("identity", example="cloner identity node01 --image debian")
@click.argument("name", metavar="NODE")
@image_option
def identity_command(run: Invocation, name: str, *, image: str) -> None:
    """Print every file the identity stage would write to NODE, for its own image unless another is named.

    Secrets are shown as ***. Nothing is made or changed: an identity comes into the vault with the first deploy.
    """
    checks = Checks()
    image_name, version = checks.image(image)
    checks.exist(run.api, nodes=[name], image=image_name, version=version)
    checks.settle("no identity can be shown")
    query: Query = {"image": image_name, "version": version}
    view = run.api.get(f"/v1/identity/{segment(name)}", IdentityView, query, within_s=LONG_S)  # reads the image's tree
    run.result(view, lambda: printable(_shown(view), keep="\n\t"))


@command("known-hosts", example="cloner known-hosts >> /etc/ssh/ssh_known_hosts")
@click.option("--pattern", "patterns", multiple=True, metavar="PATTERN", help="Instead of all names. Repeatable.")
def known_hosts_command(run: Invocation, patterns: tuple[str, ...]) -> None:
    """Print the line of known_hosts with which a client believes the host keys of every node, also after a new clone.

    Without --pattern it is good for the names and static addresses the nodes have now; '*.example.org' is good for
    nodes to come as well.
    """
    if wrong := [pattern for pattern in patterns if not pattern or not set(pattern) <= _PATTERN_LETTERS]:
        raise click.UsageError(f"not a pattern of host names: {', '.join(map(repr, wrong))}")
    known = run.api.get("/v1/known-hosts", KnownHosts)
    names = ",".join(patterns or known.names)
    if not names:
        raise click.UsageError("there are no nodes yet: name a --pattern")
    run.result(known, lambda: f"@cert-authority {names} {known.authority}")


def _shown(view: IdentityView) -> str:
    lines = [f"# {view.node}: identity in {view.image}:{view.version}"]
    lines += [f"# network: {', '.join(view.network_systems) or 'no system known to Cloner'}"]
    lines += [f"# note: {note}" for note in view.notes]
    lines += [f"# removed where it is there: {pattern}" for pattern in view.removals]
    return "\n".join((*lines, *map(_shown_file, view.files)))


def _shown_file(file: IdentityPreview) -> str:
    return f"\n==> {file.path} ({file.mode:04o})\n{file.content.rstrip(chr(10))}"
