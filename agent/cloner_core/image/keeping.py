"""Which versions of an image keep rules keep, and why. Pure.

The rules mean what users of restic know: each number counts on its own, and of a period that has several versions the
last one is kept. Periods are those of UTC; weeks are ISO 8601's and begin on Monday. A period without a version does
not count: `monthly 12` keeps a version for each of the last twelve months that have one.

A rule of the image speaks of all its versions; a rule of a channel speaks of the versions the channel has pointed to.
What no rule speaks of is kept, and so are the newest version and whatever is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from cloner_core.messages import Strict

Count = Annotated[int, Meta(ge=0, le=10_000)]
OF_IMAGE = ""
"""In place of the name of a channel: the rule of the image itself."""


class KeepRule(Strict, frozen=True):
    """How many versions to keep; 0 keeps none for its reason."""

    last: Count = 0  # the newest
    daily: Count = 0  # the last of each of so many days that have one
    weekly: Count = 0
    monthly: Count = 0
    yearly: Count = 0

    @property
    def is_empty(self) -> bool:
        """Whether it keeps nothing."""
        return self == KeepRule()

    def __str__(self) -> str:
        counts = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return ", ".join(f"{name} {count}" for name, count in counts if count)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version as a rule sees it."""

    number: int
    order: int  # rises from older to newer: the number, or the revision of the channel's last move to it; of equals
    # the higher number is the newer
    time_s: float  # when it was published, or when the channel last moved to it


@dataclass(frozen=True, slots=True)
class History:
    """All there is to know about one image."""

    image: str
    versions: Sequence[Candidate]  # that exist
    channels: Mapping[str, Sequence[Candidate]] = field(default_factory=dict)  # versions each has pointed to
    users: Mapping[int, Sequence[str]] = field(default_factory=dict)  # by number: channels, nodes, live tasks


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one version."""

    number: int
    why: tuple[str, ...]  # it is kept; empty: it is let go

    @property
    def is_kept(self) -> bool:
        """Whether anything keeps it."""
        return bool(self.why)


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _week(moment: datetime) -> str:
    year, week, _ = moment.isocalendar()
    return f"{year:04}-W{week:02}"


_PERIODS: tuple[tuple[str, Callable[[datetime], str]], ...] = (
    ("daily", _day),
    ("weekly", _week),
    ("monthly", lambda moment: f"{moment:%Y-%m}"),
    ("yearly", lambda moment: f"{moment:%Y}"),
)


def kept_by(rule: KeepRule, candidates: Iterable[Candidate]) -> dict[int, list[str]]:
    """Return the numbers of the versions that `rule` keeps, each with the reasons."""
    ordered = sorted(candidates, key=lambda one: (one.order, one.number), reverse=True)
    reasons: dict[int, list[str]] = {one.number: [f"last {rule.last}"] for one in ordered[: rule.last]}
    for name, period_of in _PERIODS:
        last_of: dict[str, Candidate] = {}
        for one in ordered:
            last_of.setdefault(period_of(datetime.fromtimestamp(one.time_s, UTC)), one)
        for period in sorted(last_of, reverse=True)[: getattr(rule, name)]:
            reasons.setdefault(last_of[period].number, []).append(f"{name} {period}")
    return reasons


def fates(history: History, rules: Mapping[str, KeepRule]) -> list[Fate]:
    """Return what becomes of each version of an image, by number; `rules` are by channel, or `OF_IMAGE`."""
    there = {one.number for one in history.versions}
    spoken_of: set[int] = set()
    reasons: dict[int, list[str]] = {number: [] for number in there}
    for channel, rule in sorted(rules.items()):
        of_channel = [one for one in history.channels.get(channel, ()) if one.number in there]
        candidates = list(history.versions) if channel == OF_IMAGE else of_channel
        spoken_of |= {one.number for one in candidates}
        for number, why in kept_by(rule, candidates).items():
            reasons[number] += [f"{channel}: {each}" if channel else each for each in why]
    for number in there:
        reasons[number] += ["newest"] if number == max(there) else []
        reasons[number] += history.users.get(number, ())
        reasons[number] += [] if number in spoken_of or reasons[number] else ["no rule speaks of it"]
    return [Fate(number, tuple(reasons[number])) for number in sorted(there)]
