"""How tasks stand, as text: one line a node. Pure: takes what the server said and the time, prints nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cloner_cli.text import duration, printable
from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.messages import Progress
from cloner_core.sizes import format_bytes

ENDED = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.ABORTED, TaskState.FROZEN})
"""States that waiting ends with: nothing more happens by itself. A frozen task wants a person."""

EVERY_S = 10.0


def has_ended(task: TaskView) -> bool:
    """Return whether nothing more happens to the task by itself."""
    return task.state in ENDED


def share(task: TaskView) -> float | None:
    """Return how much of the running stage is done, 0 to 1; None when that is not known."""
    told = task.progress
    if task.state is not TaskState.RUNNING or told is None or told.total <= 0:
        return None
    return min(1.0, max(0.0, told.done / told.total))


def amount(told: Progress) -> str:
    """Return "120.0 MiB of 1.8 GiB, 85.0 MiB/s, 20 s left", or "4 of 11, format root (ext4)"; "" for nothing known."""
    parts = []
    if told.done or told.total:
        shown = format_bytes if told.unit == "bytes" else str
        parts.append(shown(told.done) + (f" of {shown(told.total)}" if told.total else ""))
    if told.unit == "bytes" and told.rate_per_s > 0:
        parts.append(f"{format_bytes(int(told.rate_per_s))}/s")
        if told.total > told.done:
            parts.append(f"{duration((told.total - told.done) / told.rate_per_s)} left")
    if told.text:
        parts.append(printable(told.text))
    return ", ".join(parts)


def what_of(task: TaskView) -> str:
    """Return what a task is about: "debian:3", "erase", "capture debian", or "capture debian:4" once it is done."""
    if task.kind == "erase":
        return task.kind
    image = f"{task.image}:{task.version}" if task.version else task.image
    return image if task.kind == "deploy" else f"{task.kind} {image}"


def standing(task: TaskView) -> str:
    """Return where a task stands: its state, stage and amount, or why it failed."""
    if task.failure is not None:
        return f"{task.state} in {task.failure.stage} ({task.failure.cause})"
    if task.state is not TaskState.RUNNING:
        explained = _WAITED_FOR.get(task.confirm) if task.state is TaskState.UNCONFIRMED else None
        return f"{task.state}{explained or _EXPLAINED.get(task.state, '')}"
    parts = [str(task.state), task.stage, amount(task.progress) if _is_current(task) and task.progress else ""]
    return "  ".join(part for part in parts if part)


_EXPLAINED = {
    TaskState.QUEUED: ", waiting for the node to netboot",
    TaskState.LOST: ", no heartbeat",
    TaskState.UNCONFIRMED: ", waiting for the clone to report",
}
_WAITED_FOR = {
    "ssh": ", waiting for the clone's SSH server",
    "console": ", waiting for what its console says (cloner confirm --console)",
}


def _is_current(task: TaskView) -> bool:
    return task.progress is not None and (not task.stage or task.progress.stage.value == task.stage)


def why_failed(task: TaskView) -> str:
    """Return what a person needs about a task that did not end well."""
    if task.failure is None:
        return f"{task.node}: task {task.id} is {task.state}"
    told = task.failure
    lost = "; its old content is lost" if told.is_destroyed else "; its disks were not touched"
    hint = f"\n    hint: {told.hint}" if told.hint else ""
    return f"{task.node}: failed in stage {told.stage}, cause {told.cause}: {told.message}{lost}{hint}"


@dataclass
class Ticker:
    """Chooses what to say where lines cannot be redrawn: each change of state or stage, and every ten seconds."""

    _said: dict[str, tuple[str, str]] = field(default_factory=dict)
    _at_s: dict[str, float] = field(default_factory=dict)
    _texts: dict[str, str] = field(default_factory=dict)

    def lines(self, tasks: Iterable[TaskView], now_s: float) -> list[str]:
        """Return the lines due at `now_s`."""
        due = []
        for task in tasks:
            place, text = (task.state.value, task.stage), f"{task.node}  {standing(task)}"
            is_stale = now_s - self._at_s.get(task.id, now_s) >= EVERY_S and self._texts.get(task.id) != text
            if self._said.get(task.id) != place or is_stale:
                self._said[task.id], self._at_s[task.id], self._texts[task.id] = place, now_s, text
                due.append(text)
        return due
