"""Arming tasks: what a deploy would do to which node, every objection at once, then all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, select, update

from cloner_core.admin.deploying import CaptureIntent, DeployRequest, DiskAtRisk, EraseIntent, Intent
from cloner_core.admin.images import LayoutView
from cloner_core.admin.nodes import NodeView
from cloner_core.describing import describe_signature
from cloner_core.errors import ClonerError, ConflictError, InvalidError, NotFoundError, RefusedError
from cloner_core.facts import Disk
from cloner_server import planning
from cloner_server.state import images, layouts, nodes, scripts
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import attempts, tasks
from cloner_server.tasks.rules import Rules

AnyIntent = TypeVar("AnyIntent", Intent, EraseIntent, CaptureIntent)
NO_AGENT = "this server offers no agent: the node waits until it runs with --installer"


def intend(connection: Connection, request: DeployRequest, rules: Rules) -> list[Intent]:
    """Return what `request` would do, one entry a node; changes nothing.

    Raises NotFoundError or RefusedError naming every objection found.
    """
    names = list(dict.fromkeys(request.nodes))
    if not names:
        raise InvalidError("no node is named", hint="--nodes node[01-02]")
    if len(names) > request.limit:
        raise RefusedError(
            f"{len(names)} nodes are named, at most {request.limit} are deployed without saying so",
            hint=f"--max {len(names)} says so",
        )
    objections = _missing(connection, names, request)
    intents = []
    known = {node.name: node for node in nodes.list_nodes(connection)}
    for node in (known[name] for name in names if name in known):
        try:
            refuse_ourselves(node, rules)
            intents.append(_told_of_agent(_intend_one(connection, node, request), rules))
        except (NotFoundError, RefusedError, InvalidError) as fault:
            objections.append(fault)
    if objections:
        raise all_of(objections)
    return intents


def require_shown(intents: Sequence[AnyIntent], shown: Sequence[AnyIntent] | None) -> None:
    """Raise ConflictError unless `intents` are what a person was shown and agreed to; None: nobody was asked."""
    if shown is None:
        return
    agreed = {intent.node: intent for intent in shown}
    changed = [intent.node for intent in intents if agreed.get(intent.node) != intent]
    if changed or len(agreed) != len(intents):
        named = f": {', '.join(changed[:20])}" if changed else ""
        raise ConflictError(
            f"what would be armed is no longer what was shown{named}",
            hint="a version, a layout, a node or its disks changed meanwhile: run the command again",
        )


def arm(connection: Connection, act: Act, intents: list[Intent], rules: Rules, *, session: int = 0) -> list[Intent]:
    """Queue one task for each intent and set netboot; returns them with their task ids. `session` 0: HTTPS alone."""
    armed = []
    for intent in intents:
        view = layouts.get_layout(connection, intent.layout, intent.layout_number)
        version = images.get_version(connection, intent.image, intent.version)
        values = {
            "node": intent.node,
            "kind": rows.DEPLOY,
            "image": intent.image,
            "number": intent.version,
            "digest": version.digest,
            "layout": view.name,
            "layout_number": view.number,
            "document": msgspec.json.encode(view.layout).decode(),
            "scripts_number": intent.scripts,
            "attempts_allowed": rules.attempts,
            "session": session,
        }
        release_attempts(connection, intent.node)
        row = rows.add_task(connection, act, values)
        nodes.set_netboot(connection, act, intent.node, rows.netboot_for(row), why=f"task {row.id}")
        armed.append(msgspec.structs.replace(intent, task_id=str(row.id)))
    return armed


def release_attempts(connection: Connection, node: str) -> None:
    """Let every agent that still stands on `node` reboot: its next beat is told `retry`."""
    of_node = select(tasks.c.id).where(tasks.c.node == node)
    standing = attempts.c.task.in_(of_node), attempts.c.state.in_(("live", "holding"))
    connection.execute(update(attempts).where(*standing).values(state="released"))


def _missing(connection: Connection, names: list[str], request: DeployRequest) -> list[ClonerError]:
    """Return what the request itself names and does not exist."""
    missing: list[ClonerError] = []
    looks: list[Callable[[], object]] = [lambda: nodes.get_nodes(connection, names)]
    if request.image:
        looks.append(lambda: images.get_version(connection, request.image, request.version))
    if request.layout:
        looks.append(lambda: layouts.get_layout(connection, request.layout))
    for look in looks:
        try:
            look()
        except NotFoundError as fault:
            missing.append(fault)
    return missing


def refuse_ourselves(node: NodeView, rules: Rules) -> None:
    """Raise RefusedError when `node` has a MAC of this machine."""
    if ours := sorted(set(node.macs) & rules.own_macs):
        raise RefusedError(f"{node.name} is this very server: {', '.join(ours)} is its own", hint="correct its MACs")


def _intend_one(connection: Connection, node: NodeView, request: DeployRequest) -> Intent:
    nodes.refuse_protected(node)
    nodes.refuse_unwritable(node)
    refuse_busy(connection, node)
    faults = []
    if not (image := request.image or node.image):
        faults.append(f"{node.name} has no image (--image NAME, or: cloner node set {node.name} --image NAME)")
    if not (layout_name := request.layout or node.layout):
        faults.append(
            f"{node.name} has no layout (--disklayout NAME, or: cloner node set {node.name} --disklayout NAME)"
        )
    if faults:
        raise RefusedError("; ".join(faults))
    number = request.version if request.image else (request.version or node.version)
    version = images.get_version(connection, image, number)
    view = layouts.get_layout(connection, layout_name)
    intent = _with_disks(connection, node, view, image, version.number, is_new_identity=request.new_identity)
    told = scripts.set_for(connection, image, version.number)
    return msgspec.structs.replace(intent, scripts=told.number if told.scripts else 0)


def refuse_busy(connection: Connection, node: NodeView) -> None:
    """Raise RefusedError when a task holds `node`."""
    if (live := rows.live_task(connection, node.name)) is not None:
        raise RefusedError(
            f"{node.name} has task {live.id}, which is {live.state}",
            hint=f"wait for it, or: cloner task abort {live.id}",
        )


def _told_of_agent(intent: Intent, rules: Rules) -> Intent:
    if rules.has_agent:
        return intent
    return msgspec.structs.replace(intent, note="; ".join(filter(None, (intent.note, NO_AGENT))))


def _with_disks(
    connection: Connection, node: NodeView, view: LayoutView, image: str, number: int, *, is_new_identity: bool
) -> Intent:
    known = nodes.last_facts(connection, node.name)
    intent = Intent(
        node=node.name,
        image=image,
        version=number,
        layout=view.name,
        layout_number=view.number,
        disks=(),
        is_known=False,
        is_new_identity=is_new_identity,
        note="the machine has not told its disks yet; the layout chooses them when it boots",
    )
    if known is None:
        return intent
    try:
        chosen = planning.chosen_disks(view.layout, known[0], node.protected_serials)
    except RefusedError as fault:
        # Not an objection: disks may have been changed since; the agent looks again before it touches anything.
        return msgspec.structs.replace(intent, note=f"by the last inventory it would be refused: {fault.message}")
    return msgspec.structs.replace(intent, disks=tuple(at_risk(*one) for one in chosen), is_known=True, note="")


def at_risk(disk: Disk, kept: Collection[str] = ()) -> DiskAtRisk:
    """Return `disk` as a person is shown it before it is destroyed, but for the partitions `kept`."""
    told = [(found.device in kept, describe_signature(found, with_uuid=False)) for found in disk.signatures]
    named = {found.device for found in disk.signatures}
    return DiskAtRisk(
        path=disk.path,
        serial=disk.serial,
        model=disk.model,
        size_bytes=disk.size_bytes,
        holds=tuple(text for is_kept, text in told if not is_kept),
        keeps=(*(text for is_kept, text in told if is_kept), *sorted(set(kept) - named)),
    )


def all_of(objections: list[ClonerError]) -> ClonerError:
    """Return one error that says all of them."""
    lines = dict.fromkeys(str(fault) for fault in objections)  # one image missing for ten nodes is said once
    if len(lines) == 1:
        return objections[0]
    kind = NotFoundError if all(isinstance(fault, NotFoundError) for fault in objections) else RefusedError
    return kind("\n  - ".join(("nothing was armed:", *lines)))
