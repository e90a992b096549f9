"""Other DHCP servers are looked for while ours runs, and who cannot look says so."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network

import pytest

from cloner_core.errors import RefusedError
from cloner_pxe import dhcp_service
from cloner_pxe.dhcp import DhcpConfig, DhcpServer
from cloner_pxe.dhcp_leases import MemoryLeases
from cloner_pxe.dhcp_probe import OtherServer
from cloner_pxe.dhcp_service import DhcpService
from cloner_pxe.events import EventKind, NetbootEvent

SERVER = DhcpConfig(server_address=IPv4Address("10.0.0.1"), network=IPv4Network("10.0.0.0/24"), pool=None)
OTHER = OtherServer(address="10.0.0.9", gives_addresses=True)


class Nobody:
    """Knows no machine."""

    async def lookup(self, *_: object, **__: object) -> None:
        return None


def test_a_server_that_cannot_look_says_so_once_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[OtherServer, ...] | None] = [None, None, (), (OTHER,), None]
    told: list[NetbootEvent] = []

    async def find(interface: str, mac: str) -> tuple[OtherServer, ...]:
        if not seen:
            raise asyncio.CancelledError
        found = seen.pop(0)
        if found is None:
            raise RefusedError(f"cannot ask {interface} for other DHCP servers: the port is taken")
        return found

    monkeypatch.setattr(dhcp_service, "WATCH_S", 0)
    monkeypatch.setattr(dhcp_service, "find_other_servers", find)
    service = DhcpService("eth1", DhcpServer(SERVER, MemoryLeases()), Nobody(), told.append)  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(service._watch())
    blind = "another DHCP server would go unseen: cannot ask eth1 for other DHCP servers: the port is taken"
    assert [one.text for one in told] == [blind, "another DHCP server, 10.0.0.9, gives addresses on eth1", blind]
    assert {one.kind for one in told} == {EventKind.OTHER_DHCP}
