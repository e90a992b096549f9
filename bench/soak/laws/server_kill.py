"""A server killed at any moment of its work has kept every request it answered, and another one goes on from there.

Three of four servers are killed right before their n-th call that changes something (a system call on a file, a
statement or commit of SQLite), which a seed repeats nearly exactly; the others by the clock, in the middle of
whatever they do. One that ended its work before it was killed is no case: another one does the same work over a fresh
copy of the state, and is killed sooner. The kill is of the process: what the kernel has taken stays (power cuts are
another law's).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import func, select

from cloner_core.admin.tasks import TaskState
from cloner_core.image.compression import compress
from cloner_core.layout import parse_layout
from cloner_core.messages import Beat as BeatMessage
from cloner_core.messages import Cause, Failure, LogLine, Progress, ReceiptBody, Stage
from cloner_server.state import tasks as rows
from cloner_server.state.tables import attempts
from cloner_server.tasks import endings, housekeeping
from serverbench.scene import LAYOUT, START_S, Agent, Scene, facts, make_template, open_scene
from soak.book import Entry
from soak.effects import count_effects, killed_before
from soak.law import Case, Figures, Law, LawBrokenError, require, share
from store_images import BOOTABLE, make_image, some_contents

_CONTEXT = multiprocessing.get_context("fork")
_NODES = {"n01": "52:54:00:00:00:01", "n02": "52:54:00:00:00:02"}
STEPS = 18
_MOST_TRIES = 20
_NO_STEP = ("", "between two")
_LOST_S = 61.0


class Line(msgspec.Struct):
    """What the server's process tells of one step: when it begins, and again when it was answered."""

    name: str
    touches: list[str]  # what may be as before or as after until it is answered
    is_done: bool = False
    so: dict[str, Any] = {}  # what holds from now on, by what


@contextmanager
def open_server_kill(work: Path) -> Iterator[Case]:
    """Every case has a server of its own, over a copy of one state."""
    template = work / "template"
    make_template(template)
    with _copy_of(template) as state:
        effects = _in_child(_count, state)
    with _copy_of(template) as state:
        started_s = time.monotonic()
        ended, _ = _run(state, 1, _Moment())  # not in the child that counts: a profiled one is far slower
        took_s = time.monotonic() - started_s
    require(ended == 0, f"a server nobody killed ended with {ended}")
    yield lambda seed: _case(template, seed, _Moment(effects), _Moment(after_s=took_s))


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a server is killed: right before a call, or so long after its start; neither, and it is not."""

    call: int = 0
    after_s: float = 0.0

    def sooner(self, chance: random.Random) -> _Moment:
        """Return one that chance chooses between the start and this one."""
        return _Moment(chance.randint(1, self.call) if self.call else 0, chance.uniform(0, self.after_s))


@contextmanager
def _copy_of(template: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=template.parent) as directory:
        yield shutil.copytree(template, Path(directory) / "state")


def _case(template: Path, seed: int, last_call: _Moment, end: _Moment) -> Figures:
    chance = random.Random(f"kill {seed}")
    is_counted = chance.random() < 0.75
    moment = last_call if is_counted else end
    for tries in range(1, _MOST_TRIES + 1):
        moment = moment.sooner(chance)
        with _copy_of(template) as state:
            ended, lines = _run(state, seed, moment)
            if ended == 0:
                continue
            require(ended == -signal.SIGKILL, f"the server ended with {ended}")
            return {"killed": "at a call" if is_counted else "by the clock", "tries": tries, **_look(state, lines)}
    raise LawBrokenError(f"none of {_MOST_TRIES} servers was killed before its work ended")


def _run(state: Path, seed: int, moment: _Moment) -> tuple[int | None, list[Line]]:
    """Let a server work and kill it; return its exit status, and what it told."""
    reading, writing = os.pipe()
    server = _CONTEXT.Process(target=_serve, args=(state, seed, writing, moment.call))
    server.start()
    os.close(writing)
    if moment.after_s:
        time.sleep(moment.after_s)
        server.kill()
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().split(b"\n")[:-1]  # what follows the last newline was cut off by the kill
    server.join()
    return server.exitcode, [msgspec.json.decode(line, type=Line) for line in told]


def _look(state: Path, lines: list[Line]) -> Figures:
    """Hold what a server left to what it told, and have the next one end the work."""
    kept, open_step = after(lines)
    scene = open_scene(state)
    try:
        check(scene, kept)
        go_on(scene)
    finally:
        scene.core.database.close()
    answered = sum(line.is_done for line in lines)
    return {"in": open_step or "between two", "answered": answered, "facts": len(kept)}


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: servers die in both ways, within a request and with answers to keep."""
    shares = {
        "were killed by the clock": (share(entries, lambda figures: figures.get("killed") == "by the clock"), 0.1),
        "were killed within a step": (share(entries, lambda figures: figures.get("in", "") not in _NO_STEP), 0.5),
        "had answered something": (share(entries, lambda figures: float(figures.get("answered", 0)) > 0), 0.5),
    }
    return "; ".join(
        f"{found:.0%} {what}, {least:.0%} wanted" for what, (found, least) in shares.items() if found < least
    )


