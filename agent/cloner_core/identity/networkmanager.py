"""Keyfiles of NetworkManager (nm-settings-keyfile(5)), one connection a link; the golden node's are removed."""

from __future__ import annotations

from blake3 import blake3

from cloner_core.identity.values import IdentityFile
from cloner_core.network import Addressing, NodeNetwork, Route, gateways, is_ipv6

_FOLDER = "/etc/NetworkManager/system-connections"
_BEFORE_DHCP = 50  # the default route that a wired link gets by itself has metric 100

REMOVALS = (
    f"{_FOLDER}/*",
    # read as connections too where the ifcfg-rh plugin lives; ifcfg-lo stays for the old network service
    "/etc/sysconfig/network-scripts/ifcfg-[!l]*",
)


def files(network: NodeNetwork, machine_id: str) -> list[IdentityFile]:
    """Return one keyfile a link; the UUID of each derives from `machine_id`, so no two nodes share one."""
    made = []
    for index, interface in enumerate(network.interfaces):
        own = {"type": "ethernet"}
        ethernet = {"mac-address": interface.mac.upper()} | _mtu(interface)
        made.append(_file(f"cloner-{index}", machine_id, own, {"ethernet": ethernet}, interface))
    for bond in network.bonds:
        own = {"type": "bond", "interface-name": bond.name}
        parts = {"bond": {"mode": bond.mode, "miimon": "100"}} | ({"ethernet": _mtu(bond)} if bond.mtu else {})
        made.append(_file(f"cloner-{bond.name}", machine_id, own, parts, bond))
        for number, mac in enumerate(bond.members):
            name = f"cloner-{bond.name}-{number}"
            member = {"type": "ethernet", "master": bond.name, "slave-type": "bond"}
            made.append(_file(name, machine_id, member, {"ethernet": {"mac-address": mac.upper()}}, None))
    parents = {interface.mac: f"cloner-{index}" for index, interface in enumerate(network.interfaces)}
    for vlan in network.vlans:
        own = {"type": "vlan", "interface-name": vlan.name}
        # an interface has no name we know: its connection stands for it
        parent = _uuid(machine_id, parents[vlan.parent]) if vlan.parent in parents else vlan.parent
        parts = {"vlan": {"id": str(vlan.id), "parent": parent}} | ({"ethernet": _mtu(vlan)} if vlan.mtu else {})
        made.append(_file(f"cloner-{vlan.name}", machine_id, own, parts, vlan))
    return made


def _file(
    name: str, machine_id: str, own: dict[str, str], parts: dict[str, dict[str, str]], link: Addressing | None
) -> IdentityFile:
    sections = {"connection": {"id": name, "uuid": _uuid(machine_id, name)} | own, **parts}
    if link is not None:
        sections |= {"ipv4": _ipv4(link), "ipv6": _ipv6(link)}
    lines = ["# Written by Cloner."]
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key}={value}" for key, value in values.items()), ""]
    # NetworkManager ignores connections that others than root can read
    return IdentityFile(f"{_FOLDER}/{name}.nmconnection", "\n".join(lines).encode(), mode=0o600)


def _ipv4(link: Addressing) -> dict[str, str]:
    has_static = any(not is_ipv6(address) for address in link.addresses)
    method = "auto" if link.dhcp else "manual" if has_static else "disabled"
    client = {"dhcp-client-id": "mac"} if link.dhcp else {}
    return {"method": method} | client | _family(link, method, wants_ipv6=False)


def _ipv6(link: Addressing) -> dict[str, str]:
    has_static = any(map(is_ipv6, link.addresses))
    method = "auto" if link.accept_ra else "manual" if has_static else "link-local"
    return {"method": method} | _family(link, method, wants_ipv6=True)


def _family(link: Addressing, method: str, *, wants_ipv6: bool) -> dict[str, str]:
    addresses = [address for address in link.addresses if is_ipv6(address) == wants_ipv6]
    values = {f"address{number}": address for number, address in enumerate(addresses, 1)}
    gateway = gateways(link)[wants_ipv6]
    routes = []
    if gateway and addresses:
        # outside of the addresses' networks as well: NetworkManager adds the route to it by itself
        values["gateway"] = gateway
    elif gateway:
        # "gateway cannot be set if there are no addresses configured": verify() of libnm's nm-setting-ip-config.c
        routes.append(Route("::/0" if wants_ipv6 else "0.0.0.0/0", gateway, _BEFORE_DHCP if method == "auto" else None))
    routes += [route for route in link.routes if is_ipv6(route.to) == wants_ipv6]
    for number, route in enumerate(routes, 1):
        values[f"route{number}"] = ",".join(
            (route.to, route.via, *([] if route.metric is None else [str(route.metric)]))
        )
    if method in ("disabled", "link-local"):
        return values  # no name servers, no search domains: verify() of libnm's nm-setting-ip[46]-config.c
    dns = [address for address in link.dns if is_ipv6(address) == wants_ipv6]
    values |= {"dns": "".join(f"{address};" for address in dns)} if dns else {}
    values |= {"dns-search": "".join(f"{domain};" for domain in link.domains)} if link.domains else {}
    return values


def _mtu(link: Addressing) -> dict[str, str]:
    return {} if link.mtu is None else {"mtu": str(link.mtu)}


def _uuid(machine_id: str, name: str) -> str:
    digits = blake3(f"{machine_id} {name}".encode(), derive_key_context="cloner 2026 connections").hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"
