"""Inventories without a task: who may be asked for one, the claim of its boot script, and what came of it.

A claim of this kind lets a machine tell its facts, once, and opens nothing: no image, no identity, no plan. Whatever
comes of it, netboot goes back to `local`; only a node whose disk was touched goes on to wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CompoundSelect, Connection, delete, func, select

from cloner_core.admin.nodes import NodeView
from cloner_core.errors import ClonerError, RefusedError
from cloner_core.facts import Facts
from cloner_core.messages import Discovered, DiscoverFailure, Hello
from cloner_core.sightings import boot_verdict
from cloner_server.state import events, machines, nodes, sightings
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import discover_claims as claims
from cloner_server.state.tables import machines as machine_rows
from cloner_server.state.tables import nodes as node_rows
from cloner_server.state.tasks import AnyRow
from cloner_server.tasks import bootclaims
from cloner_server.tasks.rules import Rules

FAILED = "discover failed"
REFUSED = "discover refused"
_SERVED = "boot agent"
_KINDS = ("node", "machine")
_TEXT = 500


def set_discover(
    connection: Connection, act: Act, names: Sequence[str], rules: Rules, needed_bytes: Mapping[str, int]
) -> list[NodeView]:
    """Have nodes tell their facts at their next network boot: all of them, or none.

    `needed_bytes` is the memory that the installer of each node wants.
    Raises RefusedError naming every node with a live task, or with too little memory for the agent.
    """
    _refuse_without_agent(rules)
    found = bootclaims.ready_nodes(connection, names, needed_bytes)
    for node in found:
        bootclaims.forget(connection, f"node/{node.name}")
    return [nodes.set_netboot(connection, act, name, "discover", why="asked for") for name in names]


def set_machines(connection: Connection, act: Act, macs: Sequence[str], value: str, rules: Rules) -> None:
    """Allow the inventory of machines that are no nodes, or take it back; raises RefusedError for a node's MAC."""
    if value == "discover":
        _refuse_without_agent(rules)
    owned = [f"{mac} is {name}" for mac in macs if (name := nodes.name_of_mac(connection, mac))]
    if owned:
        raise RefusedError("; ".join(owned), hint="cloner netboot --nodes NODE --set discover")
    for mac in macs:
        bootclaims.forget(connection, f"machine/{mac}")
        machines.set_netboot(connection, act, mac, value, why="asked for")


def mint_claim(connection: Connection, act: Act, mac: str, rules: Rules) -> str:
    """Return a new claim token for the machine with `mac`; raises RefusedError when nobody asked for its inventory."""
    node = nodes.find_by_mac(connection, mac)
    netboot = machines.netboot_of(connection, mac) if node is None else node.netboot
    if netboot != "discover":
        raise RefusedError(f"nobody asked for the inventory of {mac}")
    obj = f"machine/{mac}" if node is None else f"node/{node.name}"
    return bootclaims.mint(connection, act, obj, rules)


def accept_facts(connection: Connection, act: Act, hello: Hello, rules: Rules) -> Discovered | ClonerError:
    """Keep the facts of a machine that was to be discovered, and send it to its disk.

    A refusal is returned, not raised: the alarm that goes with it must be committed first.
    """
    claim = _find(connection, act, hello.claim)
    if isinstance(claim, ClonerError):
        return claim
    kind, _, name = claim.object.partition("/")
    if claim.used_s is not None:
        if claim.public_key == hello.public_key:
            return Discovered(name)  # our reply was lost on the way
        return _refuse(connection, act, claim.object, "the claim was used before, by another machine or another boot")
    refusal = _unlike(connection, act, kind, name, facts=hello.facts, rules=rules)
    if refusal:
        return _refuse(connection, act, claim.object, refusal)
    if kind == "node":
        nodes.remember_facts(connection, act, name, hello.facts)
    else:
        machines.remember_facts(connection, act, name, hello.facts)
    bootclaims.use(connection, act, claim, hello.public_key)
    facts = hello.facts
    told: dict[str, Any] = {
        "disks": len(facts.disks),
        "memory_mib": facts.memory_bytes >> 20,
        "firmware": facts.firmware.value,
    }
    events.record(connection, act, claim.object, "discovered", **told)
    _send_home(connection, act, claim.object, why="discovered")
    return Discovered(name)


def accept_failure(connection: Connection, act: Act, failure: DiscoverFailure) -> ClonerError | None:
    """Note why an agent took no inventory, and send its machine to its disk; returns a refusal, None when noted."""
    claim = _find(connection, act, failure.claim)
    if isinstance(claim, ClonerError):
        return claim
    if claim.used_s is None:
        bootclaims.use(connection, act, claim, failure.public_key)
        _fail(connection, act, claim.object, failure.message[:_TEXT], failure.hint[:_TEXT])
    elif claim.public_key != failure.public_key:
        return _refuse(connection, act, claim.object, "the claim was used before, by another machine or another boot")
    return None


