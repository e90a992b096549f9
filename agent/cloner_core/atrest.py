"""What agent, server and command line say to each other about capturing a node at rest; beside `messages`.

At rest: the node netboots the agent, which captures its disks without writing to them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cloner_core.image.options import StoredOptions
from cloner_core.layout import Layout
from cloner_core.messages import ConsoleAccess, Secret, Strict

ConflictWord = Literal["prompt", "server", "commandline"]
MAX_CHARACTERS = 1024


class CaptureOrder(Strict, frozen=True):
    """How a node is captured: the document of a task. Nobody can be asked while it runs."""

    image: str
    options: StoredOptions  # those that count, settled when the task was armed
    keeps_options: bool = False  # they are kept with the image when the version is published
    options_revision: int = 0  # those that are kept must still have it, where these are to be
    message: Annotated[str, Meta(max_length=MAX_CHARACTERS)] = ""
    allow_secrets: bool = False
    conflict: ConflictWord = "prompt"  # where the layout that is found is not the kept one; prompt: refused
    root_device: Annotated[str, Meta(max_length=MAX_CHARACTERS)] = ""  # as fstab(5) names it; "": there is one alone


class CaptureTask(Strict, frozen=True):
    """What an attempt shall capture."""

    task_id: str
    attempt_id: str
    node: str
    order: CaptureOrder


class CaptureReply(Strict, frozen=True, tag_field="kind", tag="capture"):
    """The answer to a hello whose task is to capture; see `messages.HelloReply`."""

    credential: Secret
    task: CaptureTask
    server_time_s: float
    beat_every_s: float
    console: ConsoleAccess | None = None


class DiskKeys(Strict, frozen=True):
    """What may open the encrypted disks of a node that was cloned from here, the newest first."""

    keys: tuple[Secret, ...]


class LayoutFound(Strict, frozen=True):
    """The layout that the disks of the node have."""

    layout: Layout | None  # None: no layout describes them
    why: str = ""  # of None: every device that is not described
    is_to_be_kept: bool = False  # False: only say whether it will do


class LayoutTold(Strict, frozen=True):
    """Which layout the version is for, and what room the store has for it."""

    layout: Layout
    free_bytes: int
    notes: tuple[str, ...] = ()
