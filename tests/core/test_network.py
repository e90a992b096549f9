"""A network is judged before a clone has to live with it."""

from __future__ import annotations

import pytest

from cloner_core.network import Interface, NodeNetwork, network_faults

MAC = "52:54:00:00:00:01"


def faults(*addresses: str, gateway: str, dhcp: bool = False) -> list[str]:
    return network_faults(NodeNetwork("n01", (Interface(MAC, dhcp=dhcp, addresses=addresses, gateway=gateway),)))


@pytest.mark.parametrize(
    ("addresses", "gateway"),
    [
        (("10.77.0.11/24",), "10.77.0.1"),
        (("10.77.0.11/24", "fd00::11/64"), "fd00::1"),
        (("fd00::11/64",), "fe80::1"),
        (("10.77.0.11/24",), ""),
    ],
)
def test_a_gateway_that_can_be_reached_is_taken(addresses: tuple[str, ...], gateway: str) -> None:
    assert faults(*addresses, gateway=gateway) == []


def test_a_gateway_out_of_reach_is_refused() -> None:
    (fault,) = faults("10.77.0.11/24", gateway="10.78.0.1")
    assert "interfaces[0].gateway" in fault
    assert "10.77.0.0/24" in fault
    assert faults("10.77.0.11/24", gateway="10.78.0.1", dhcp=True) == []
