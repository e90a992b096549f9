"""The times and bounds the tasks live by; a site can set them in server.toml."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, Protocol

from blake3 import blake3

from cloner_core.messages import ConfirmWay, VersionRef

AcceptWord = Literal["first-hello", "admin"]

_BEATS_TO_LOSE = 3  # an attempt may miss fewer, whatever `lost_s` has become since it was told how often to beat


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds of claims, attempts and confirmation."""

    claim_life_s: float = 3600.0
    beat_every_s: float = 2.0  # at least; with many nodes at once more (`claims.beat_interval_s`)
    lost_s: float = 60.0  # without a beat
    boot_s: float = 900.0  # from the first boot script to the hello of its agent
    confirm_s: float = 1800.0  # from receipt to the clone's call
    wait_s: float = 7200.0  # that a node waits for a multicast session
    attempts: int = 5  # before a task fails by itself
    accept: AcceptWord = "first-hello"  # who decides which machine a node without accepted hardware is
    confirm: ConfirmWay = ConfirmWay.PHONE_HOME  # of nodes that have no way of their own
    confirm_host: str = ""  # where clones call
    confirm_port: int = 8080
    has_agent: bool = True  # False: no installer, so a node that is armed waits
    agent_memory_bytes: int = 0  # least MemTotal in which the offered initramfs unpacks; 0 not known
    own_macs: frozenset[str] = frozenset()  # of this machine: never deployed
    seed_key: bytes = field(default=b"", repr=False)  # secret; the seeds of all attempts derive from it
    console_key: bytes = field(default=b"", repr=False)  # secret; host keys of consoles; empty: agents open none


class Catalog(Protocol):
    """What tasks need of the image store."""

    def version_ref(self, image: str, number: int) -> VersionRef:
        """Return the signed version as an agent is told it; raises NotFoundError."""
        ...


def token_hash(token: str) -> str:
    """Return what the database keeps of a token: its SHA-256. Tokens are random, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def silence_s(rules: Rules, told_s: float | None) -> float:
    """Return the seconds without a beat after which an attempt is lost.

    `told_s` is how often it was told to beat; None when that is not known.
    """
    return max(rules.lost_s, _BEATS_TO_LOSE * (told_s or 0.0))


def attempt_seed(rules: Rules, task_id: int, number: int) -> str:
    """Return the seed (64 hex digits) of attempt `number` of a task.

    Derived, not drawn: so the plan of the next attempt can be shown before it exists. Nobody else can foresee it.
    """
    material = rules.seed_key + f"{task_id}/{number}".encode()
    return blake3(material, derive_key_context="cloner 2026 seed of an attempt").hexdigest()
