"""Tasks that capture a node at rest: arming one, the layout it finds, and the version it ends with.

The record of such a task is the version itself, signed by this server: there is no receipt beside it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection

from cloner_core.admin.deploying import CaptureIntent, CaptureRequest
from cloner_core.admin.images import LayoutView
from cloner_core.admin.names import check_name
from cloner_core.admin.nodes import NodeView
from cloner_core.atrest import CaptureOrder, CaptureTask, LayoutFound
from cloner_core.errors import InvalidError, NotFoundError, RefusedError
from cloner_core.image.options import StoredOptions, canonical
from cloner_core.image.version import Draft, VersionRecord, check_image_name
from cloner_core.layout import Layout, layout_differences
from cloner_core.layout.rules import layout_faults
from cloner_core.messages import ConfirmWay, Stage
from cloner_server.state import imageoptions, images, layouts, nodes, publishing
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.tasks.arming import NO_AGENT, at_risk, refuse_busy, refuse_ourselves, release_attempts
from cloner_server.tasks.attempts import Bearer, require_capture
from cloner_server.tasks.rules import Rules
from cloner_server.tasks.states import Happening

_UNKNOWN = "the machine has not told its disks yet"


def intend_capture(connection: Connection, request: CaptureRequest, rules: Rules) -> CaptureIntent:
    """Return what `request` would do; changes nothing. Raises InvalidError, NotFoundError, RefusedError."""
    node = nodes.get_node(connection, request.node)
    refuse_ourselves(node, rules)
    refuse_busy(connection, node)
    order = request.order or _own_order(connection, node)
    check_image_name(order.image)
    order = msgspec.structs.replace(order, options=canonical(order.options))
    if not order.options.layout:
        raise InvalidError(f"no layout is kept with {order.image}", hint="--disklayout NAME")
    check_name(order.options.layout, "layout")
    if order.keeps_options:
        imageoptions.require_revision(imageoptions.view(connection, order.image), order.options_revision)
    known = nodes.last_facts(connection, node.name)
    notes = (*(() if rules.has_agent else (NO_AGENT,)), *(() if known else (_UNKNOWN,)))
    return CaptureIntent(
        node=node.name,
        base=_newest(connection, order.image, is_needed=request.is_update),
        order=order,
        disks=tuple(at_risk(disk) for disk in known[0].disks) if known else (),
        is_known=known is not None,
        notes=notes,
    )


def arm_capture(connection: Connection, act: Act, intent: CaptureIntent, rules: Rules) -> CaptureIntent:
    """Queue the task and set netboot to `capture`; returns the intent with its task id."""
    values = {
        "node": intent.node,
        "kind": rows.CAPTURE,
        "image": intent.order.image,
        "number": 0,  # until it is published
        "digest": "",
        "layout": intent.order.options.layout,
        "layout_number": 0,
        "document": msgspec.json.encode(intent.order).decode(),
        "attempts_allowed": rules.attempts,
    }
    release_attempts(connection, intent.node)
    row = rows.add_task(connection, act, values)
    nodes.set_netboot(connection, act, intent.node, "capture", why=f"task {row.id}, which captures")
    return msgspec.structs.replace(intent, task_id=str(row.id))


def order_of(bearer: Bearer) -> CaptureOrder:
    """Return what the task of an attempt is to capture."""
    return msgspec.json.decode(bearer.task.document, type=CaptureOrder)


def capture_task_for(node: NodeView, document: str, *, task_id: str, attempt_id: str) -> CaptureTask:
    """Return what an attempt is told to capture."""
    return CaptureTask(task_id, attempt_id, node.name, msgspec.json.decode(document, type=CaptureOrder))


def settle_layout(
    connection: Connection, act: Act, bearer: Bearer, found: LayoutFound
) -> tuple[Layout, tuple[str, ...]]:
    """Return the layout that the version is for, and what is to be said of it; keeps it where that is asked for.

    As on a node that runs: one that is new is kept, the same one used, and of another the order's policy decides.
    Nobody can be asked, so `prompt` refuses. Raises RefusedError that shows every difference.
    """
    require_capture(bearer)
    order = order_of(bearer)
    name, kept = order.options.layout, _kept(connection, order.options.layout)
    if found.layout is None:
        if kept is None:
            raise RefusedError(found.why, hint="--exclude-devices; or upload a layout: cloner disklayout-upload")
        return kept.layout, (found.why, f"layout {name} is used as the server has it")
    layout = found.layout
    faults = [f"its name is '{layout.name}', want '{name}'"] if layout.name != name else []
    if faults := [*faults, *layout_faults(layout)]:
        raise InvalidError(f"layout '{name}' cannot be used", faults=faults)
    notes: tuple[str, ...] = ()
    if kept is not None:
        differences = layout_differences(kept.layout, layout)
        if not differences:
            return kept.layout, ()
        shown = f"layout {name}:{kept.number} is another one than the node has"
        if order.conflict == "prompt":
            raise RefusedError(
                "\n  - ".join((shown, *differences)),
                hint="capture again with --update-conflict: server takes the server's, commandline keeps this one as"
                " its next number; or with another --disklayout",
            )
        notes = ("\n  - ".join((shown, *differences)),)
        if order.conflict == "server":
            return kept.layout, notes
    if found.is_to_be_kept:
        layouts.add_layout(connection, act, layout)
    return layout, notes


def sealed_draft(draft: Draft, bearer: Bearer) -> Draft:
    """Return `draft` as the task would have it: what an agent says of author, source and options does not count.

    Raises RefusedError for another image.
    """
    order = order_of(bearer)
    if draft.image != order.image:
        raise RefusedError(f"task {bearer.task.id} captures the image '{order.image}' and no other")
    return msgspec.structs.replace(
        draft,
        message=order.message,
        author=bearer.task.author,
        source=bearer.task.node,
        origin_key="",
        options=order.options if order.keeps_options else None,
        options_revision=order.options_revision,
    )


def finish(connection: Connection, act: Act, bearer: Bearer, record: VersionRecord) -> None:
    """Make the version visible, end the task as done with it and set netboot to `local`."""
    require_capture(bearer)
    task = bearer.task
    by = Act(task.author, act.now_s)
    publishing.show(connection, by, record)
    layout = _kept(connection, task.layout)
    values = {
        "number": record.number,
        "digest": record.version,
        "layout_number": layout.number if layout else 0,
        "stage": Stage.PUBLISH.value,
        "confirmed_by": ConfirmWay.NONE.value,
    }
    told: dict[str, Any] = {"image": record.image, "number": record.number, "digest": record.version}
    rows.happen(connection, act, task, Happening.PUBLISHED, values=values, attempt=bearer.attempt.id, **told)
    why = f"task {task.id} captured it as {record.image}:{record.number}"
    nodes.set_netboot(connection, act, task.node, "local", why=why)
    rows.change_attempt(connection, bearer.attempt.id, state="ended", beat_s=act.now_s)


def _own_order(connection: Connection, node: NodeView) -> CaptureOrder:
    if not node.image:
        raise RefusedError(
            f"{node.name} has no image", hint=f"cloner capture --node {node.name} --image NAME --disklayout NAME"
        )
    kept = imageoptions.view(connection, node.image)
    options = kept.options or StoredOptions()
    if not options.layout:
        options = msgspec.structs.replace(options, layout=node.layout)
    return CaptureOrder(node.image, options, options != kept.options, kept.revision)


def _newest(connection: Connection, image: str, *, is_needed: bool) -> str:
    try:
        return f"{image}:{images.get_version(connection, image).number}"
    except NotFoundError:
        if is_needed:
            raise
        return ""


def _kept(connection: Connection, name: str) -> LayoutView | None:
    try:
        return layouts.get_layout(connection, name)
    except NotFoundError:
        return None
