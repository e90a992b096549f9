"""The tables of docs/capture.md, made from the kinds and the rules."""

from __future__ import annotations

from cloner_agent.capture import golden_identity
from cloner_core.image.linting.finding import Grade
from cloner_core.image.linting.kinds import KINDS, LintKind


def tables() -> tuple[list[str], list[str], list[str]]:
    """Return the rows of the tables of identity, secrets and advice, in their order."""
    identity = []
    for kind in _of(Grade.IDENTITY):
        paths = [f"`/{rule.path.decode()}`" for rule in golden_identity.RULES if rule.kind is kind]
        identity.append(f"| `{kind.name}` | {', '.join(paths)} | {kind.advice} |")
    return identity, _rows(Grade.SECRET), _rows(Grade.ADVICE)


def _of(grade: Grade) -> list[LintKind]:
    return [kind for kind in KINDS if kind.grade is grade]


def _rows(grade: Grade) -> list[str]:
    return [f"| `{kind.name}` | {kind.what} | {kind.advice} |" for kind in _of(grade)]
