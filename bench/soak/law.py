"""What a soak runs: a law, opened once, and a case of it for every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from cloner_core.errors import ClonerError
from soak.book import Entry

Figures = Mapping[str, float | str]
"""What one case measured: numbers are summed up, words are counted."""

Case = Callable[[int], Figures]
"""Tries the law with one seed, which decides everything chance decides. Raises LawBrokenError when it does not hold."""


@runtime_checkable
class Crowd(Protocol):
    """A case whose seeds are members of one whole: they are tried together, then each is asked for."""

    def gather(self, seeds: Sequence[int]) -> None:
        """Try all of them; called once, before the first is asked for."""

    def __call__(self, seed: int) -> Figures:
        """See `Case`."""


class LawBrokenError(ClonerError):
    """A case in which the law does not hold."""


@dataclass(frozen=True, slots=True)
class Law:
    """Something that must hold whatever chance does."""

    name: str
    says: str
    count: int  # cases that make evidence
    open: Callable[[Path], AbstractContextManager[Case]]
    """Makes what all cases share in an empty directory and takes away what it made outside of that."""
    at_once: int = 1  # cases that may run side by side, each in a thread of its own
    keeps_cases: bool = False  # the evidence lists every case, not their sum alone
    enough: Callable[[Sequence[Entry]], str] = lambda _: ""
    """Says why as many cases as make evidence tried too little all the same; "" when they tried enough."""


def share(entries: Sequence[Entry], is_so: Callable[[Figures], bool]) -> float:
    """Return in what part of the cases something was so, between 0 and 1; a case that failed has no figures."""
    return sum(is_so(entry.figures) for entry in entries) / len(entries)


def require(is_so: bool, what: str) -> None:
    """Raise LawBrokenError that says `what` unless it is so."""
    if not is_so:
        raise LawBrokenError(what)
