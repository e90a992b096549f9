"""One netplan document (netplan-yaml), replacing the golden node's; JSON, which is YAML as well."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cloner_core.identity.values import IdentityFile
from cloner_core.network import Addressing, NodeNetwork, gateways, is_beyond

_PATH = "/etc/netplan/90-cloner.yaml"
REMOVALS = ("/etc/netplan/*.yaml",)


def files(network: NodeNetwork, renderer: Literal["networkd", "NetworkManager"]) -> list[IdentityFile]:
    """Return the document; netplan warns about one that others than root can read."""
    ids: dict[str, str] = {}
    ethernets: dict[str, Any] = {}
    for interface in network.interfaces:
        ids[interface.mac] = f"cloner{len(ids)}"
        ethernets[ids[interface.mac]] = {"match": {"macaddress": interface.mac}} | _addressing(interface)
    for mac in (mac for bond in network.bonds for mac in bond.members):
        ids[mac] = f"cloner{len(ids)}"
        ethernets[ids[mac]] = {"match": {"macaddress": mac}}
    bonds = {
        bond.name: {
            "interfaces": [ids[mac] for mac in bond.members],
            "parameters": {"mode": bond.mode, "mii-monitor-interval": 100},
        }
        | _addressing(bond)
        for bond in network.bonds
    }
    vlans = {
        vlan.name: {"id": vlan.id, "link": ids.get(vlan.parent, vlan.parent)} | _addressing(vlan)
        for vlan in network.vlans
    }
    kinds = {"ethernets": ethernets, "bonds": bonds, "vlans": vlans}
    document = {"version": 2, "renderer": renderer} | {kind: links for kind, links in kinds.items() if links}
    content = msgspec.json.format(msgspec.json.encode({"network": document}), indent=2)
    return [IdentityFile(_PATH, b"# Written by Cloner.\n" + content + b"\n", mode=0o600)]


def _addressing(link: Addressing) -> dict[str, Any]:
    values: dict[str, Any] = {"dhcp4": link.dhcp, "dhcp6": link.dhcp}
    if link.dhcp:
        values["dhcp-identifier"] = "mac"
    if link.addresses:
        values["addresses"] = list(link.addresses)
    servers = {"addresses": list(link.dns), "search": list(link.domains)}
    if any(servers.values()):
        values["nameservers"] = {key: found for key, found in servers.items() if found}
    routes: list[dict[str, Any]] = []
    for to, via in zip(("0.0.0.0/0", "::/0"), gateways(link), strict=True):
        if via:
            routes.append({"to": to, "via": via} | ({"on-link": True} if is_beyond(link, via) else {}))
    for route in link.routes:
        metric = {} if route.metric is None else {"metric": route.metric}
        routes.append({"to": route.to, "via": route.via} | metric)
    if routes:
        values["routes"] = routes
    if link.mtu is not None:
        values["mtu"] = link.mtu
    if not link.accept_ra:
        values["accept-ra"] = False
    return values
