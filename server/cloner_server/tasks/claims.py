"""Claims: the one-use token of a boot script, and its exchange for an attempt.

Netboot proves nothing about who asks, so a token says only "the script for this task was served". What keeps a
stranger out is here: one use, one hour, one accepted hardware, and never two attempts that beat.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from cloner_core.admin.nodes import Hardware, NodeView
from cloner_core.admin.tasks import TaskState
from cloner_core.atrest import CaptureReply, CaptureTask
from cloner_core.erasing.words import EraseReply, EraseTask
from cloner_core.errors import ClonerError, RefusedError, UnreachableError
from cloner_core.facts import Facts, fingerprint
from cloner_core.layout import Layout
from cloner_core.messages import (
    BootPolicy,
    Cause,
    ConfirmTo,
    ConfirmWay,
    Failure,
    Hello,
    HelloReply,
    Secret,
    Stage,
    Task,
    VersionRef,
)
from cloner_core.scripts import ScriptSet
from cloner_server import consoles
from cloner_server.state import events, nodes, scripts, waiting
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import attempts, claims, tasks
from cloner_server.state.tasks import AnyRow
from cloner_server.tasks.capturing import capture_task_for
from cloner_server.tasks.erasing import erase_task_for
from cloner_server.tasks.rules import Catalog, Rules, attempt_seed, silence_s, token_hash
from cloner_server.tasks.states import CLAIMABLE, Happening, can_happen

_NO_SCRIPTS = ScriptSet()
_FETCHED = "boot script fetched while the attempt beats"
_AGAIN_S = 60.0
_BEATS = 1.25  # in beats: a live agent was heard of within this
_SHOWN_MACS = 64  # of a machine that wants to be accepted
_BEATS_PER_S = 40.0  # of all nodes together
_BEATS_IN_SILENCE = 6  # so many at least are missed within `lost_s`
_OPEN_CLAIMS = 20  # of one task; anybody on the network can ask for boot scripts


class UnknownClaimError(ClonerError):
    """The token is not one of ours, or no longer good: 401."""


def mint_claim(connection: Connection, act: Act, node: str, rules: Rules) -> str:
    """Return a new claim token for the live task of `node`; raises RefusedError when there is none to claim."""
    task = rows.live_task(connection, node)
    if task is None or TaskState(task.state) not in CLAIMABLE:
        raise RefusedError(f"{node} has no task that waits for an agent")
    token = secrets.token_hex(20)
    values = {"token_hash": token_hash(token), "task": task.id, "node": node}
    times = {"minted_s": act.now_s, "expires_s": act.now_s + rules.claim_life_s}
    connection.execute(insert(claims).values(values | times))
    others = claims.c.task == task.id, claims.c.used_s.is_(None), claims.c.token_hash != values["token_hash"]
    newest = select(claims.c.token_hash).where(*others).order_by(claims.c.minted_s.desc()).limit(_OPEN_CLAIMS - 1)
    connection.execute(delete(claims).where(*others, claims.c.token_hash.not_in(newest)))
    if TaskState(task.state) is TaskState.QUEUED:
        rows.happen(connection, act, task, Happening.SCRIPT)
    _watch(connection, act, task, rules)
    return token


def _watch(connection: Connection, act: Act, task: AnyRow, rules: Rules) -> None:
    """Raise an alarm, once a minute, when the script is fetched while the node's agent beats: it was another machine.

    A machine that was reset cannot be back at its boot script between two beats; anybody can ask with its MAC, so
    nothing is stopped for it.
    """
    attempt, obj = rows.last_attempt(connection, task.id), f"task/{task.id}"
    if attempt is None or attempt.state != "live":
        return
    every_s = attempt.beat_every_s or beat_interval_s(connection, rules)  # as it was told, whatever is told now
    if act.now_s - attempt.beat_s > _BEATS * every_s:
        return
    told = {"node": task.node, "attempt": attempt.id, "beat_s_ago": round(act.now_s - attempt.beat_s, 1)}
    events.record_seldom(
        connection, act, obj, _FETCHED, most=1, within_s=_AGAIN_S, revision=task.revision, alarm=True, **told
    )


def accept_hello(
    connection: Connection, act: Act, hello: Hello, rules: Rules, catalog: Catalog, *, address: str = ""
) -> HelloReply | EraseReply | CaptureReply | ClonerError:
    """Exchange a claim for an attempt; `address` is where the hello came from, "" when that is no IP address.

    A refusal is returned, not raised: the alarm and the freeze that go with it must be committed first.
    """
    claim = connection.execute(select(claims).where(claims.c.token_hash == token_hash(hello.claim))).one_or_none()
    if claim is None or claim.expires_s <= act.now_s:
        events.record_seldom(
            connection, act, "site", "claim refused", is_network=True, why="unknown" if claim is None else "expired"
        )
        return UnknownClaimError("the claim is unknown or expired", hint="boot over the network again for a new one")
    task, node = rows.get_task(connection, claim.task), nodes.get_node(connection, claim.node)
    is_late = _is_late(connection, task, node)
    if TaskState(task.state) not in CLAIMABLE and not is_late:
        why = f"the task is {task.state}"
        events.record_seldom(connection, act, f"task/{task.id}", "claim refused", is_network=True, why=why)
        return RefusedError(f"task {task.id} is {task.state}", hint="cloner task list shows what is to be done")
    former = rows.last_attempt(connection, task.id)
    foreign = _foreign(claim, node, hello, former) or stranger(node, hello.facts, rules)
    if foreign is not None:
        if foreign.may_be_accepted:
            nodes.offer_hardware(connection, node.name, hardware_of(hello.facts, act.now_s))
        return _freeze(connection, act, task, foreign, fingerprint(hello.facts))
    if claim.used_s is None:
        if (refusal := _stand_back(connection, act, task, former, rules)) is not None:
            return refusal
        task, former = _become_attempt(connection, act, hello, task=task, claim=claim, rules=rules, node=node)
    elif former is None or former.state != "live":
        return UnknownClaimError("the attempt of this claim has ended", hint="boot over the network again")
    # A used claim shown again by its own attempt: our reply was lost on the way.
    version = catalog.version_ref(task.image, task.number) if task.kind == rows.DEPLOY else None
    node = nodes.get_node(connection, claim.node)  # once more: what it told may say of which model it is
    return _welcome(connection, act, _Meeting(task, node, former, version, address), rules)


def _is_late(connection: Connection, task: AnyRow, node: NodeView) -> bool:
    """Tell whether the task was given up for not booting, and nothing speaks against an agent that came after all."""
    if TaskState(task.state) is not TaskState.FAILED or rows.cause_of(task) is not Cause.BOOT:
        return False
    if node.is_protected or node.protected_groups:
        return False
    return bool(rows.newest_task_id(connection, task.node) == task.id)


@dataclass(frozen=True, slots=True)
class _Meeting:
    task: AnyRow
    node: NodeView
    attempt: AnyRow
    version: VersionRef | None  # None: the task is no deploy
    address: str


def _stand_back(
    connection: Connection, act: Act, task: AnyRow, former: AnyRow | None, rules: Rules
) -> ClonerError | None:
    """Return why no new attempt is made now; None when one may be."""
    if former is None:
        return None
    lost_from_s = former.beat_s + silence_s(rules, former.beat_every_s)
    if former.state == "live" and lost_from_s > act.now_s:
        # The same hardware: a machine that was reset, or two of them? If the former attempt beats again, it is two.
        rows.change_attempt(connection, former.id, rival_s=act.now_s)
        left_s = lost_from_s - act.now_s
        return UnreachableError(f"attempt {former.id} may still be alive; {left_s:.0f} s until it counts as lost")
    if former.number < task.attempts_allowed:
        return None
    if TaskState(task.state) is TaskState.FAILED:
        return RefusedError(f"task {task.id} is failed, and its attempts are used up", hint="cloner task retry")
    return _give_up(connection, act, task, former.number)


def _become_attempt(
    connection: Connection, act: Act, hello: Hello, *, task: AnyRow, claim: AnyRow, rules: Rules, node: NodeView
) -> tuple[AnyRow, AnyRow]:
    # What is erased boots nothing that could confirm, and what is captured is no clone.
    way = ConfirmWay(node.confirm or rules.confirm) if task.kind == rows.DEPLOY else ConfirmWay.NONE
    attempt = _new_attempt(connection, act, task, hello, rules, confirm=way)
    used = {"used_s": act.now_s, "attempt": attempt.id}
    connection.execute(update(claims).where(claims.c.token_hash == claim.token_hash).values(used))
    if not node.fingerprint:
        why = "its UUID or serial was given" if node.uuid or node.serial else "it said hello first"
        nodes.accept_fingerprint(connection, act, claim.node, attempt.fingerprint, why=why)
    nodes.remember_facts(connection, act, claim.node, hello.facts)
    waiting.forget(connection, claim.node)
    if TaskState(task.state) is TaskState.FAILED:
        task = rows.happen(connection, act, task, Happening.LATE_CLAIM, values={"failure": None}, attempt=attempt.id)
        # From here on the disk may be written: a power cut must bring the machine back to the network.
        why = f"the agent of task {task.id} came late"
        nodes.set_netboot(connection, act, task.node, rows.netboot_for(task), why=why)
    else:
        task = rows.happen(connection, act, task, Happening.CLAIM, attempt=attempt.id)
    rows.set_stage(connection, act, task, Stage.HELLO.value)
    return task, attempt


@dataclass(frozen=True, slots=True)
class Foreign:
    """Why a hello is turned away, and what a person may do if the machine is right all the same."""

    why: str
    remedy: str = ""
    may_be_accepted: bool = False


def foreign_machine(node: NodeView, facts: Facts) -> Foreign | None:
    """Return why `facts` are not of the machine that `node` was said to be; None when they may be."""
    if not set(node.macs) & {nic.mac for nic in facts.nics}:
        return Foreign(f"the machine has none of the MAC addresses of {node.name}")
    said = (("uuid", node.uuid, facts.dmi.system_uuid.lower()), ("serial", node.serial, facts.dmi.serial))
    for name, wanted, seen in said:
        if wanted and wanted != seen.strip():
            why = f"the machine says it has the {name} '{seen[:64]}', {node.name} was given '{wanted}'"
            return Foreign(why, f"cloner node set {node.name} --{name} …")
    return None


def _foreign(claim: AnyRow, node: NodeView, hello: Hello, former: AnyRow | None) -> Foreign | None:
    """Return why this hello comes from another machine than it should; None when it does not."""
    if (foreign := foreign_machine(node, hello.facts)) is not None:
        return foreign
    if claim.used_s is not None and (
        former is None or former.id != claim.attempt or former.public_key != hello.public_key
    ):
        return Foreign("the claim was used before, by another machine or another boot")
    return None


def stranger(node: NodeView, facts: Facts, rules: Rules) -> Foreign | None:
    """Return why the machine, which has what it must have, is not believed yet; None when it is."""
    accept = f"cloner node accept {node.name}"
    if node.fingerprint and node.fingerprint != fingerprint(facts):
        return Foreign(f"the hardware is not the one accepted for {node.name}", accept, may_be_accepted=True)
    if not node.fingerprint and not node.uuid and not node.serial and rules.accept == "admin":
        return Foreign(f"nobody has accepted this machine as {node.name} yet", accept, may_be_accepted=True)
    return None


def hardware_of(facts: Facts, now_s: float) -> Hardware:
    """Return what an admin is shown of a machine that was turned away."""
    dmi, macs = facts.dmi, tuple(sorted({nic.mac for nic in facts.nics}))[:_SHOWN_MACS]
    return Hardware(fingerprint(facts), dmi.system_uuid, dmi.serial, dmi.vendor, dmi.product, macs, now_s)


def _freeze(connection: Connection, act: Act, task: AnyRow, foreign: Foreign, hardware: str) -> ClonerError:
    why = foreign.why
    if not can_happen(TaskState(task.state), Happening.FREEZE):  # given up already: there is nothing to stop
        events.record_seldom(
            connection,
            act,
            f"task/{task.id}",
            "claim refused",
            revision=task.revision,
            alarm=True,
            why=why,
            hardware=hardware,
        )
        return RefusedError(f"task {task.id} is {task.state}: {why}", hint=f"cloner task retry {task.id}")
    rows.happen(connection, act, task, Happening.FREEZE, alarm=True, why=why, hardware=hardware)
    return RefusedError(
        f"task {task.id} is frozen: {why}",
        hint="find out which machine is right, then: "
        + "; ".join(filter(None, (foreign.remedy, f"cloner task retry {task.id}"))),
    )


def _give_up(connection: Connection, act: Act, task: AnyRow, tried: int) -> ClonerError:
    is_touched = rows.is_disk_touched(connection, task.node)
    failure = Failure(
        stage=Stage(task.stage or Stage.HELLO),
        cause=Cause.LOST,
        message=f"{tried} attempts were lost, one after the other",
        hint="watch the console of the machine; then: cloner task retry",
        is_destroyed=is_touched,
    )
    values = {"failure": msgspec.json.encode(failure).decode()}
    rows.happen(connection, act, task, Happening.FAIL, values=values, alarm=True, cause=failure.cause.value)
    if not is_touched:
        nodes.set_netboot(connection, act, task.node, "local", why=f"task {task.id} failed before it touched a disk")
    return RefusedError(f"task {task.id} failed: {failure.message}", hint=failure.hint)


def _new_attempt(
    connection: Connection, act: Act, task: AnyRow, hello: Hello, rules: Rules, *, confirm: ConfirmWay
) -> AnyRow:
    standing = attempts.c.task == task.id, attempts.c.state.in_(("live", "holding", "released"))
    connection.execute(update(attempts).where(*standing).values(state="revoked", ended_s=act.now_s))
    former = rows.last_attempt(connection, task.id)
    number = 1 if former is None else former.number + 1
    attempt_id = f"{task.id}-{number}-{secrets.token_hex(4)}"
    values = {
        "id": attempt_id,
        "task": task.id,
        "number": number,
        "state": "live",
        "credential_hash": attempt_id,  # replaced by _welcome, in this very transaction
        "public_key": hello.public_key,
        "fingerprint": fingerprint(hello.facts),
        "facts": msgspec.json.encode(hello.facts).decode(),
        "seed": attempt_seed(rules, task.id, number),
        "told": "",
        "confirm": confirm.value,
        "confirm_hash": attempt_id,
        "started_s": act.now_s,
        "beat_s": act.now_s,
    }
    return connection.execute(insert(attempts).values(values).returning(attempts)).one()


def _welcome(connection: Connection, act: Act, met: _Meeting, rules: Rules) -> HelloReply | EraseReply | CaptureReply:
    """Give the attempt a credential and a confirm secret, new ones each time: the database knows their hashes only."""
    credential, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    confirm = confirm_to(rules, ConfirmWay(met.attempt.confirm), Secret(secret), met.attempt.id)
    ids = {"task_id": str(met.task.id), "attempt_id": met.attempt.id, "seed": met.attempt.seed}
    told: Task | EraseTask | CaptureTask
    if met.task.kind == rows.CAPTURE:
        told = capture_task_for(met.node, met.task.document, task_id=ids["task_id"], attempt_id=ids["attempt_id"])
    elif met.version is None:
        told = erase_task_for(met.node, met.task.document, **ids)
    else:
        kept = scripts.set_numbered(connection, met.task.image, met.task.scripts_number)
        told = task_for(met.node, met.version, met.task.document, scripts=kept, session=_session(met.task), **ids)
    hashes = {"credential_hash": token_hash(credential), "confirm_hash": token_hash(secret)}
    every_s = beat_interval_s(connection, rules)
    values = {"beat_s": act.now_s, "beat_every_s": every_s, "address": met.address, "console": None} | hashes
    text = msgspec.json.encode(told).decode()  # without the secret
    rows.change_attempt(connection, met.attempt.id, told=text, **values)
    console = consoles.access_for(connection, met.node, rules.console_key) if rules.console_key else None
    common: dict[str, Any] = {"server_time_s": act.now_s, "beat_every_s": every_s, "console": console}
    if isinstance(told, CaptureTask):
        return CaptureReply(credential=Secret(credential), task=told, **common)
    if isinstance(told, EraseTask):
        return EraseReply(credential=Secret(credential), task=told, **common)
    return HelloReply(credential=Secret(credential), task=msgspec.structs.replace(told, confirm=confirm), **common)


def _session(task: AnyRow) -> str:
    return str(task.session) if task.session else ""


def confirm_to(rules: Rules, way: ConfirmWay, secret: Secret, attempt: str = "") -> ConfirmTo | None:
    """Return what a clone is told about confirming; None where it has no part in it."""
    if way is ConfirmWay.PHONE_HOME:
        return ConfirmTo(rules.confirm_host, rules.confirm_port, secret, "phone-home", attempt)
    if way is ConfirmWay.CONSOLE:
        return ConfirmTo(rules.confirm_host, rules.confirm_port, secret, "console", attempt)
    return None


def task_for(
    node: NodeView,
    version: VersionRef,
    document: str,
    *,
    task_id: str,
    attempt_id: str,
    seed: str,
    scripts: ScriptSet = _NO_SCRIPTS,
    session: str = "",
) -> Task:
    """Return what an attempt is told to do, without the confirm secret; `document` is the layout as JSON."""
    return Task(
        task_id=task_id,
        attempt_id=attempt_id,
        node=node.name,
        version=version,
        layout=msgspec.json.decode(document, type=Layout),
        seed=seed,
        network=node.network,
        confirm=None,
        boot=BootPolicy(boot_order=node.boot_order, kernel_arguments=node.kernel_arguments),
        protected_serials=node.protected_serials,
        files=node.files,
        scripts=scripts,
        session=session,
    )


def beat_interval_s(connection: Connection, rules: Rules) -> float:
    """Return the seconds between two beats of an attempt that begins now: more, the more nodes are being cloned.

    Every beat is a transaction on disk; 400 nodes that beat each two seconds would leave the server no time for work.
    """
    states = [state.value for state in CLAIMABLE]
    count = connection.execute(select(func.count()).where(tasks.c.state.in_(states))).scalar_one()
    return max(rules.beat_every_s, min(count / _BEATS_PER_S, rules.lost_s / _BEATS_IN_SILENCE))


def count_open(connection: Connection, task_id: int) -> int:
    """Return how many unused claims of a task there are."""
    query = select(func.count()).where(claims.c.task == task_id, claims.c.used_s.is_(None))
    return int(connection.execute(query).scalar_one())


def remove_expired(connection: Connection, now_s: float) -> None:
    """Forget unused claims that are no longer good; used ones stay, so that a second use is recognised."""
    connection.execute(delete(claims).where(claims.c.used_s.is_(None), claims.c.expires_s <= now_s))