def is_due(connection: Connection, now_s: float, rules: Rules, started_s: float) -> bool:
    """Return whether `tidy` would do anything; a look without a write transaction."""
    return bool(_overdue(connection, now_s, rules, started_s))


def tidy(connection: Connection, act: Act, rules: Rules, started_s: float) -> None:
    """End what came to nothing: the script was fetched, and no agent told anything since. Forget old claims."""
    for obj, since_s in _overdue(connection, act.now_s, rules, started_s):
        kind, _, name = obj.partition("/")
        seen = sightings.list_sightings(connection, name) if kind == "node" else []
        verdict = boot_verdict(seen, since_s, events.count_since(connection, obj, _SERVED, since_s))
        bootclaims.forget(connection, obj)
        _fail(connection, act, obj, verdict.message, verdict.hint)
    is_old = claims.c.expires_s <= act.now_s, claims.c.minted_s <= act.now_s - rules.boot_s
    connection.execute(delete(claims).where(*is_old, claims.c.object.not_in(_wanted())))


def _refuse_without_agent(rules: Rules) -> None:
    if not rules.has_agent:
        raise RefusedError("this server offers no agent, so nothing can be discovered", hint="cloner serve --installer")


def _find(connection: Connection, act: Act, token: str) -> AnyRow | ClonerError:
    claim = bootclaims.find(connection, act, token, _KINDS)
    if isinstance(claim, ClonerError) or _is_known(connection, claim):
        return claim
    return bootclaims.unknown(connection, act, "unknown")


def _is_known(connection: Connection, claim: AnyRow) -> bool:
    """Tell whether the machine of a claim was neither forgotten nor made a node since."""
    kind, _, name = claim.object.partition("/")
    return kind == "node" or machines.netboot_of(connection, name) != ""


def _unlike(connection: Connection, act: Act, kind: str, name: str, *, facts: Facts, rules: Rules) -> str:
    """Return why these facts are of another machine than they should be; "" when they are not."""
    if kind == "machine":
        return "" if name in {nic.mac for nic in facts.nics} else f"the machine has no card with the address {name}"
    return bootclaims.unlike(connection, act, name, facts, rules)


def _refuse(connection: Connection, act: Act, obj: str, why: str) -> ClonerError:
    return bootclaims.refuse(connection, act, obj, REFUSED, why)


def _fail(connection: Connection, act: Act, obj: str, message: str, hint: str) -> None:
    events.record(connection, act, obj, FAILED, alarm=True, message=message, hint=hint)
    _send_home(connection, act, obj, why=f"{FAILED}: {message}")


def _send_home(connection: Connection, act: Act, obj: str, *, why: str) -> None:
    """Set netboot to what a machine did before, unless somebody has set it to something else meanwhile."""
    kind, _, name = obj.partition("/")
    if kind == "machine":
        machines.set_netboot(connection, act, name, "local", why=why)
    elif nodes.get_node(connection, name).netboot == "discover":
        nodes.set_netboot(connection, act, name, _home_of(connection, name), why=why)


def _home_of(connection: Connection, node: str) -> str:
    """Return `local`, or `cloner` for a node that waits at its boot script because its disk was touched."""
    last = events.last_id_of(connection, f"node/{node}", "netboot")
    told = events.list_events(connection, after=last - 1, obj=f"node/{node}", limit=1) if last else []
    was_local = bool(told) and told[0].detail["before"] == "local"  # then a person knows better of its disk
    return "local" if was_local or not rows.is_disk_touched(connection, node) else "cloner"


def _overdue(connection: Connection, now_s: float, rules: Rules, started_s: float) -> list[tuple[str, float]]:
    """Return what still waits for its inventory, and since when its first boot script was fetched."""
    if started_s > now_s - rules.boot_s:
        return []
    waiting = claims.c.used_s.is_(None), claims.c.object.in_(_wanted())
    first_s = func.min(claims.c.minted_s)
    query = select(claims.c.object, first_s).where(*waiting).group_by(claims.c.object)
    found = connection.execute(query.having(first_s <= now_s - rules.boot_s))
    return [(obj, float(since_s)) for obj, since_s in found]


def _wanted() -> CompoundSelect[tuple[str]]:
    """Select the objects whose inventory is asked for."""
    of_nodes = select("node/" + node_rows.c.name).where(node_rows.c.netboot == "discover")
    of_machines = select("machine/" + machine_rows.c.mac).where(machine_rows.c.netboot == "discover")
    return of_nodes.union_all(of_machines)
