"""The state of the node's screen in shared memory: one process keeps it, any number of others draw it.

Keeping it never waits for who looks. Must not draw on anything; `text` is for those who want it whole (the bundle).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from cloner_agent.addresses import read_links
from cloner_core.atrest import CaptureTask
from cloner_core.describing import sendable
from cloner_core.erasing.words import EraseTask
from cloner_core.mailbox import Mailbox
from cloner_core.messages import CAPTURE_STAGES, ERASE_STAGES, Failure, Progress, Stage, StageTime, Task
from cloner_core.screen import LOG_LINES, Link, Screen, render

_SIZE_BYTES = 128 << 10
_LINE_CHARACTERS = 300
_MESSAGE_CHARACTERS = 2000
_EVERY_S = 0.2  # between two states of a stage's progress
_WIDTH, _HEIGHT = 120, 50


class Board:
    """What the screen shows now. Its process alone changes it; the others, made by fork, read it with `get`."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        links: Callable[[], Sequence[Link]] = read_links,
    ) -> None:
        now = clock()
        self.links = links
        self._clock = clock
        self._state = Screen(started_s=now, stage_s=now)
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._box = Mailbox(Screen, self._state, _SIZE_BYTES)
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._next_s = 0.0

    def get(self) -> Screen:
        """Return the latest state, from any process."""
        return self._box.get()

    def text(self) -> str:
        """Return the screen as one text, drawn now."""
        return "\n".join(render(self.get(), self.links(), now_s=self._clock(), width=_WIDTH, height=_HEIGHT))

    def server(self, where: str) -> None:
        """Say which server the node talks to."""
        self._put(server=where)

    def task(self, task: Task | EraseTask | CaptureTask) -> None:
        """Say what the server has told."""
        attempt = task.attempt_id.split("-")[1] if "-" in task.attempt_id else task.attempt_id
        if isinstance(task, EraseTask):
            self._put(node=task.node, task=task.task_id, attempt=attempt, stages=ERASE_STAGES)
            return
        if isinstance(task, CaptureTask):
            order, known = task.order, {"node": task.node, "task": task.task_id, "attempt": attempt}
            self._put(image=order.image, layout=order.options.layout, stages=CAPTURE_STAGES, **known)
            return
        image = f"{task.version.image}:{task.version.number}"
        self._put(node=task.node, image=image, layout=task.layout.name, task=task.task_id, attempt=attempt)

    def stage(self, stage: Stage) -> None:
        """Begin a stage; the former one is over."""
        now, state = self._clock(), self._state
        if stage is state.stage:
            return
        before = {one.stage: one.seconds for one in state.done}
        before[state.stage] = before.get(state.stage, 0.0) + now - state.stage_s
        done = tuple(StageTime(stage=one, seconds=seconds) for one, seconds in before.items() if one is not stage)
        self._next_s = 0.0
        self._put(stage=stage, stage_s=now - before.get(stage, 0.0), done=done, progress=None)

    def progress(self, progress: Progress) -> None:
        """Say how far the stage is; what comes within a fifth of a second of the last is left out."""
        now = self._clock()
        if now < self._next_s and progress.done != progress.total:
            return
        self._next_s = now + _EVERY_S
        self._put(progress=msgspec.structs.replace(progress, text=progress.text[:_LINE_CHARACTERS]))

    def log(self, text: str) -> None:
        """Add lines of the log."""
        self._log.extend(sendable(line)[:_LINE_CHARACTERS] for line in text.splitlines()[-LOG_LINES:])
        self._put(log=tuple(self._log))

    def failed(self, failure: Failure) -> None:
        """Show a failure; the clocks stop."""
        words = failure.message[:_MESSAGE_CHARACTERS], failure.hint[:_MESSAGE_CHARACTERS]
        shown = msgspec.structs.replace(failure, message=words[0], hint=words[1])
        ended_s = self._clock() if self._state.ended_s is None else self._state.ended_s
        self._put(failure=shown, doing="failed", ended_s=ended_s)

    def hold(self) -> None:
        """Say that the node waits for a person."""
        self._put(doing="holding")

    def restarting(self, why: str) -> None:
        """Say that the machine restarts."""
        self._put(doing="restarting", why=why)

    def _put(self, **changes: object) -> None:
        if os.getpid() != self._owner:
            return  # a worker of the restore, made by fork, logs too; two writers would tear the state
        with self._lock:  # the threads of an erase log
            self._state = msgspec.structs.replace(self._state, **changes)
            self._box.put(self._state)
