"""`cloner relay`, in a rack: runs the sessions of its wire. `cloner relay-list`, on the server: which there are."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloner_cli.commands import FilePath, Rate, Size, command
from cloner_cli.invocation import Invocation
from cloner_cli.reporting import give
from cloner_cli.text import columns, moment, printable
from cloner_core.admin.names import check_name
from cloner_core.admin.relays import RelayView
from cloner_core.errors import UnreachableError
from cloner_core.sizes import format_bytes, format_rate

if TYPE_CHECKING:
    from cloner_cli.relayhead import HttpHead
    from cloner_server.relay.daemon import Relay

log = logging.getLogger(__name__)

READY = "CLONER RELAY READY"
_CACHE = "/var/cache/cloner-relay"
_BITS = 8
_AGAIN_S = 2.0
_MBPS = 1e6


@command(
    "relay",
    example="cloner relay --server head:8443 --name rack3 --token-file /etc/cloner/relay.token --fingerprint 3f9a…",
)
@click.option("--server", required=True, metavar="HEAD[:PORT]", help="The server, and the port of its nodes' API.")
@click.option("--name", required=True, metavar="NAME", help="As the token and `multicast-image --relay` call it.")
@click.option("--token-file", required=True, type=FilePath(), metavar="FILE", help="Holds the token, mode 0600.")
@click.option(
    "--fingerprint",
    required=True,
    metavar="SHA256",
    help="Of the server's CA: `cloner token create --relay` prints it.",
)
@click.option("--interface", default="", metavar="IF", help="Where nodes are; that of the default route unless told.")
@click.option(
    "--cache", type=FilePath(file_okay=False), default=_CACHE, show_default=True, metavar="DIR", help="Where packs lie."
)
@click.option(
    "--cache-size",
    "cache_bytes",
    type=Size(),
    default="50GiB",
    show_default=True,
    metavar="SIZE",
    help="Keep so much at most; what was used last the longest ago goes first.",
)
@click.option(
    "--rate",
    "bytes_per_s",
    type=Rate(),
    metavar="RATE",
    help="All sessions together send no faster: 700Mbit, 1Gbit; 70 % of the link's speed unless told.",
)
def relay_command(
    run: Invocation,
    *,
    server: str,
    name: str,
    token_file: Path,
    fingerprint: str,
    interface: str,
    cache: Path,
    cache_bytes: int,
    bytes_per_s: int | None,
) -> None:
    """Be the relay of a rack until SIGTERM: take what sessions send from the server once, and send it on this wire.

    Sessions are ordered on the server: cloner multicast-image --relay NAME. Nodes need to reach the server as they do
    without a relay. What was fetched stays in the cache for other sessions. A line that begins with CLONER RELAY READY
    says that the server has answered.
    """
    from cloner_cli.relayhead import open_head, parse_fingerprint, read_token
    from cloner_server.config import ServerConfig
    from cloner_server.multicast.links import find_link
    from cloner_server.relay.cache import PackCache, held
    from cloner_server.relay.daemon import relaying

    check_name(name, "relay")
    token, wanted = read_token(token_file), parse_fingerprint(fingerprint)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with held(cache):
        head = _reach(lambda: open_head(server, name, token, wanted), stopping)
        if head is None:
            return
        settings = ServerConfig(interface=interface, multicast_mbps=(bytes_per_s or 0) * _BITS / _MBPS)
        with relaying(head, PackCache(cache, cache_bytes), partial(find_link, settings), stopping) as relay:
            ready = f"{READY} name={name} server={server}"
            threading.Thread(target=_announce, args=(relay, ready), daemon=True).start()
            relay.run()


def _reach(find: Callable[[], HttpHead], stopping: threading.Event) -> HttpHead | None:
    """Return what `find` does once the head answers, which may be started after us; None when told to stop."""
    while not stopping.is_set():
        try:
            return find()
        except UnreachableError as fault:
            log.warning("%s", fault)
            stopping.wait(_AGAIN_S)
    return None


def _announce(relay: Relay, ready: str) -> None:
    relay.greeted.wait()
    give(ready)


@command("relay-list", example="cloner relay-list")
def relay_list_command(run: Invocation) -> None:
    """List the relays that were heard of since the server was started, or have a token."""
    views = run.api.get("/v1/relays", list[RelayView])
    if not views:
        run.say("no relay is known (cloner token create --relay NAME, then cloner relay in the rack)")
    run.result(views, lambda: relays_table(views) if views else "")


def relays_table(views: list[RelayView]) -> str:
    """Return a line for each relay."""
    titles = (
        "RELAY",
        "STATE",
        "ADDRESS",
        "INTERFACE",
        "NETWORK",
        "SPEED",
        "SHARE",
        "LAST HEARD",
        "CACHE",
        "SESSIONS",
        "NOTE",
    )
    return columns(titles, [_row(view) for view in views])


def _row(view: RelayView) -> tuple[str, ...]:
    is_known = view.heard_s is not None
    note = view.note or ("" if view.token_expires_s is not None else "it has no token any more")
    return (
        view.name,
        "here" if view.is_present else "away",
        view.address,
        printable(view.interface),
        view.network,
        format_rate(view.speed_bps) if view.speed_bps else "",
        format_rate(view.budget_bps) if view.budget_bps else "",
        moment(view.heard_s) if is_known else "never",
        f"{format_bytes(view.cache_used_bytes)} of {format_bytes(view.cache_limit_bytes)}" if is_known else "",
        ",".join(view.sessions),
        printable(note),
    )
