"""A network with one of everything a node may have."""

from __future__ import annotations

from cloner_core.network import Bond, Interface, NodeNetwork, Route, Vlan

MACS = tuple(f"52:54:00:00:00:0{n}" for n in range(1, 5))
NETWORK = NodeNetwork(
    hostname="node01",
    interfaces=(
        Interface(
            MACS[0],
            dhcp=False,
            addresses=("10.1.0.11/24", "10.1.0.12/24", "2001:db8::b/64"),
            gateway="10.1.0.1",
            gateway6="2001:db8::1",
            dns=("10.1.0.2", "2001:db8::2"),
            domains=("example.org",),
            routes=(Route("10.9.0.0/16", "10.1.0.254", 50), Route("2001:db8:9::/48", "2001:db8::254")),
            mtu=9000,
            accept_ra=False,
        ),
        Interface(MACS[1]),
    ),
    bonds=(Bond("bond0", MACS[2:], mode="802.3ad", dhcp=False),),
    vlans=(Vlan("storage", 7, "bond0", dhcp=False, addresses=("10.7.0.11/24",)), Vlan("lab", 8, MACS[0])),
)
