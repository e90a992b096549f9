"""The laws of keep rules: which version of a period is kept, and that nothing is let go by surprise."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloner_core.image.keeping import OF_IMAGE, Candidate, History, KeepRule, fates, kept_by

COUNTS = st.integers(0, 8)
RULES = st.builds(KeepRule, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
TIMES = st.floats(0, 4e9, allow_nan=False)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Draw versions, mostly in the order of time; a clock may have been set back between two."""
    numbers = draw(st.sets(st.integers(1, 60), max_size=25))
    times = draw(st.lists(TIMES, min_size=len(numbers), max_size=len(numbers)))
    if draw(st.booleans()):
        times.sort()
    return [Candidate(number, number, time) for number, time in zip(sorted(numbers), times, strict=True)]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draw an image with channels that have moved, to versions some of which are gone, and with users."""
    versions = draw(candidates())
    moves = st.dictionaries(st.integers(1, 60), st.tuples(st.integers(1, 1000), TIMES), max_size=10)
    channels = {
        name: [Candidate(number, order, time) for number, (order, time) in draw(moves).items()]
        for name in draw(st.sets(st.sampled_from(["prod", "test"])))
    }
    users = {one.number: ("node n01",) for one in versions if draw(st.booleans())}
    return History("debian", versions, channels, users)


RULE_SETS = st.dictionaries(st.sampled_from([OF_IMAGE, "prod", "test"]), RULES)


def kept(history: History, rules: dict[str, KeepRule]) -> set[int]:
    return {fate.number for fate in fates(history, rules) if fate.is_kept}


def bigger(one: KeepRule, two: KeepRule) -> KeepRule:
    return KeepRule(*(max(getattr(one, name), getattr(two, name)) for name in one.__struct_fields__))


@given(candidates(), RULES, RULES)
def test_what_a_smaller_rule_keeps_a_bigger_one_keeps(versions: list[Candidate], one: KeepRule, two: KeepRule) -> None:
    assert set(kept_by(one, versions)) <= set(kept_by(bigger(one, two), versions))


@given(histories(), RULE_SETS, RULE_SETS)
def test_what_a_smaller_set_of_rules_keeps_a_bigger_one_keeps(
    history: History, few: dict[str, KeepRule], more: dict[str, KeepRule]
) -> None:
    """The rule of the image is in both: the first rule that speaks of a version at all is what can let it go."""
    few = {OF_IMAGE: KeepRule(last=1)} | few
    both = few | {name: bigger(rule, few.get(name, KeepRule())) for name, rule in more.items()}
    assert kept(history, few) <= kept(history, both)


@given(histories(), RULE_SETS)
def test_the_newest_what_is_used_and_what_no_rule_speaks_of_are_kept(
    history: History, rules: dict[str, KeepRule]
) -> None:
    numbers = {one.number for one in history.versions}
    spoken_of = {one.number for name in rules for one in history.channels.get(name, ())}
    spoken_of |= numbers if OF_IMAGE in rules else set()
    gone = numbers - kept(history, rules)
    assert not gone & {max(numbers, default=0), *history.users}
    assert gone <= spoken_of


EQUAL_MOVES = History(
    "debian", [Candidate(1, 1, 0), Candidate(2, 2, 0)], {"prod": [Candidate(1, 1, 0), Candidate(2, 1, 0)]}
)


@given(histories(), RULE_SETS, st.randoms(use_true_random=False))
@example(EQUAL_MOVES, {"prod": KeepRule(yearly=1)}, Random(1))
def test_the_order_in_which_things_are_told_changes_nothing(
    history: History, rules: dict[str, KeepRule], dice: Random
) -> None:
    shuffled = list(history.versions)
    dice.shuffle(shuffled)
    channels = {name: list(reversed(moves)) for name, moves in history.channels.items()}
    again = History(history.image, shuffled, channels, history.users)
    assert fates(again, dict(reversed(rules.items()))) == fates(history, rules)


@given(histories(), RULE_SETS)
def test_once_applied_the_same_rules_let_nothing_more_go(history: History, rules: dict[str, KeepRule]) -> None:
    left = kept(history, rules)
    after = History(
        history.image, [one for one in history.versions if one.number in left], history.channels, history.users
    )
    assert kept(after, rules) == left


@given(histories())
def test_without_a_rule_everything_is_kept(history: History) -> None:
    assert kept(history, {}) == {one.number for one in history.versions}


@given(candidates(), st.integers(1, 8))
def test_last_keeps_exactly_the_newest_so_many(versions: list[Candidate], count: int) -> None:
    newest = sorted((one.number for one in versions), reverse=True)[:count]
    assert sorted(kept_by(KeepRule(last=count), versions), reverse=True) == newest


def at(*days: str) -> list[Candidate]:
    return [
        Candidate(number, number, datetime.fromisoformat(f"{day}+00:00").astimezone(UTC).timestamp())
        for number, day in enumerate(days, start=1)
    ]


PERIODS = {
    "the last of a day": (KeepRule(daily=2), ["2026-01-01", "2026-01-01T23:59", "2026-01-02"], {2, 3}),
    "days without a version do not count": (KeepRule(daily=2), ["2026-01-01", "2026-02-01", "2026-09-01"], {2, 3}),
    "a week begins on monday": (KeepRule(weekly=2), ["2026-11-15", "2026-11-16", "2026-11-21"], {1, 3}),
    "the first days of january may be of the old year's last week": (
        KeepRule(weekly=1),
        ["2024-12-29", "2024-12-30", "2025-01-05"],
        {3},
    ),
    "the last of a month": (KeepRule(monthly=3), ["2026-09-01", "2026-09-30", "2026-10-15", "2026-11-02"], {2, 3, 4}),
    "the last of a year": (KeepRule(yearly=2), ["2024-06-01", "2024-12-31", "2025-01-01", "2026-05-01"], {3, 4}),
    "one version may be kept for several reasons": (KeepRule(last=1, monthly=2), ["2026-01-01", "2026-02-01"], {1, 2}),
}


@pytest.mark.parametrize(("rule", "days", "numbers"), PERIODS.values(), ids=list(PERIODS))
def test_of_a_period_the_last_version_is_kept(rule: KeepRule, days: list[str], numbers: set[int]) -> None:
    assert set(kept_by(rule, at(*days))) == numbers


def test_reasons_name_the_rule_and_the_period() -> None:
    versions = at("2026-09-01", "2026-10-01", "2026-11-01", "2026-11-02", "2026-11-03")
    moves = {"prod": [Candidate(1, 1, versions[0].time_s), Candidate(2, 2, versions[1].time_s)]}
    history = History("debian", versions, moves, {3: ("node n01",)})
    told = fates(history, {OF_IMAGE: KeepRule(last=1, monthly=1), "prod": KeepRule(last=1)})
    assert [(fate.number, fate.why) for fate in told] == [
        (1, ()),
        (2, ("prod: last 1",)),
        (3, ("node n01",)),
        (4, ()),
        (5, ("last 1", "monthly 2026-11", "newest")),
    ]


def test_a_rule_of_a_channel_alone_lets_go_only_what_the_channel_has_pointed_to() -> None:
    history = History("debian", at(*["2026-01-01"] * 5), {"prod": at("2026-01-01", "2026-01-02")}, {})
    told = {fate.number: fate.why for fate in fates(history, {"prod": KeepRule(last=1)})}
    assert told[1] == ()
    assert told[3] == ("no rule speaks of it",)