def after(lines: list[Line]) -> tuple[dict[str, Any], str]:
    """Return what must hold, and the step at the end that was never answered ("" when there is none)."""
    kept: dict[str, Any] = {}
    begun: Line | None = None
    for line in [*lines, None]:
        if begun is not None and (line is None or not line.is_done):
            for touched in begun.touches:
                kept.pop(touched, None)
        if line is None:
            break
        if line.is_done:
            kept |= line.so
        begun = None if line.is_done else line
    return kept, lines[-1].name if lines and not lines[-1].is_done else ""


def _serve(state: Path, seed: int, writing: int, at: int) -> None:
    """Work until the end or until effect `at`; 0: to the end."""
    with os.fdopen(writing, "wb", buffering=0) as pipe, killed_before(at):
        scene = open_scene(state)
        work = Work(scene, random.Random(seed), lambda line: pipe.write(msgspec.json.encode(line) + b"\n"))
        for _ in range(STEPS):
            work.step()
    os._exit(0)  # as a kill: nothing is folded or closed


def _count(state: Path, writing: int) -> None:
    """Tell how many effects a server's work has."""

    def serve() -> None:
        work = Work(open_scene(state), random.Random(1), lambda line: None)
        for _ in range(STEPS):
            work.step()

    os.write(writing, b"%d" % count_effects(serve))
    os._exit(0)


def _in_child(target: Any, state: Path) -> int:
    """Return the number a child writes: a profiled process is of no use for anything else."""
    reading, writing = os.pipe()
    child = _CONTEXT.Process(target=target, args=(state, writing))
    child.start()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    child.join()
    return int(text)


