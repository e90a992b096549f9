"""Nodes that wait for a multicast session: who may, what their agents are told, and when the waiting ends.

A node that waits has no task and no attempt: its agent tells facts and says that it is there. Called, it gets the claim
of its task, and comes with that as an agent fresh from its boot would. What may open the vault is looked at then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select

from cloner_core.admin.nodes import NodeView
from cloner_core.admin.sessions import WaitingView
from cloner_core.admin.tasks import TaskState
from cloner_core.errors import ClonerError, RefusedError, UnreachableError
from cloner_core.messages import Secret
from cloner_core.seats import CHECK_IN_S, CheckIn, WaitHello, WaitReply
from cloner_core.sizes import format_bytes
from cloner_server.state import events, nodes
from cloner_server.state import tasks as rows
from cloner_server.state import waiting as kept
from cloner_server.state.database import Act
from cloner_server.state.tables import nodes as node_rows
from cloner_server.state.tables import tasks, waiting
from cloner_server.state.tasks import AnyRow
from cloner_server.tasks import bootclaims
from cloner_server.tasks.claims import mint_claim as mint_claim_of_task
from cloner_server.tasks.rules import Rules, token_hash
from cloner_server.tasks.states import CLAIMABLE

NETBOOT = "cloner-multicast"
REFUSED = "wait refused"
_KIND = "waiting"
_GONE_S = 600.0  # after which a node that was sent away and is silent is forgotten
_SILENT_S = 3 * CHECK_IN_S
_UNARMED = "cloner"  # what a node goes back to whose task failed: there it waits at its boot script


def set_waiting(
    connection: Connection, act: Act, names: Sequence[str], rules: Rules, needed_bytes: Mapping[str, int]
) -> list[NodeView]:
    """Have nodes wait for a session from their next network boot on: all of them, or none.

    `needed_bytes` is the memory that the installer of each node wants.
    Raises RefusedError naming every node with a live task, or with too little memory for the agent.
    """
    if not rules.has_agent:
        raise RefusedError(
            f"this server offers no agent, so netboot {NETBOOT} leads nowhere", hint="cloner serve --installer"
        )
    for node in bootclaims.ready_nodes(connection, names, needed_bytes):
        before = kept.of_node(connection, node.name)
        if node.netboot == NETBOOT and before is not None and not before.leave:
            continue  # it waits already, and goes on
        bootclaims.forget(connection, f"node/{node.name}")
        kept.add(connection, node.name, _former(node))
    return [nodes.set_netboot(connection, act, name, NETBOOT, why="asked for") for name in names]


def mint_claim(connection: Connection, act: Act, node: str, rules: Rules) -> str:
    """Return a new claim token for `node` to wait with."""
    return bootclaims.mint(connection, act, f"{_KIND}/{node}", rules)


def accept_hello(
    connection: Connection, act: Act, hello: WaitHello, rules: Rules, *, address: str = ""
) -> WaitReply | ClonerError:
    """Keep the facts of a node that waits, and say what it is to do; `address` is where the hello came from.

    A refusal is returned, not raised: the alarm that goes with it must be committed first.
    """
    claim = bootclaims.find(connection, act, hello.claim, (_KIND,))
    if isinstance(claim, ClonerError):
        return claim
    name = claim.object.partition("/")[2]
    if claim.used_s is not None and claim.public_key != hello.public_key:
        why = "the claim was used before, by another machine or another boot"
        return bootclaims.refuse(connection, act, f"node/{name}", REFUSED, why)
    if why := bootclaims.unlike(connection, act, name, hello.facts, rules):
        return bootclaims.refuse(connection, act, f"node/{name}", REFUSED, why)
    row = kept.of_node(connection, name)
    if row is not None and claim.used_s is None and (refusal := _stand_back(connection, act, row, claim)) is not None:
        return refusal
    nodes.remember_facts(connection, act, name, hello.facts)
    if row is None:
        kept.add(connection, name, _UNARMED)
    if claim.used_s is None:
        bootclaims.use(connection, act, claim, hello.public_key)
        events.record(connection, act, f"node/{name}", "waits", link_mbps=hello.link_mbps, address=address)
    since_s = act.now_s if row is None or row.since_s is None else row.since_s
    came = {"token_hash": token_hash(hello.claim), "public_key": hello.public_key, "link_mbps": hello.link_mbps}
    kept.change(connection, name, **came, address=address, since_s=since_s, seen_s=act.now_s)
    return _order(connection, act, name, rules)


def _stand_back(connection: Connection, act: Act, row: AnyRow, claim: AnyRow) -> ClonerError | None:
    """Return why a newcomer cannot wait as the node of `row` now; None when nobody else does.

    The machine that was restarted has not checked in since it fetched the script that brought the claim: it waits
    until its former boot counts as silent. Who was heard since then is another machine, and stays.
    """
    left_s = 0.0 if row.seen_s is None or row.leave else row.seen_s + _SILENT_S - act.now_s
    if left_s <= 0:
        return None
    if row.seen_s > claim.minted_s:
        told = f"the one at {row.address}" if row.address else "the other"
        why = f"a second machine shows the MAC address of this node, which waits: {told} stays"
        return bootclaims.refuse(connection, act, f"node/{row.node}", REFUSED, why)
    return UnreachableError(f"{row.node} may still be waiting; {left_s:.0f} s until it counts as silent")


def accept_check_in(
    connection: Connection, act: Act, message: CheckIn, rules: Rules, *, address: str = ""
) -> WaitReply | ClonerError:
    """Note that a node still waits, and say what it is to do."""
    row = kept.of_agent(connection, token_hash(message.claim), message.public_key)
    if row is None:
        return bootclaims.unknown(connection, act, "unknown")
    kept.change(connection, row.node, seen_s=act.now_s, address=address)
    return _order(connection, act, row.node, rules)


def is_called(connection: Connection, node: str) -> bool:
    """Tell whether a node that waits is to do anything else; a look without a write transaction."""
    task = rows.live_task(connection, node)
    is_ready = task is not None and TaskState(task.state) in CLAIMABLE
    row = kept.of_node(connection, node)
    return is_ready or row is None or nodes.get_node(connection, node).netboot != NETBOOT


def is_due(connection: Connection, now_s: float, rules: Rules) -> bool:
    """Return whether `tidy` would do anything; a look without a write transaction."""
    return bool(_tired(connection, now_s, rules) or _gone(connection, now_s))


def tidy(connection: Connection, act: Act, rules: Rules) -> list[str]:
    """Send away who waited too long, and forget who is gone; return the nodes that are to hear of it at once."""
    tired = _tired(connection, act.now_s, rules)
    for row in tired:
        why = f"no session called it within {rules.wait_s / 3600:g} h"
        told = {"since_s": row.since_s, "netboot": row.former}
        hint = f"cloner netboot --nodes {row.node} --set {NETBOOT} has it wait again"
        events.record(connection, act, f"node/{row.node}", "waited too long", alarm=True, why=why, hint=hint, **told)
        kept.change(connection, row.node, leave=why)
        nodes.set_netboot(connection, act, row.node, row.former, why=why)
    for node in _gone(connection, act.now_s):
        kept.forget(connection, node)
    return [row.node for row in tired]


def list_waiting(connection: Connection, now_s: float) -> list[WaitingView]:
    """Return the nodes that wait for a session, and those that are on their way to one, by name."""
    coming = tasks.c.session != 0, tasks.c.state.in_((TaskState.QUEUED.value, TaskState.BOOTING.value))
    query = select(tasks.c.node, tasks.c.session).where(*coming)
    called = {row.node: str(row.session) for row in connection.execute(query)}
    here = {row.node: row for row in kept.list_rows(connection)}
    in_word = select(node_rows.c.name).where(node_rows.c.netboot == NETBOOT)
    free = {name for name in connection.execute(in_word).scalars() if rows.live_task(connection, name) is None}
    names = sorted(free | set(called))
    return [
        _view(connection, node, here.get(node.name), called.get(node.name, ""), now_s)
        for node in nodes.get_nodes(connection, names)
    ]


def _former(node: NodeView) -> str:
    """Return what a node goes back to; a capture that came to nothing is not begun anew by itself."""
    return _UNARMED if node.netboot in (NETBOOT, "capture") else node.netboot


def _order(connection: Connection, act: Act, name: str, rules: Rules) -> WaitReply:
    task, node = rows.live_task(connection, name), nodes.get_node(connection, name)
    if task is not None and TaskState(task.state) in CLAIMABLE and task.kind == rows.DEPLOY:
        claim = Secret(mint_claim_of_task(connection, act, name, rules))
        text = f"task {task.id}: {task.image}:{task.number}"
        return WaitReply("go", name, text, claim=claim, server_time_s=act.now_s)
    if task is not None:
        text = f"task {task.id}, which is to {task.kind}, is {task.state}"
        return WaitReply("leave", name, text, server_time_s=act.now_s)
    if node.netboot != NETBOOT:
        row = kept.of_node(connection, name)
        text = (row.leave if row is not None else "") or f"netboot of {name} is {node.netboot} now"
        return WaitReply("leave", name, text, server_time_s=act.now_s)
    text = f"waits for a session: cloner multicast-image --image NAME --nodes {name}"
    return WaitReply("wait", name, text, server_time_s=act.now_s)


def _tired(connection: Connection, now_s: float, rules: Rules) -> list[AnyRow]:
    """Return the rows of nodes that waited too long."""
    of_node = waiting.join(node_rows, node_rows.c.name == waiting.c.node)
    late = waiting.c.since_s <= now_s - rules.wait_s, node_rows.c.netboot == NETBOOT, waiting.c.leave == ""
    found = connection.execute(select(waiting).select_from(of_node).where(*late)).all()
    return [row for row in found if rows.live_task(connection, row.node) is None]


def _gone(connection: Connection, now_s: float) -> list[str]:
    """Return the nodes that are to do something else, and do not speak any more or never came."""
    of_node = waiting.join(node_rows, node_rows.c.name == waiting.c.node)
    is_silent = waiting.c.seen_s.is_(None) | (waiting.c.seen_s <= now_s - _GONE_S)
    query = select(waiting.c.node).select_from(of_node).where(is_silent, node_rows.c.netboot != NETBOOT)
    return list(connection.execute(query).scalars())


def _view(connection: Connection, node: NodeView, row: AnyRow | None, session: str, now_s: float) -> WaitingView:
    known = nodes.last_facts(connection, node.name)
    seen_s = row.seen_s if row is not None else None
    note = ""
    if seen_s is None:
        note = "has not netbooted yet"
    elif now_s - seen_s > _SILENT_S:
        note = f"silent for {(now_s - seen_s) / 60:.0f} min"
    return WaitingView(
        node=node.name,
        image=node.image,
        since_s=row.since_s if row is not None else None,
        seen_s=seen_s,
        address=row.address if row is not None else "",
        link_mbps=row.link_mbps if row is not None else 0,
        memory_bytes=known[0].memory_bytes if known else 0,
        disks=tuple(f"{disk.path} {format_bytes(disk.size_bytes)}" for disk in known[0].disks) if known else (),
        session=session,
        note=note,
    )
