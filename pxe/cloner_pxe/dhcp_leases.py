"""Which address belongs to which machine: leases, their store, and the choice of a free address.

Pure: time is an argument. The store is a seam; the server keeps leases in its database, tests in memory.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

import msgspec

from cloner_core.errors import InvalidError

OFFER_S = 60.0
DECLINED_S = 600.0
LARGEST_POOL = 1 << 16


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """An address given to a machine until a moment."""

    address: str
    mac: str  # "" when the address was declined: somebody uses it whom we do not know
    expires_at: float  # seconds, on the clock of the caller


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """The fixed address of a node; best outside the pool."""

    address: str
    hostname: str = ""  # "" sends no option 12


class LeaseStore(Protocol):
    """Where leases are kept. At most one lease per address and per machine."""

    def of_mac(self, mac: str) -> Lease | None: ...

    def of_address(self, address: str) -> Lease | None: ...

    def put(self, lease: Lease) -> None:
        """Keep `lease`, replacing any other of its address and of its machine; durable when it returns."""
        ...

    def drop(self, address: str) -> None: ...


class MemoryLeases:
    """A LeaseStore that forgets; for tests and for networks where a restart may renumber."""

    def __init__(self) -> None:
        self._by_address: dict[str, Lease] = {}
        self._address_of: dict[str, str] = {}

    def of_mac(self, mac: str) -> Lease | None:
        return self.of_address(self._address_of.get(mac, ""))

    def of_address(self, address: str) -> Lease | None:
        return self._by_address.get(address)

    def put(self, lease: Lease) -> None:
        self.drop(lease.address)
        if lease.mac:
            self.drop(self._address_of.get(lease.mac, ""))
            self._address_of[lease.mac] = lease.address
        self._by_address[lease.address] = lease

    def drop(self, address: str) -> None:
        lease = self._by_address.pop(address, None)
        if lease is not None:
            self._address_of.pop(lease.mac, None)


@dataclass(frozen=True, slots=True)
class Pool:
    """The addresses given to machines without a reservation; both ends belong to it."""

    first: IPv4Address
    last: IPv4Address

    def __post_init__(self) -> None:
        if not 0 <= int(self.last) - int(self.first) < LARGEST_POOL:
            raise InvalidError(f"pool {self.first}–{self.last}: wanted 1 to {LARGEST_POOL} addresses in rising order")

    def __contains__(self, address: object) -> bool:
        return isinstance(address, IPv4Address) and self.first <= address <= self.last

    @property
    def size(self) -> int:
        return int(self.last) - int(self.first) + 1


class Addresses:
    """Chooses and binds addresses. Offers live here only and bind nobody; what was acknowledged is in the store."""

    def __init__(self, pool: Pool | None, store: LeaseStore, *, lease_s: float, never: frozenset[IPv4Address]) -> None:
        self._pool = pool
        self._store = store
        self._lease_s = lease_s
        self._never = never  # the server's own address and the router's
        self._offers: dict[str, tuple[str, float]] = {}  # address → (MAC, until); oldest first

    def offer(
        self, mac: str, reservation: Reservation | None, wanted: IPv4Address | None, now: float
    ) -> IPv4Address | None:
        """Return the address to offer; None when there is no pool or bound leases exhaust it.

        In this order: the reservation, the lease held, the address wanted, a free one, one offered to somebody else
        who has not come back. The last rule keeps a flood of discoveries from starving real machines.
        """
        held = self._store.of_mac(mac)
        candidates = [IPv4Address(reservation.address)] if reservation else []
        if held is not None:
            candidates.append(IPv4Address(held.address))
        if wanted is not None:
            candidates.append(wanted)
        for address in candidates:
            if self.may_bind(mac, address, reservation, now) and self._is_unoffered(mac, address, now):
                return self._note(mac, address, now)
        return self._free(mac, now)

    def may_bind(self, mac: str, address: IPv4Address, reservation: Reservation | None, now: float) -> bool:
        """Whether `mac` may have `address`: its reservation or in the pool, and nobody else's."""
        is_reserved = reservation is not None and address == IPv4Address(reservation.address)
        if address in self._never or not (is_reserved or self._is_in_pool(address)):
            return False
        lease = self._store.of_address(str(address))
        return lease is None or lease.mac == mac or lease.expires_at <= now

    def bind(self, mac: str, address: IPv4Address, now: float) -> None:
        self._offers.pop(str(address), None)
        self._store.put(Lease(address=str(address), mac=mac, expires_at=now + self._lease_s))

    def release(self, mac: str, address: IPv4Address) -> bool:
        """Free `address` if it is bound to `mac`; whether it was."""
        lease = self._store.of_address(str(address))
        if lease is None or lease.mac != mac:
            return False
        self._store.drop(str(address))
        return True

    def decline(self, mac: str, address: IPv4Address, now: float) -> bool:
        """Set `address` aside if it was given or offered to `mac`; whether it was.

        Only its own address can a machine decline, or one packet per address would empty the pool.
        """
        offered = self._offers.get(str(address), ("", 0.0))[0] == mac
        lease = self._store.of_address(str(address))
        if not offered and (lease is None or lease.mac != mac):
            return False
        self._offers.pop(str(address), None)
        self._store.put(Lease(address=str(address), mac="", expires_at=now + DECLINED_S))
        return True

    def forget_offer(self, mac: str) -> None:
        """The machine took another server's offer."""
        for address in [one for one, (owner, _) in self._offers.items() if owner == mac]:
            del self._offers[address]

    def _free(self, mac: str, now: float) -> IPv4Address | None:
        if self._pool is None:
            return None
        # Start where the MAC says, so that a machine tends to get its old address even when its lease is forgotten.
        start = zlib.crc32(mac.encode()) % self._pool.size
        for step in range(self._pool.size):
            address = self._pool.first + (start + step) % self._pool.size
            if self._is_unoffered(mac, address, now) and self.may_bind(mac, address, None, now):
                return self._note(mac, address, now)
        for text in list(self._offers):
            if self.may_bind(mac, IPv4Address(text), None, now):
                return self._note(mac, IPv4Address(text), now)
        return None

    def _is_in_pool(self, address: IPv4Address) -> bool:
        return self._pool is not None and address in self._pool

    def _is_unoffered(self, mac: str, address: IPv4Address, now: float) -> bool:
        owner, until = self._offers.get(str(address), (mac, 0.0))
        return owner == mac or until <= now

    def _note(self, mac: str, address: IPv4Address, now: float) -> IPv4Address:
        self._offers.pop(str(address), None)
        self._offers[str(address)] = (mac, now + OFFER_S)
        return address
