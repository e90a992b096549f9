"""`cloner multicast-image`: arms a multicast session, after saying what it destroys."""

from __future__ import annotations

import click
import msgspec

from cloner_cli.checking import Checks
from cloner_cli.commands import (
    Duration,
    Rate,
    command,
    dry_run_option,
    layout_option,
    max_option,
    nodes_option,
    timeout_option,
    yes_option,
)
from cloner_cli.deploy import agree, describe
from cloner_cli.invocation import Invocation
from cloner_cli.multicast import require_watch, watch_option, watch_session
from cloner_cli.text import duration, printable
from cloner_core.admin.sessions import WAIT_S, SessionIntent, SessionRequest, format_group
from cloner_core.sizes import format_rate

_BITS = 8


@command(
    "multicast-image",
    example="cloner multicast-image --image debian:7 --nodes node[01-40] --wait 10min --rate 700Mbit --watch",
)
@click.option(
    "--image",
    "-i",
    required=True,
    metavar="NAME[:VERSION]",
    help="Image; VERSION is a number or a channel, the newest unless told.",
)
@nodes_option
@layout_option
@click.option("--min", "least", type=click.IntRange(min=1), metavar="COUNT", help="Begin when so many nodes hear.")
@click.option(
    "--wait",
    "wait_s",
    type=Duration(),
    metavar="TIME",
    help="Begin so long after the first node is ready, however many hear: 90s, 10min, 2h.  [default: 10min]",
)
@click.option("--start-now", is_flag=True, help="Begin with the first node that hears; the others come in later.")
@click.option(
    "--rate",
    "bytes_per_s",
    type=Rate(),
    metavar="RATE",
    help="Send no faster, headers included: 700Mbit, 1Gbit, 80MiB; the server's share of the link unless told.",
)
@click.option(
    "--priority",
    type=click.IntRange(-1000, 1000),
    default=0,
    show_default=True,
    help="The higher goes first where the link has no room for all.",
)
@click.option("--override-image", is_flag=True, help="Take nodes of another image too.")
@click.option(
    "--hops", type=click.IntRange(1, 255), default=1, show_default=True, help="Routers on the way to the nodes, plus 1."
)
@click.option("--relay", default="", metavar="NAME", help="Send it on the wire of this relay (cloner relay-list).")
@max_option
@watch_option
@timeout_option
@yes_option
@dry_run_option
def multicast_image_command(
    run: Invocation,
    *,
    image: str,
    nodes: tuple[str, ...],
    disklayout: str,
    least: int | None,
    wait_s: float | None,
    start_now: bool,
    bytes_per_s: int | None,
    priority: int,
    override_image: bool,
    hops: int,
    relay: str,
    limit: int,
    watch: bool,
    timeout_s: float | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Destroy the disks of nodes and put one image on all of them, sent once by multicast.

    Nodes that wait already (cloner multicast-status) go on at once, the others at their next network boot. Sending
    begins when every node hears, or --min of them; --wait after the first one is ready; or with the first one
    (--start-now). A node that comes later, does not hear, or is too slow for the others goes over HTTPS, or gets what
    it missed at the end.
    All nodes are armed, or none. With --json the result is what was armed; with --watch, the session and its tasks as
    they ended.
    """
    require_watch(timeout_s, watch=watch)
    checks = Checks()
    names = checks.nodes(run.api, nodes)
    name, version = checks.image(image)
    if least is not None and names and least > len(names):
        checks.wrong.append(f"--min {least}: {len(names)} nodes are named")
    if start_now and (least is not None or wait_s is not None):
        checks.wrong.append("--start-now begins with the first node: --min and --wait say something else")
    checks.exist(run.api, nodes=names, image=name, version=version, layout=disklayout)
    checks.settle("nothing was armed")
    wanted = SessionRequest(
        nodes=tuple(names),
        image=name,
        version=version,
        layout=disklayout,
        least=least or 0,
        wait_s=WAIT_S if wait_s is None else wait_s,
        rate_bps=float((bytes_per_s or 0) * _BITS),
        start_now=start_now,
        priority=priority,
        override_image=override_image,
        hops=hops,
        relay=relay,
        limit=limit,
    )
    armed = _arm(run, wanted, is_dry=dry_run, is_yes=yes)
    if watch and not dry_run:
        run.say(f"session {armed.id}")
        watch_session(run, armed.id, [intent.task_id for intent in armed.intents], timeout_s)
        return
    run.result(armed, lambda: _told(armed, wanted) if dry_run else f"session {armed.id}")


def _arm(run: Invocation, wanted: SessionRequest, *, is_dry: bool, is_yes: bool) -> SessionIntent:
    """Show what `wanted` would destroy, ask, and arm it; returns what was armed, or in a dry run would be."""
    # The count is asked for here, where a person can type it; a dry run keeps the limit as the server sees it.
    most = wanted.limit if is_dry else max(wanted.limit, len(wanted.nodes))
    trial = msgspec.structs.replace(wanted, limit=most, dry_run=True)
    seen = run.api.post("/v1/multicast/sessions", SessionIntent, trial)
    if is_dry:
        return seen
    run.say(_session(seen, wanted))
    agree(run, seen.intents, wanted.limit, is_yes=is_yes)
    fixed = msgspec.structs.replace(
        trial,
        version=seen.intents[0].version,  # that was shown, though a newer one may be published meanwhile
        dry_run=False,
        shown=seen.intents,
    )
    return run.api.post("/v1/multicast/sessions", SessionIntent, fixed)


def _told(seen: SessionIntent, wanted: SessionRequest) -> str:
    return f"{_session(seen, wanted)}\n{describe(seen.intents)}"


def _session(seen: SessionIntent, wanted: SessionRequest) -> str:
    """Return how it would be sent."""
    count = len(wanted.nodes)
    hear = "all" if wanted.least in (0, count) else f"{wanted.least} of them"
    begins = f"when {hear} hear, or {duration(wanted.wait_s)} after the first is ready"
    if wanted.start_now:
        begins = "with the first that hears"
    where = format_group(seen.group, seen.port)
    on_relay = f" on the wire of relay {wanted.relay}" if wanted.relay else ""
    lines = [
        f"by multicast{on_relay} to {count} node{'s' * (count != 1)}, {where},"
        f" at most {format_rate(seen.rate_bps)}; begins {begins}",
        *(f"note: {note}" for note in seen.notes),
    ]
    return "\n".join(map(printable, lines))
