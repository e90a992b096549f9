"""`cloner token`: what lets a command on a golden node, or a relay, talk to this server."""

from __future__ import annotations

import ipaddress

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.commands import Duration, Group, command, dry_run_option, server_option
from cloner_cli.invocation import Invocation
from cloner_cli.kit import install_line
from cloner_cli.text import columns, moment
from cloner_core.admin.kit import KitView
from cloner_core.admin.relays import HeadView
from cloner_core.admin.tokens import MOST_LIFETIME_S, TokenRequest, TokenView
from cloner_core.errors import InvalidError, NotFoundError

_DAY_S = 86400


@click.group("token", cls=Group)
def token_command() -> None:
    """Tokens: each lets another machine capture one image, or be one relay, for a time, and nothing else."""


@command("create", example="cloner token create --capture debian --expires 7d --note 'rack 7'", group=token_command)
@click.option("--capture", "image", default="", metavar="IMAGE", help="The image it may make versions of.")
@click.option(
    "--relay", default="", metavar="NAME", help="In place of --capture: the relay that it makes (cloner relay)."
)
@click.option(
    "--disklayout",
    "-l",
    "layouts",
    multiple=True,
    metavar="NAME",
    help="A layout it may change; one of a new name it may add anyhow. Repeatable.",
)
@click.option(
    "--installer",
    "installers",
    multiple=True,
    metavar="NAME",
    help="An installer it may replace (make-installer); `site` is that of all nodes. Repeatable.",
)
@click.option("--expires", "lifetime_s", type=Duration(), default="24h", show_default=True, help="Good for so long.")
@click.option("--note", default="", metavar="TEXT", help="What it is for.")
@click.option(
    "--install-line",
    "is_line",
    is_flag=True,
    help="Print the line that installs `cloner` on a golden node with this token, to be pasted there as root.",
)
@dry_run_option
def token_create(
    run: Invocation,
    *,
    image: str,
    relay: str,
    layouts: tuple[str, ...],
    installers: tuple[str, ...],
    lifetime_s: float,
    note: str,
    is_line: bool,
    dry_run: bool,
) -> None:
    """Make a token and print it; it is told this once.

    With --install-line it comes in the line that installs everything on the golden node. By hand it belongs into
    /etc/cloner/node.toml there, mode 0600, beside the CA of the server as ca.pem (/var/lib/cloner/site/ca.pem here).
    With --relay it belongs into a file of the machine that is to be the relay; the command to type there is told.
    """
    if bool(image) == bool(relay):
        raise InvalidError("a token is for a capture or for a relay", hint="--capture IMAGE, or --relay NAME")
    if relay and is_line:
        raise InvalidError("--install-line is for golden nodes, and --relay is for none")
    if not 0 < lifetime_s <= MOST_LIFETIME_S:
        raise InvalidError(f"--expires: want more than nothing and at most {MOST_LIFETIME_S // _DAY_S}d")
    request = TokenRequest(
        image=image, layouts=layouts, installers=installers, lifetime_s=lifetime_s, note=note, relay=relay
    )
    kit = run.api.get("/v1/kit", KitView) if is_line else None  # before a token is made that nobody gets
    if kit is not None and ipaddress.ip_address(kit.address).is_loopback:
        run.say(f"note: this server is at {kit.address}, where no other machine reaches it (cloner serve --address)")
    view = run.api.post("/v1/tokens", TokenView, request, {"dry_run": dry_run})
    if dry_run:
        run.result(view, lambda: f"would make a token that {_purpose(view)} until {moment(view.expires_s)}")
        return
    run.say(f"note: token {view.id} {_purpose(view)} until {moment(view.expires_s)}; it is not shown again")
    if relay:
        head = run.api.get("/v1/relays/head", HeadView)
        run.say(
            f"note: in a file of mode 0600 on the relay; there: cloner relay --server {head.address}:{head.tls_port}"
            f" --name {relay} --token-file FILE --fingerprint {head.ca_digest}"
        )
    if kit is None:
        run.result(view, lambda: view.token)
    else:
        line = install_line(kit, view.token)
        run.result({**msgspec.to_builtins(view), "install_line": line}, lambda: line)


@command("show", example="cloner token show", group=token_command)
@server_option
def token_show(run: Invocation) -> None:
    """On a golden node: ask the server what the token in /etc/cloner/node.toml is for."""
    if not run.is_remote:
        raise NotFoundError(
            "this machine has no token, or is the server itself", hint="on the server: cloner token list"
        )
    view = run.api.get("/v1/token", TokenView)
    layouts = f", and changes layout {', '.join(view.layouts)}" if view.layouts else ""
    run.result(view, lambda: f"token {view.id} captures {view.image} until {moment(view.expires_s)}{layouts}")


@command("list", example="cloner token list", group=token_command)
def token_list(run: Invocation) -> None:
    """List every token, the newest first; what is shown for one is not kept."""
    views = run.api.get("/v1/tokens", list[TokenView])
    titles = (
        "TOKEN",
        "CAPTURES",
        "LAYOUTS",
        "INSTALLERS",
        "RELAY",
        "MADE",
        "GOOD UNTIL",
        "LAST USED",
        "AUTHOR",
        "NOTE",
    )
    rows = [
        (
            v.id,
            v.image,
            ",".join(v.layouts),
            ",".join(v.installers),
            v.relay,
            moment(v.created_s),
            moment(v.expires_s),
            "never" if v.used_s is None else moment(v.used_s),
            v.author,
            v.note,
        )
        for v in views
    ]
    run.result(views, lambda: columns(titles, rows))


@command("remove", example="cloner token remove 1f0c9a3e", group=token_command)
@click.argument("token_id", metavar="TOKEN")
@dry_run_option
def token_remove(run: Invocation, token_id: str, *, dry_run: bool) -> None:
    """Withdraw a token: from now on it opens nothing."""
    view = run.api.delete(f"/v1/tokens/{segment(token_id)}", TokenView, {"dry_run": dry_run})
    run.result(view, lambda: f"{'would withdraw' if dry_run else 'withdrew'} {view.id}, {_past(view)}")


def _purpose(view: TokenView) -> str:
    return f"is for the relay {view.relay}" if view.relay else f"captures {view.image}"


def _past(view: TokenView) -> str:
    return f"which was for the relay {view.relay}" if view.relay else f"which captured {view.image}"
