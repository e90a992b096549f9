"""Tasks, their logs and receipts, and what the server noted."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from cloner_core.admin.nodes import ConfirmWord
from cloner_core.erasing.words import EraseReceipt
from cloner_core.messages import Failure, Progress, Receipt, Strict


class TaskState(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    WAITING = "waiting"  # for its multicast session
    BOOTING = "booting"  # a boot script with a claim was served
    RUNNING = "running"
    LOST = "lost"  # no heartbeat; comes back by itself
    UNCONFIRMED = "unconfirmed"  # receipt accepted, the clone has not called yet
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    FROZEN = "frozen"  # two machines claimed it; a person decides


class TaskView(Strict, frozen=True):
    """A task as it is."""

    id: str
    revision: int
    node: str
    kind: str  # "deploy", "erase"; one that erases has neither image nor layout
    state: TaskState
    stage: str
    image: str
    version: int
    digest: str
    layout: str
    layout_number: int
    author: str
    created_s: float
    changed_s: float
    attempts: int
    progress: Progress | None  # None: nothing running was reported yet
    failure: Failure | None  # None unless failed
    confirm: ConfirmWord = ""  # how the newest attempt's clone is to confirm; "" before the first attempt
    confirmed_by: ConfirmWord = ""  # how it did; "none" where nobody asked; "" not yet
    scripts: int = 0  # number of the set of scripts it was armed with; 0 there were none
    session: str = ""  # the multicast session it belongs to; "" none


class LogEntry(Strict, frozen=True):
    """One line of a task's log, as the agent sent it."""

    id: int
    attempt: str
    time_s: float
    level: str
    text: str


class EventView(Strict, frozen=True):
    """One line of the audit: who did what to which object, and when."""

    id: int
    time_s: float
    author: str
    object: str
    revision: int
    what: str
    detail: dict[str, Any]
    is_alarm: bool


class ReceiptView(Strict, frozen=True):
    """A receipt and the server's public key (hex) that its signature verifies with."""

    receipt: Receipt | EraseReceipt
    server_key: str


class Status(Strict, frozen=True):
    """The server at a glance."""

    version: str
    address: str
    nodes: int
    tasks: dict[str, int]  # by state
    images: int
    alarms: tuple[EventView, ...]  # of the last day
    free_bytes: int  # of the file system under the state directory
    services: tuple[str, ...]
    warnings: tuple[str, ...] = ()  # what is set up in a way that nobody should leave it
