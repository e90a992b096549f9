"""Guesses of passwords: slower with each, by address and in all; nobody else is kept out; the tables stay small."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.throttle import (
    MAX_CONNECTIONS,
    MAX_OF_ADDRESS,
    MAX_WAITING,
    TRIES_OF_CONNECTION,
    Budget,
    Throttle,
    group,
)


def guess(throttle: Throttle, address: str, now_s: float) -> float | None:
    """Try one wrong password at `now_s`; return when it was looked at, None when it was not."""
    delay_s = throttle.delay_s(address, now_s)
    if delay_s is None:
        return None
    throttle.wrong(address, now_s + delay_s)
    return now_s + delay_s


def test_each_guess_of_an_address_waits_twice_as_long_as_the_one_before() -> None:
    throttle, now, looks = Throttle(), 0.0, []
    for _ in range(6):
        seen = guess(throttle, "10.0.0.1", now)
        assert seen is not None
        looks.append(seen)
        now = seen
    assert [round(later - one) for one, later in itertools.pairwise(looks)] == [1, 2, 4, 8, 16]


def test_one_address_learns_little_in_a_day_however_it_asks() -> None:
    throttle, now, looks = Throttle(), 0.0, 0
    while now < 86400:
        looks += guess(throttle, "10.0.0.1", now) is not None
        now += 3.0
    assert looks < 86400 / 30


def test_all_addresses_together_are_slowed() -> None:
    throttle = Throttle()
    looks = [guess(throttle, f"10.1.{n // 250}.{n % 250}", 0.0) for n in range(1000)]
    assert sum(seen is not None for seen in looks) <= 61, "two a second, half a minute ahead at most"


def test_after_three_guesses_the_door_stays_closed_for_a_while_and_only_for_that_address() -> None:
    throttle = Throttle()
    now = 0.0
    for _ in range(TRIES_OF_CONNECTION):
        now = guess(throttle, "10.0.0.1", now) or now
    assert not throttle.admit("10.0.0.1", now + 1)
    assert throttle.admit("10.0.0.2", now + 1)
    assert throttle.admit("10.0.0.1", now + 5)
    assert (throttle.guesses, throttle.last_from) == (4, "10.0.0.1")


def test_the_right_password_forgives() -> None:
    throttle = Throttle()
    assert throttle.admit("10.0.0.1", 0.0)
    for now in (0.0, 10.0, 20.0):
        guess(throttle, "10.0.0.1", now)
    throttle.right("10.0.0.1", 30.0)
    assert throttle.delay_s("10.0.0.1", 30.0) == 0.0


def test_guesses_are_forgotten_after_a_quarter_of_an_hour() -> None:
    throttle = Throttle()
    for now in (0.0, 10.0, 20.0):
        guess(throttle, "10.0.0.1", now)
    assert throttle.delay_s("10.0.0.1", 2000.0) == 0.0
    guess(throttle, "10.0.0.1", 2000.0)
    assert throttle.delay_s("10.0.0.1", 2000.5) == pytest.approx(1.0), "as after a first guess"


def test_connections_are_capped_by_address_before_login_and_in_all() -> None:
    throttle = Throttle()
    assert [throttle.admit("10.0.0.1", 0.0) for _ in range(6)].count(True) == MAX_OF_ADDRESS
    others = [throttle.admit(f"10.0.1.{n}", 0.0) for n in range(20)]
    assert others.count(True) == MAX_WAITING - MAX_OF_ADDRESS
    throttle = Throttle()
    for number in range(40):
        if throttle.admit(f"10.0.1.{number}", 0.0):
            throttle.right(f"10.0.1.{number}", 0.0)
    assert not throttle.admit("10.0.2.1", 0.0)
    for number in range(MAX_CONNECTIONS):
        throttle.leave(f"10.0.1.{number}", is_waiting=False)
    assert [throttle.admit(f"10.0.2.{n}", 0.0) for n in range(20)].count(True) == MAX_WAITING


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.floats(0, 50)), max_size=60))
@settings(max_examples=30, deadline=None)
def test_counts_never_go_wrong_whatever_comes_and_goes(steps: list[tuple[int, int, float]]) -> None:
    throttle, now, here = Throttle(), 0.0, []
    for kind, number, passed in steps:
        now += passed
        address = f"10.0.0.{number}"
        if kind == 0 and throttle.admit(address, now):
            here.append(address)
        elif kind == 1 and address in here:
            here.remove(address)
            throttle.leave(address, is_waiting=True)
        elif kind == 2:
            guess(throttle, address, now)
        assert len(here) <= MAX_WAITING
    for address in here:
        throttle.leave(address, is_waiting=True)
    assert [throttle.admit(f"10.9.0.{n}", now) for n in range(20)].count(True) == MAX_WAITING


def test_the_table_forgets_the_oldest_addresses() -> None:
    throttle = Throttle()
    for number in range(5000):
        throttle.wrong(f"2001:db8:{number:x}::1", 0.0)
    assert len(throttle._known) <= 1024


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("nonsense", "nonsense", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, is_same: bool) -> None:
    assert (group(one) == group(other)) is is_same


def test_a_connection_may_send_what_a_viewer_types_and_not_more() -> None:
    budget = Budget(0.0)
    assert all(budget.take(2000, float(second)) for second in range(1000))
    assert not Budget(0.0).take(Budget.BURST_BYTES + 1, 0.0)
    flood = Budget(0.0)
    assert sum(flood.take(1024, n / 100) for n in range(1000)) < 160