@dataclass
class Work:
    """Requests of admins and agents in any order that makes sense, each told before and after."""

    scene: Scene
    chance: random.Random
    tell: Any
    tasks: dict[str, str] = field(default_factory=dict)  # by node
    agents: dict[str, Agent] = field(default_factory=dict)
    bodies: dict[str, ReceiptBody] = field(default_factory=dict)  # by node
    lines: dict[str, int] = field(default_factory=dict)  # of log, by task
    layouts: int = 1
    versions: int = 1

    def step(self) -> None:
        node = self.chance.choice(list(_NODES))
        if node not in self.tasks and self._state(node) is None:
            self._do(f"add {node}", [f"/nodes/{node} image"], self._add, node)
            return
        chosen = self.chance.choices((self._admin, self._work, self._image), (3, 8, 1))[0]
        chosen(node)

    def _do(self, name: str, touches: list[str], do: Any, *arguments: Any) -> None:
        self.tell(Line(name, touches))
        self.tell(Line(name, touches, True, do(*arguments)))

    def _state(self, node: str) -> TaskState | None:
        """Return the state of the node's task; None when there is no such node."""
        if self.scene.admin("GET", f"/nodes/{node}").status_code == 404:
            return None
        return self.scene.task(self.tasks[node]).state if node in self.tasks else TaskState.DONE

    def _add(self, node: str) -> dict[str, Any]:
        self._ask("POST", "/nodes", {"name": node, "macs": [_NODES[node]], "image": "golden", "layout": "simple"})
        return {f"/nodes/{node} image": "golden"}

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        answer = self.scene.admin(method, path, body)
        require(answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def _admin(self, node: str) -> None:
        if self.chance.random() < 0.5:
            word = f"seen={self.chance.randrange(1 << 30)}"
            self._do("set", [f"/nodes/{node} kernel_arguments"], self._set, node, word)
        else:
            key = f"/layouts/simple?number={self.layouts + 1} number"
            self._do("layout", [key], self._layout, key, self.layouts + 1)

    def _set(self, node: str, word: str) -> dict[str, Any]:
        self._ask("PATCH", f"/nodes/{node}", {"kernel_arguments": [word]})
        return {f"/nodes/{node} kernel_arguments": [word]}

    def _layout(self, key: str, number: int) -> dict[str, Any]:
        self._ask("POST", "/layouts", parse_layout(LAYOUT.replace("256MiB", f"{256 + number}MiB")))
        self.layouts = number
        return {key: number}

    def _image(self, _node: str) -> None:
        key = f"/images/golden?number={self.versions + 1} number"
        self._do("publish", [key], self._publish, key, self.versions + 1)

    def _publish(self, key: str, number: int) -> dict[str, Any]:
        image = make_image(some_contents(number) | BOOTABLE)
        store = self.scene.core.catalog.store
        for segment in image.segments:
            store.put_segment(segment.ref.digest, len(segment.raw), compress(segment.raw))
        for pack in image.packs:
            store.put_pack(pack.digest, pack.stored)
        answer = self.scene.admins.post("/v1/publish", content=msgspec.msgpack.encode(image.draft))
        require(answer.status_code == 200, answer.text)
        self.versions = number
        return {key: number}

    def _work(self, node: str) -> None:
        """Take the node's work one step on."""
        state = self._state(node)
        touched = [f"/nodes/{node} netboot"] + ([f"/tasks/{self.tasks[node]} state"] if node in self.tasks else [])
        if state is TaskState.DONE:
            self._do("deploy", touched, self._deploy, node)
        elif state in (TaskState.FAILED, TaskState.ABORTED):
            self._do("retry", touched, self._retry, node)
        elif state is TaskState.UNCONFIRMED:
            self._do("confirm", touched, self._confirm, node)
        elif node not in self.agents:
            self._do("hello", touched, self._hello, node)
        elif self.chance.random() < 0.1:
            self._do("abort", touched, self._abort, node)
        elif self.chance.random() < 0.15:
            self._do("fail", touched, self._fail, node)
        elif self.chance.random() < 0.4:
            self._do("beat", [f"/tasks/{self.tasks[node]}/log "], self._beat, node)
        else:
            self._do("receipt", touched, self._receipt, node)

    def _deploy(self, node: str) -> dict[str, Any]:
        task: str = self._ask("POST", "/deploy", {"nodes": [node]})[0]["task_id"]
        self.tasks[node] = task
        self.agents.pop(node, None)
        return {f"/tasks/{task} node": node, f"/tasks/{task} state": "queued", f"/nodes/{node} netboot": "cloner"}

    def _retry(self, node: str) -> dict[str, Any]:
        self._ask("POST", f"/tasks/{self.tasks[node]}/retry")
        self.agents.pop(node, None)
        return {f"/tasks/{self.tasks[node]} state": "queued", f"/nodes/{node} netboot": "cloner"}

    def _abort(self, node: str) -> dict[str, Any]:
        self._ask("POST", f"/tasks/{self.tasks[node]}/abort")
        return {f"/tasks/{self.tasks[node]} state": "aborted"}

    def _hello(self, node: str) -> dict[str, Any]:
        agent = Agent(self.scene, facts(_NODES[node]))
        self.scene.clock.now_s += _LOST_S  # a former attempt is silent by now
        agent.hello(self.scene.mint(node))
        self.agents[node] = agent
        return {f"/tasks/{self.tasks[node]} state": "running"}

    def _beat(self, node: str) -> dict[str, Any]:
        task = self.tasks[node]
        line = LogLine(time_s=START_S, level="info", text="working")
        beat = BeatMessage(progress=Progress(stage=Stage.VERIFY), log=(line,))
        answer = self.agents[node].post("beat", beat)
        require(answer.status_code == 200, answer.text)
        self.lines[task] = self.lines.get(task, 0) + 1
        return {f"/tasks/{task}/log ": self.lines[task]}

    def _fail(self, node: str) -> dict[str, Any]:
        self.agents[node].fail(Failure(Stage.RESTORE, Cause.DISK_IO, "m", "h", True))
        del self.agents[node]
        return {f"/tasks/{self.tasks[node]} state": "failed"}

    def _receipt(self, node: str) -> dict[str, Any]:
        self.bodies[node], _ = self.agents[node].deploy()
        return {
            f"/tasks/{self.tasks[node]} state": "unconfirmed",
            f"/nodes/{node} netboot": "local",
            f"/receipts/{self.tasks[node]} confirmed_s": None,
        }

    def _confirm(self, node: str) -> dict[str, Any]:
        with self.scene.core.database.write() as connection:
            call = self.agents[node].confirmation(self.bodies[node])
            require(endings.accept_confirm(connection, self.scene.core.act("clone"), call) is None, "not confirmed")
        return {f"/tasks/{self.tasks[node]} state": "done"}


def check(scene: Scene, kept: dict[str, Any]) -> None:
    """Hold the state to what was answered, and to itself."""
    for what, wanted in kept.items():
        path, _, name = what.partition(" ")
        place, _, number = path.partition("?number=")
        answer = scene.admin("GET", place, **({"number": number} if number else {}))
        require(answer.status_code == 200, f"{path} is gone: {answer.text}")
        found = answer.json()
        if path.startswith("/receipts/"):
            continue  # that it is there is all: a confirmation may have come
        seen = found.get(name) if name else len(found)
        require(seen >= wanted if not name else seen == wanted, f"{what} is {seen}, was answered as {wanted}")
    with scene.core.database.read() as connection:
        fault = connection.exec_driver_sql("PRAGMA integrity_check").scalar_one()
        require(fault == "ok", f"the database is damaged: {fault}")
        require(connection.exec_driver_sql("PRAGMA foreign_key_check").first() is None, "rows point nowhere")
        live = select(attempts.c.task).where(attempts.c.state == "live").group_by(attempts.c.task)
        require(connection.execute(live.having(func.count() > 1)).first() is None, "two live attempts of a task")
    report = scene.core.catalog.store.check(read_data=True)
    require(report.faults == (), f"the store has faults: {report.faults}")
    shown = scene.admin("GET", "/images").json()
    require(len(shown) == report.versions, f"{len(shown)} versions are shown, {report.versions} are in the store")
    for node in scene.admin("GET", "/nodes").json():
        newest = scene.admin("GET", "/tasks", node=node["name"], limit=1).json()
        is_over = bool(newest) and newest[0]["state"] in (TaskState.UNCONFIRMED, TaskState.DONE)
        require(not is_over or node["netboot"] == "local", f"{node['name']} nets again after its receipt")


def _live_task(scene: Scene, node: str) -> Any:
    with scene.core.database.read() as connection:
        row = rows.live_task(connection, node)
        return None if row is None else rows.view_task(connection, row)


def go_on(scene: Scene) -> None:
    """Have every node that has work end it, by a new boot of its agent."""
    scene.clock.now_s += 10 * 3600
    for node in scene.admin("GET", "/nodes").json():
        task = _live_task(scene, node["name"])
        if task is None or task.state is TaskState.UNCONFIRMED:
            continue
        with scene.core.database.write() as connection:
            housekeeping.tidy(connection, scene.core.act("server"), scene.core.rules, scene.clock.now_s)
        agent = Agent(scene, facts(_NODES[node["name"]]))
        agent.hello(scene.mint(node["name"]))
        agent.deploy()
        after = scene.task(task.id).state
        require(after is TaskState.UNCONFIRMED, f"task {task.id} is {after.value} after a whole deploy")


LAW = Law(
    "server-kill",
    "a server killed anywhere has kept every request it answered, and the next one ends the work",
    300,
    open_server_kill,
    enough=enough,
)
