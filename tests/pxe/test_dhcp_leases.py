"""Who gets which address, for any history of machines."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloner_core.errors import InvalidError
from cloner_pxe.dhcp_leases import OFFER_S, Addresses, MemoryLeases, Pool, Reservation

FIRST, LAST, SERVER = IPv4Address("10.0.0.10"), IPv4Address("10.0.0.13"), IPv4Address("10.0.0.11")
A, B, C, D = (f"02:00:00:00:00:0{number}" for number in range(4))
macs = st.sampled_from([A, B, C, D])
pool_addresses = st.integers(int(FIRST) - 1, int(LAST) + 1).map(IPv4Address)


def addresses(store: MemoryLeases | None = None) -> Addresses:
    return Addresses(Pool(FIRST, LAST), store or MemoryLeases(), lease_s=600, never=frozenset({SERVER}))


class Histories(RuleBasedStateMachine):
    """Any mixture of offers, bindings, releases and refusals, in any order and at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryLeases()
        self.addresses = addresses(self.store)
        self.now = 0.0
        self.bound: dict[str, tuple[str, float]] = {}  # address → MAC, until

    @rule(mac=macs, wanted=st.none() | pool_addresses)
    def an_offer_is_never_somebody_elses_address(self, mac: str, wanted: IPv4Address | None) -> None:
        offered = self.addresses.offer(mac, None, wanted, self.now)
        if offered is None:
            return
        assert FIRST <= offered <= LAST
        assert offered != SERVER
        owner, until = self.bound.get(str(offered), (mac, 0.0))
        assert owner == mac or until <= self.now

    @rule(mac=macs, address=pool_addresses)
    def a_machine_binds_what_it_may(self, mac: str, address: IPv4Address) -> None:
        if self.addresses.may_bind(mac, address, None, self.now):
            owner, until = self.bound.get(str(address), (mac, 0.0))
            assert owner == mac or until <= self.now
            self.addresses.bind(mac, address, self.now)
            self.bound = {one: held for one, held in self.bound.items() if held[0] != mac}
            self.bound[str(address)] = (mac, self.now + 600)

    @rule(mac=macs, address=pool_addresses)
    def only_the_owner_releases(self, mac: str, address: IPv4Address) -> None:
        is_owner = self.bound.get(str(address), ("", 0.0))[0] == mac
        assert self.addresses.release(mac, address) == is_owner
        if is_owner:
            del self.bound[str(address)]

    @rule(seconds=st.floats(0, 700))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def each_machine_holds_at_most_one_address(self) -> None:
        held = [lease.mac for text in self.bound if (lease := self.store.of_address(text)) and lease.mac]
        assert len(held) == len(set(held))


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30)


def test_a_machine_gets_its_own_lease_again() -> None:
    pool = addresses()
    first = pool.offer(A, None, None, 0)
    assert first is not None
    pool.bind(A, first, 0)
    assert pool.offer(A, None, None, 5000) == first


def test_a_reservation_comes_first_and_may_lie_outside_the_pool() -> None:
    pool, fixed = addresses(), Reservation(address="10.0.0.200")
    assert pool.offer(A, fixed, None, 0) == IPv4Address("10.0.0.200")
    assert pool.may_bind(A, IPv4Address("10.0.0.200"), fixed, 0)
    assert not pool.may_bind(B, IPv4Address("10.0.0.200"), None, 0)


def test_a_reservation_held_by_another_machine_gives_way_to_the_pool() -> None:
    pool = addresses()
    pool.bind(B, FIRST, 0)
    offered = pool.offer(A, Reservation(address=str(FIRST)), None, 0)
    assert offered not in (None, FIRST)


def test_a_pool_full_of_leases_offers_nothing() -> None:
    pool = addresses()
    for mac, address in zip((A, B, C), (FIRST, FIRST + 2, LAST), strict=True):
        pool.bind(mac, address, 0)
    assert pool.offer(D, None, None, 1) is None
    assert pool.offer(D, None, None, 601) is not None


def test_discoveries_that_never_come_back_starve_nobody() -> None:
    pool = addresses()
    for number in range(1000):
        assert pool.offer(f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}", None, None, 0) is not None
    mine = pool.offer(A, None, None, 0)
    assert mine is not None
    assert pool.may_bind(A, mine, None, 0)


def test_an_address_offered_to_one_is_not_offered_to_the_next_while_others_are_free() -> None:
    pool = addresses()
    offered = {pool.offer(mac, None, None, 0) for mac in (A, B, C)}
    assert len(offered) == 3


def test_an_offer_lapses() -> None:
    pool = addresses()
    first = pool.offer(A, None, FIRST, 0)
    assert pool.offer(B, None, first, OFFER_S + 1) == first


def test_a_declined_address_is_set_aside_and_comes_back() -> None:
    pool = addresses()
    address = pool.offer(A, None, FIRST, 0)
    assert address == FIRST
    assert pool.decline(A, FIRST, 0)
    assert not pool.may_bind(A, FIRST, None, 1)
    assert pool.may_bind(A, FIRST, None, 601)


def test_nobody_declines_what_is_not_his() -> None:
    pool = addresses()
    pool.bind(A, FIRST, 0)
    assert not any(pool.decline(B, FIRST + step, 0) for step in range(4))
    assert pool.may_bind(A, FIRST, None, 1)


def test_without_a_pool_only_reservations_are_served() -> None:
    alone = Addresses(None, MemoryLeases(), lease_s=600, never=frozenset())
    assert alone.offer(A, None, FIRST, 0) is None
    assert alone.offer(A, Reservation(address="10.0.0.77"), None, 0) == IPv4Address("10.0.0.77")


@pytest.mark.parametrize(("first", "last"), [(LAST, FIRST), (IPv4Address("10.0.0.0"), IPv4Address("10.9.0.0"))])
def test_a_pool_is_in_order_and_of_a_size_we_can_search(first: IPv4Address, last: IPv4Address) -> None:
    with pytest.raises(InvalidError, match="pool"):
        Pool(first, last)
