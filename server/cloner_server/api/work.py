"""Work over the API of admins: deploys, netboot, plans, tasks, receipts."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.consoles import ConsoleOutcome, ConsoleReport
from cloner_core.admin.deploying import (
    CaptureIntent,
    CaptureRequest,
    DeployRequest,
    EraseIntent,
    EraseRequest,
    Intent,
    NetbootRequest,
    PlanView,
)
from cloner_core.admin.nodes import NodeView
from cloner_core.admin.tasks import LogEntry, ReceiptView, TaskState, TaskView
from cloner_core.erasing.plan import erase_digest, plan_erase, render_erase
from cloner_core.errors import NotFoundError, RefusedError
from cloner_core.facts import Facts
from cloner_core.messages import Task
from cloner_server import planning, vault
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.core import Core
from cloner_server.offering import Offer, kernel_notes, offer_for
from cloner_server.state import nodes
from cloner_server.state import tasks as rows
from cloner_server.tasks import arming, capturing, discovery, endings, erasing, waiting
from cloner_server.tasks.foreseen import erase_to_come, task_to_come

_OK = 200
_SHOWN_BYTES = 256 << 20  # a request tells every disk that was shown, of thousands of nodes


@post("/deploy", sync_to_thread=True, request_max_body_size=_SHOWN_BYTES, status_code=_OK)
def deploy(core: CoreDependency, request: AnyRequest, data: JSONBody[DeployRequest]) -> list[Intent]:
    """Arm one task on each node: all of them, or none."""
    act = who(core, request)
    with core.database.read() as connection:
        intents = arming.intend(connection, data, core.rules)
    if data.dry_run:
        return intents
    arming.require_shown(intents, data.shown)  # before the vault makes anything
    names, key = [intent.node for intent in intents], core.site.vault_key
    fresh = {}
    if data.new_identity:
        fresh = vault.seal_new(names, key)
    else:
        vault.ensure_identities(core.database, act, names, key)
    with core.database.write() as connection:
        vault.replace_identities(connection, act, fresh, key)  # undone with the rest when arming is refused
        intents = arming.intend(connection, data, core.rules)
        arming.require_shown(intents, data.shown)
        armed = arming.arm(connection, act, intents, core.rules)
    core.calls.call(names)
    return armed


@post("/netboot", sync_to_thread=True, request_max_body_size=_SHOWN_BYTES, status_code=_OK)
def netboot(core: CoreDependency, request: AnyRequest, data: JSONBody[NetbootRequest]) -> list[NodeView]:
    """Set netboot of nodes.

    `cloner` arms a task from the node's image and layout, `capture` one that captures it; `discover` takes an
    inventory; `cloner-multicast` has the node wait for a session.
    """
    names = list(dict.fromkeys(data.nodes))
    if data.value == "cloner":
        asked = DeployRequest(nodes=data.nodes, limit=data.limit, dry_run=data.dry_run, shown=data.shown)
        deploy.fn(core, request, asked)
        with core.database.read() as connection:
            return nodes.get_nodes(connection, names)
    if data.value == "capture":
        if len(names) != 1:
            raise RefusedError(f"{len(names)} nodes are named, one at a time is captured", hint="--nodes node01")
        capture.fn(core, request, CaptureRequest(node=names[0], dry_run=data.dry_run))
        with core.database.read() as connection:
            return nodes.get_nodes(connection, names)
    if data.value not in ("local", "discover", waiting.NETBOOT):
        offered = "local, cloner, cloner-multicast, capture, discover"
        raise RefusedError(f"netboot '{data.value}' is not offered by this version", hint=offered)
    act = who(core, request)
    if data.value != "local":
        set_netboot = discovery.set_discover if data.value == "discover" else waiting.set_waiting
        with core.database.trial(data.dry_run) as connection:
            needed = {
                node.name: offer_for(core, connection, node.name, node.image).needed_bytes
                for node in nodes.get_nodes(connection, names)
            }
            return set_netboot(connection, act, names, core.rules, needed)
    with core.database.trial(data.dry_run) as connection:
        held = []
        for node in nodes.get_nodes(connection, names):
            live = rows.live_task(connection, node.name)
            if live is not None and TaskState(live.state) is not TaskState.UNCONFIRMED:
                held.append(f"{node.name} has task {live.id}, which is {live.state}")
        if held:
            raise RefusedError("; ".join(held), hint="cloner task abort ends a task")
        home = [endings.send_home(connection, act, name) for name in names]
    core.calls.call(names)
    return home


@post("/erase", sync_to_thread=True, request_max_body_size=_SHOWN_BYTES, status_code=_OK)
def erase(core: CoreDependency, request: AnyRequest, data: JSONBody[EraseRequest]) -> list[EraseIntent]:
    """Arm one task that erases disks on each node: all of them, or none."""
    with core.database.trial(data.dry_run) as connection:
        intents = erasing.intend_erase(connection, data, core.rules)
        if data.dry_run:
            return intents
        arming.require_shown(intents, data.shown)
        return erasing.arm_erase(connection, who(core, request), intents, data.order, core.rules)


@post("/capture", sync_to_thread=True, request_max_body_size=_SHOWN_BYTES, status_code=_OK)
def capture(core: CoreDependency, request: AnyRequest, data: JSONBody[CaptureRequest]) -> CaptureIntent:
    """Arm a task that captures a node at rest."""
    with core.database.trial(data.dry_run) as connection:
        intent = capturing.intend_capture(connection, data, core.rules)
        if data.dry_run:
            return intent
        arming.require_shown([intent], None if data.shown is None else [data.shown])
        return capturing.arm_capture(connection, who(core, request), intent, core.rules)


@get("/plan/{name:str}", sync_to_thread=True)
def plan_show(
    core: CoreDependency, name: FromPath[str], image: FromQuery[str] = "", layout: FromQuery[str] = ""
) -> PlanView:
    """Show what a node would run, planned from its last inventory."""
    with core.database.read() as connection:
        known = nodes.last_facts(connection, name)
        if known is None:
            raise NotFoundError(
                f"{name} was never seen, so its disks are not known",
                hint="its inventory is taken when it boots the agent; or give one with --facts FILE",
            )
        if not image and not layout and (told := erase_to_come(connection, name)) is not None:
            plan = plan_erase(known[0], told)
            return PlanView(node=name, rendered=render_erase(plan), digest=erase_digest(plan), facts_s=known[1])
        task = task_to_come(core, connection, name, image, layout)
        offer = offer_for(core, connection, name, task.version.image)
    return _planned(core, name, task, known[0], offer, facts_s=known[1])


@post("/plan/{name:str}", sync_to_thread=True, status_code=_OK)
def plan_for(
    core: CoreDependency,
    name: FromPath[str],
    data: JSONBody[Facts],
    image: FromQuery[str] = "",
    layout: FromQuery[str] = "",
) -> PlanView:
    """Show what a node would run if its machine were as given."""
    with core.database.read() as connection:
        task = task_to_come(core, connection, name, image, layout)
        offer = offer_for(core, connection, name, task.version.image)
    return _planned(core, name, task, data, offer, facts_s=None)


def _planned(core: Core, node: str, task: Task, facts: Facts, offer: Offer, *, facts_s: float | None) -> PlanView:
    version = core.catalog.find(task.version)
    rendered, digest = planning.preview(facts, task, version)
    notes = kernel_notes(offer, core.drivers.find(version))
    return PlanView(node=node, rendered=rendered, digest=digest, facts_s=facts_s, notes=notes)


@get("/tasks", sync_to_thread=True)
def task_list(
    core: CoreDependency, node: FromQuery[str] = "", live: FromQuery[bool] = False, limit: FromQuery[int] = 200
) -> list[TaskView]:
    """List tasks, the newest first."""
    with core.database.read() as connection:
        return rows.list_tasks(connection, node=node, live_only=live, limit=max(1, min(limit, 10_000)))


@get("/tasks/{task_id:str}", sync_to_thread=True)
def task_show(core: CoreDependency, task_id: FromPath[str]) -> TaskView:
    """Show a task."""
    with core.database.read() as connection:
        return rows.view_task(connection, rows.get_task(connection, task_id))


@get("/tasks/{task_id:str}/log", sync_to_thread=True)
def task_log(core: CoreDependency, task_id: FromPath[str], after: FromQuery[int] = 0) -> list[LogEntry]:
    """Return what the agents of a task logged."""
    with core.database.read() as connection:
        return rows.list_log(connection, rows.get_task(connection, task_id).id, after=after)


@post("/tasks/{task_id:str}/abort", sync_to_thread=True, status_code=_OK)
def task_abort(
    core: CoreDependency, request: AnyRequest, task_id: FromPath[str], dry_run: FromQuery[bool] = False
) -> TaskView:
    """Stop a task."""
    with core.database.trial(dry_run) as connection:
        return rows.view_task(connection, endings.abort_task(connection, who(core, request), task_id))


@post("/tasks/{task_id:str}/retry", sync_to_thread=True, status_code=_OK)
def task_retry(
    core: CoreDependency, request: AnyRequest, task_id: FromPath[str], dry_run: FromQuery[bool] = False
) -> TaskView:
    """Queue a failed, frozen or aborted task once more."""
    with core.database.trial(dry_run) as connection:
        return rows.view_task(connection, endings.retry_task(connection, who(core, request), task_id, core.rules))


@get("/receipts/{key:str}", sync_to_thread=True)
def receipt_show(core: CoreDependency, key: FromPath[str]) -> ReceiptView:
    """Show the newest receipt of a task or a node."""
    with core.database.read() as connection:
        return ReceiptView(receipt=endings.find_receipt(connection, key), server_key=core.site.public_key.hex())


@post("/confirmations", sync_to_thread=True, status_code=_OK)
def confirmations(
    core: CoreDependency, request: AnyRequest, data: JSONBody[ConsoleReport], dry_run: FromQuery[bool] = False
) -> list[ConsoleOutcome]:
    """Take what clones said on their consoles; each line stands for itself."""
    act = who(core, request)
    with core.database.trial(dry_run) as connection:
        return [endings.accept_line(connection, act, line) for line in data.lines]


def work_handlers() -> list[Any]:
    """Return the handlers of work."""
    own: list[Any] = [
        deploy,
        capture,
        erase,
        netboot,
        plan_show,
        plan_for,
        task_list,
        task_show,
        task_log,
        task_abort,
        task_retry,
    ]
    return [*own, confirmations, receipt_show]
