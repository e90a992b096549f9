"""The network of a node: every fault is told at once, and what is sound passes."""

from __future__ import annotations

import msgspec
import pytest

from agentbench.networks import MACS, NETWORK
from cloner_core.network import Bond, Interface, NodeNetwork, Route, Vlan, gateways, is_beyond, network_faults

WHOLE = msgspec.structs.replace(NETWORK, hostname="node01.example.org")


def test_a_network_with_everything_has_no_fault_and_survives_its_encoding() -> None:
    assert network_faults(WHOLE) == []
    assert msgspec.json.decode(msgspec.json.encode(WHOLE), type=NodeNetwork) == WHOLE


def test_a_document_of_the_first_release_means_what_it_meant() -> None:
    old = b'{"hostname":"n","interfaces":[{"mac":"52:54:00:00:00:01","dhcp":true,"addresses":[],"gateway":""}]}'
    assert msgspec.json.decode(old, type=NodeNetwork) == NodeNetwork("n", (Interface(MACS[0]),))


@pytest.mark.parametrize(
    ("network", "fault"),
    [
        pytest.param(NodeNetwork("n", (Interface(MACS[0]), Interface(MACS[0]))), "MAC address", id="mac twice"),
        pytest.param(
            NodeNetwork("n", (Interface(MACS[0]),), (Bond("bond0", MACS[:2]),)), "MAC address", id="member is interface"
        ),
        pytest.param(NodeNetwork("n", bonds=(Bond("bond0", ()),)), "members", id="empty bond"),
        pytest.param(NodeNetwork("n", bonds=(Bond("cloner0", MACS[:1]),)), "name", id="reserved name"),
        pytest.param(NodeNetwork("n", bonds=(Bond("b\n[x]", MACS[:1]),)), "name", id="hostile name"),
        pytest.param(NodeNetwork("n", (Interface(MACS[0]),), (), (Vlan("v", 0, MACS[0]),)), "VLAN id", id="vlan 0"),
        pytest.param(NodeNetwork("n", (Interface(MACS[0]),), (), (Vlan("v", 7, "eth0"),)), "parent", id="no parent"),
        pytest.param(
            NodeNetwork("n", (Interface(MACS[0]),), (), (Vlan("v", 7, MACS[0]), Vlan("w", 7, MACS[0]))),
            "the VLAN",
            id="vlan twice",
        ),
        pytest.param(NodeNetwork("n", bonds=(Bond("bond0", MACS[:1], dhcp=False),)), "neither", id="bare bond"),
    ],
)
def test_what_cannot_be_brought_up_is_a_fault(network: NodeNetwork, fault: str) -> None:
    assert [found for found in network_faults(network) if fault in found]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"dhcp": False, "addresses": ("10.1.0.11/24",), "gateway": "10.2.0.1"}, "the clone could not reach it"),
        ({"gateway6": "10.1.0.1"}, "gateway6"),
        ({"gateway": "2001:db8::1", "gateway6": "2001:db8::1"}, "gateway6"),
        ({"routes": (Route("10.9.0.1/16", "10.1.0.1"),)}, "host bits"),
        ({"routes": (Route("10.9.0.0/16", "2001:db8::1"),)}, "families"),
        ({"routes": (Route("10.9.0.0/16", "10.1.0.1", -1),)}, "metric"),
        ({"mtu": 10}, "mtu"),
        ({"dns": ("fe80::1%eth0",)}, "dns"),
        ({"dhcp": False, "addresses": ("2001:db8::b/64",), "dns": ("10.1.0.2",)}, "dns: '10.1.0.2' is IPv4"),
        ({"accept_ra": False, "dns": ("2001:db8::2",)}, "dns: '2001:db8::2' is IPv6"),
        ({"accept_ra": False, "routes": (Route("2001:db8:9::/48", "2001:db8::2"),)}, "routes[0].via"),
        ({"dhcp": False, "addresses": ("2001:db8::b/64",), "gateway": "169.254.0.1"}, "gateway: '169.254.0.1' is IPv4"),
        ({"addresses": ("10.0.0.1/24\nGateway=1",)}, "ADDRESS/PREFIX"),
    ],
)
def test_what_cannot_be_reached_is_a_fault(fields: dict[str, object], fault: str) -> None:
    link = msgspec.structs.replace(Interface(MACS[0]), **fields)
    assert [found for found in network_faults(NodeNetwork("n", (link,))) if fault in found]


def test_a_gateway_beyond_a_prefix_of_one_host_is_meant() -> None:
    link = Interface(MACS[0], dhcp=False, addresses=("10.1.0.11/32",), gateway="10.2.0.1")
    assert network_faults(NodeNetwork("n", (link,))) == []


def test_either_family_may_have_the_gateway() -> None:
    assert gateways(Interface(MACS[0], gateway="2001:db8::1")) == ("", "2001:db8::1")
    assert gateways(Interface(MACS[0], gateway="10.0.0.1", gateway6="2001:db8::1")) == ("10.0.0.1", "2001:db8::1")


def faults(*addresses: str, gateway: str, dhcp: bool = False) -> list[str]:
    return network_faults(NodeNetwork("n01", (Interface(MACS[0], dhcp=dhcp, addresses=addresses, gateway=gateway),)))


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


def test_a_carrier_without_addresses_has_no_gateway() -> None:
    carrier = Interface(MACS[0], dhcp=False, gateway="10.1.0.1")
    (fault,) = network_faults(NodeNetwork("n", (carrier,), (), (Vlan("lab", 8, MACS[0]),)))
    assert "interfaces[0].gateway: '10.1.0.1' is IPv4" in fault


@pytest.mark.parametrize(
    ("addresses", "gateway", "wanted"),
    [
        (("10.77.0.11/24",), "10.77.0.1", False),
        (("10.77.0.11/32",), "10.78.0.1", True),
        (("10.77.0.11/24",), "169.254.0.1", True),
        (("169.254.7.7/16",), "169.254.0.1", False),
        (("2001:db8::b/128",), "2001:db8:1::1", True),
        (("2001:db8::b/128",), "fe80::1", False),
    ],
)
def test_a_gateway_is_beyond_the_networks_of_a_static_link_or_within(
    addresses: tuple[str, ...], gateway: str, wanted: bool
) -> None:
    assert faults(*addresses, gateway=gateway) == []
    assert is_beyond(Interface(MACS[0], dhcp=False, addresses=addresses, gateway=gateway), gateway) == wanted
    assert not is_beyond(Interface(MACS[0], addresses=addresses, gateway=gateway), gateway)
