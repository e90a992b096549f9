"""Claims of boot scripts that lead to no task: the agent tells facts (`discovery`), or waits (`waiting`).

A claim is of one object, "node/n01", "machine/MAC" or "waiting/n01"; it is used once, and opens nothing by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from cloner_core.admin.nodes import NodeView
from cloner_core.errors import ClonerError, RefusedError
from cloner_core.facts import Facts
from cloner_server.state import events, nodes
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import discover_claims as claims
from cloner_server.state.tasks import AnyRow
from cloner_server.tasks.claims import UnknownClaimError, foreign_machine, hardware_of, stranger
from cloner_server.tasks.rules import Rules, token_hash

_OPEN_CLAIMS = 20  # of one machine; anybody on the network can ask for boot scripts


def mint(connection: Connection, act: Act, obj: str, rules: Rules) -> str:
    """Return a new claim token of `obj`."""
    token = secrets.token_hex(20)
    times = {"minted_s": act.now_s, "expires_s": act.now_s + rules.claim_life_s}
    connection.execute(insert(claims).values(token_hash=token_hash(token), object=obj, **times))
    # The first one stays, whatever a stranger fetches: its age says how long the machine has been trying.
    unused = claims.c.object == obj, claims.c.used_s.is_(None)
    by_age = select(claims.c.token_hash).where(*unused).order_by(claims.c.minted_s.desc())
    newest = list(connection.execute(by_age).scalars())
    connection.execute(delete(claims).where(claims.c.token_hash.in_(newest[_OPEN_CLAIMS - 1 : -1])))
    return token


def find(connection: Connection, act: Act, token: str, kinds: Sequence[str]) -> AnyRow | ClonerError:
    """Return the claim of `token` that is of one of `kinds`, used or not; the refusal of any other."""
    claim = connection.execute(select(claims).where(claims.c.token_hash == token_hash(token))).one_or_none()
    is_ours = claim is not None and claim.object.partition("/")[0] in kinds
    if claim is not None and is_ours and (claim.used_s is not None or claim.expires_s > act.now_s):
        return claim
    return unknown(connection, act, "expired" if is_ours else "unknown")


def unknown(connection: Connection, act: Act, why: str) -> ClonerError:
    """Note a claim that is not believed, and return its refusal."""
    events.record_seldom(connection, act, "site", "claim refused", is_network=True, why=why)
    return UnknownClaimError("the claim is unknown or expired", hint="boot over the network again for a new one")


def use(connection: Connection, act: Act, claim: AnyRow, public_key: str) -> None:
    """Note that the agent with this key used the claim; all others of its object are taken back."""
    used = {"used_s": act.now_s, "public_key": public_key}
    connection.execute(update(claims).where(claims.c.token_hash == claim.token_hash).values(used))
    forget(connection, claim.object)


def forget(connection: Connection, obj: str) -> None:
    """Take back the claims of `obj` no agent has used yet."""
    connection.execute(delete(claims).where(claims.c.object == obj, claims.c.used_s.is_(None)))


def unlike(connection: Connection, act: Act, name: str, facts: Facts, rules: Rules) -> str:
    """Return why these facts are of another machine than node `name`; "" when they are not."""
    node = nodes.get_node(connection, name)
    if (foreign := foreign_machine(node, facts)) is not None:
        return foreign.why
    if (foreign := stranger(node, facts, rules)) is None:
        return ""
    nodes.offer_hardware(connection, name, hardware_of(facts, act.now_s))
    # Who has no hardware yet may show it: what is kept decides nothing, and an admin accepts it or not.
    return foreign.why if node.fingerprint else ""


def refuse(connection: Connection, act: Act, obj: str, what: str, why: str) -> ClonerError:
    """Note, as an alarm, that a machine is turned away; return its refusal."""
    events.record_seldom(connection, act, obj, what, alarm=True, why=why)
    return RefusedError(f"{obj.partition('/')[2]}: {why}", hint="find out which machine is right: cloner events")


def ready_nodes(connection: Connection, names: Sequence[str], needed_bytes: Mapping[str, int]) -> list[NodeView]:
    """Return the nodes, all of which could boot the agent without a task; `needed_bytes` is the memory each wants.

    Raises RefusedError naming every node with a live task, or with too little memory for the agent.
    """
    found, held = nodes.get_nodes(connection, names), []
    for node in found:
        live, known = rows.live_task(connection, node.name), nodes.last_facts(connection, node.name)
        if live is not None:
            held.append(f"{node.name} has task {live.id}, which is {live.state}")
        elif known is not None and known[0].memory_bytes < needed_bytes[node.name]:
            has = f"{node.name} has {known[0].memory_bytes >> 20} MiB of memory"
            held.append(f"{has}, the agent needs {needed_bytes[node.name] >> 20} MiB")
    if held:
        raise RefusedError("; ".join(held), hint="cloner task abort ends a task; less memory wants a smaller installer")
    return found
