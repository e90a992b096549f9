"""DHCP leases in the database, as `cloner_pxe` wants them kept: durable before the machine hears of its address."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from cloner_pxe.dhcp_leases import Lease
from cloner_server.state.database import Database
from cloner_server.state.tables import leases


def mac_of(connection: Connection, address: str) -> str:
    """Return the machine an address was given to; "" for none of ours."""
    found = connection.execute(select(leases.c.mac).where(leases.c.address == address)).scalar_one_or_none()
    return str(found or "")


def address_of(connection: Connection, mac: str) -> str:
    """Return the address a machine was given last; "" for none."""
    found = connection.execute(select(leases.c.address).where(leases.c.mac == mac)).scalar_one_or_none()
    return str(found or "")


@dataclass(frozen=True, slots=True)
class SqlLeases:
    """Implements `cloner_pxe.dhcp_leases.LeaseStore`."""

    database: Database

    def of_mac(self, mac: str) -> Lease | None:
        """Return the lease of a machine."""
        return self._one(leases.c.mac == mac) if mac else None

    def of_address(self, address: str) -> Lease | None:
        """Return the lease of an address."""
        return self._one(leases.c.address == address)

    def put(self, lease: Lease) -> None:
        """Keep `lease` in place of any other of its address and of its machine."""
        with self.database.write() as connection:
            same = leases.c.address == lease.address
            if lease.mac:
                same = same | (leases.c.mac == lease.mac)
            connection.execute(delete(leases).where(same))
            values = {"address": lease.address, "mac": lease.mac, "expires_s": lease.expires_at}
            connection.execute(insert(leases).values(values))

    def drop(self, address: str) -> None:
        """Forget the lease of an address."""
        with self.database.write() as connection:
            connection.execute(delete(leases).where(leases.c.address == address))

    def _one(self, where: ColumnElement[bool]) -> Lease | None:
        with self.database.read() as connection:
            row = connection.execute(select(leases).where(where)).one_or_none()
        return None if row is None else Lease(address=row.address, mac=row.mac, expires_at=row.expires_s)
