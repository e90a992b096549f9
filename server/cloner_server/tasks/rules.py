"""The times and bounds the tasks live by; a site can set them in server.toml."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from cloner_core.messages import VersionRef


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds of claims, attempts and confirmation."""

    claim_life_s: float = 3600.0
    beat_every_s: float = 2.0
    lost_s: float = 60.0  # without a beat
    confirm_s: float = 1800.0  # from receipt to the clone's call
    attempts: int = 5  # before a task fails by itself
    confirm_host: str = ""  # where clones call; "" asks for no confirmation
    confirm_port: int = 8080


class Catalog(Protocol):
    """What tasks need of the image store."""

    def version_ref(self, image: str, number: int) -> VersionRef:
        """Return the signed version as an agent is told it; raises NotFoundError."""
        ...


def token_hash(token: str) -> str:
    """Return what the database keeps of a token: its SHA-256. Tokens are random, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()
