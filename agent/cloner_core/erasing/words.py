"""What agent, server and command line say to each other about erasing; beside `messages`, which is about deploys."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cloner_core.layout import Selector
from cloner_core.messages import ConsoleAccess, Secret, StageTime, Strict

MethodWord = Literal["auto", "sanitize", "format", "ata-secure", "discard", "overwrite"]
VerifyWord = Literal["sample", "full"]
ThenWord = Literal["off", "reboot", "hold"]
MAX_PASSES = 35


class Way(StrEnum):
    """How one disk is erased; the receipt names it."""

    SANITIZE_BLOCK = "nvme-sanitize-block"
    SANITIZE_CRYPTO = "nvme-sanitize-crypto"
    FORMAT = "nvme-format"  # --ses=1, user data erase
    FORMAT_CRYPTO = "nvme-format-crypto"  # --ses=2
    ATA_ENHANCED = "ata-secure-enhanced"
    ATA = "ata-secure"
    DISCARD = "discard"
    OVERWRITE = "overwrite"


LEAVES_ZEROES = frozenset({Way.DISCARD, Way.OVERWRITE})
"""Ways after which every byte must read as zero; after others a disk may answer with anything but what was there."""


class EraseOrder(Strict, frozen=True):
    """Which disks of a node are erased, how, and what follows: the document of a task."""

    select: tuple[Selector, ...] = ()  # a disk that fits any of them; (): every disk that may be erased
    method: MethodWord = "auto"
    passes: Annotated[int, Meta(ge=1, le=MAX_PASSES)] = 1  # of an overwrite
    verify: VerifyWord = "sample"
    then: ThenWord = "off"
    agreed: tuple[str, ...] | None = None  # the disks that were shown, by `disk_key`; None: nobody knew them


class EraseTask(Strict, frozen=True):
    """What an attempt shall erase."""

    task_id: str
    attempt_id: str
    node: str
    order: EraseOrder
    seed: str  # hex, 32 bytes, new for each attempt: the places that are looked at derive from it
    protected_serials: tuple[str, ...] = ()


class EraseReply(Strict, frozen=True, tag_field="kind", tag="erase"):
    """The answer to a hello whose task is to erase; see `messages.HelloReply`."""

    credential: Secret
    task: EraseTask
    server_time_s: float
    beat_every_s: float
    console: ConsoleAccess | None = None


class ErasedDisk(Strict, frozen=True):
    """A disk that was erased, and what shows it."""

    path: str
    serial: str
    wwn: str
    model: str
    size_bytes: int
    way: Way
    result: Literal["erased"]  # a disk that is not erased fails the task, and there is no receipt
    evidence: tuple[str, ...]  # what the device itself says of it, and what the way came to
    checked: VerifyWord
    places: int  # looked at after the erase
    bytes_read: int  # of these places
    seconds: float


class EraseReceiptBody(Strict, frozen=True):
    """What the agent says it erased; the server checks it, adds itself and signs."""

    task_id: str
    attempt_id: str
    node: str
    plan_digest: str
    disks: tuple[ErasedDisk, ...]
    left: tuple[str, ...]  # disks of the machine that were not erased, each with the reason
    stages: tuple[StageTime, ...]
    notes: tuple[str, ...] = ()


class EraseReceipt(Strict, frozen=True, tag_field="kind", tag="erase"):
    """The signed record of an erase; `signature` covers `erase_statement(body, accepted_s)`."""

    body: EraseReceiptBody
    accepted_s: float
    signature: str  # hex, Ed25519


def erase_statement(body: EraseReceiptBody, accepted_s: float) -> bytes:
    """Return what the server signs for an erase."""
    return b"cloner erase receipt 1\0" + msgspec.json.encode((body, accepted_s), order="deterministic")
