"""The network of a node as the site wants it: the non-secret half of an identity.

Written for the clone by `cloner_core.identity`; checked here, once, at the edge.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import msgspec

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DEVICE = re.compile(r"[a-z][a-z0-9._-]{0,14}")  # IFNAMSIZ is 16 with the NUL
_RESERVED = "cloner"  # ifupdown's links are named cloner0, cloner1, …
_MTU = range(68, 65536)  # RFC 791; the field of the IP header
_VLAN_IDS = range(1, 4095)  # IEEE 802.1Q: 0 and 4095 are taken
_METRICS = range(1 << 32)


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One route beside the default ones."""

    to: str  # "10.0.0.0/8"
    via: str
    metric: int | None = None  # None: the system's default


class Addressing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one link gets its addresses."""

    dhcp: bool = True
    addresses: tuple[str, ...] = ()  # "10.1.0.11/24" or an IPv6 prefix
    gateway: str = ""  # of either family
    gateway6: str = ""  # IPv6, when `gateway` is IPv4
    dns: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    mtu: int | None = None  # None: the driver's
    accept_ra: bool = True  # IPv6 router advertisements


class Interface(Addressing, frozen=True, forbid_unknown_fields=True):
    """One interface of a node, told by its MAC and never by a name the kernel gave."""

    mac: str  # lower case, colons


BondMode = Literal["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"]


class Bond(Addressing, frozen=True, forbid_unknown_fields=True):
    """Several interfaces as one; they are named here alone and not among the interfaces."""

    name: str
    members: tuple[str, ...]  # MACs
    mode: BondMode = "active-backup"


class Vlan(Addressing, frozen=True, forbid_unknown_fields=True):
    """One tagged network on an interface or a bond."""

    name: str
    id: int
    parent: str  # MAC of an interface, or name of a bond


class NodeNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Host name and links of one node."""

    hostname: str  # short name or FQDN, RFC 1123
    interfaces: tuple[Interface, ...] = ()
    bonds: tuple[Bond, ...] = ()
    vlans: tuple[Vlan, ...] = ()

    def vlans_on(self, parent: str) -> tuple[Vlan, ...]:
        """Return the VLANs that ride on the interface (by MAC) or bond (by name) `parent`."""
        return tuple(vlan for vlan in self.vlans if vlan.parent == parent)


def network_faults(network: NodeNetwork) -> list[str]:
    """Return every fault of `network` as "path: what is wrong"; an empty list when it can be used."""
    return [*_hostname_faults(network.hostname), *_link_faults(network), *_shared_faults(network)]


def is_ipv6(text: str) -> bool:
    """Return whether an address, with or without its prefix length, is of IPv6; it was checked before."""
    return ":" in text


def gateways(link: Addressing) -> tuple[str, str]:
    """Return the default gateways of IPv4 and of IPv6; "" where there is none."""
    return ("", link.gateway6 or link.gateway) if is_ipv6(link.gateway) else (link.gateway, link.gateway6)


def is_beyond(link: Addressing, gateway: str) -> bool:
    """Return whether `gateway` lies on no network of a static link; then its route must be said to be on the link.

    Never of a link that asks DHCP, whose networks are not known here, nor of fe80::/10, which is on every link.
    """
    known = ipaddress.ip_address(gateway)
    is_on_any = known.version == 6 and known.is_link_local
    return not link.dhcp and not is_on_any and not any(known in net for net in _nets(link))


def _nets(link: Addressing) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_interface(address).network for address in link.addresses]


def _hostname_faults(name: str) -> Iterator[str]:
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(part) for part in name.split(".")):
        yield f"hostname: '{name}' is not a host name (RFC 1123: lower-case letters, digits, hyphens, 1–63 a label)"


def _link_faults(network: NodeNetwork) -> Iterator[str]:
    for index, interface in enumerate(network.interfaces):
        where = f"interfaces[{index}]"
        yield from _mac_faults(f"{where}.mac", interface.mac)
        yield from _addressing_faults(where, interface, is_carrier=bool(network.vlans_on(interface.mac)))
    for index, bond in enumerate(network.bonds):
        where = f"bonds[{index}]"
        yield from _name_faults(f"{where}.name", bond.name)
        if not bond.members:
            yield f"{where}.members: a bond needs at least one MAC address"
        for mac in bond.members:
            yield from _mac_faults(f"{where}.members", mac)
        yield from _addressing_faults(where, bond, is_carrier=bool(network.vlans_on(bond.name)))
    parents = {interface.mac for interface in network.interfaces} | {bond.name for bond in network.bonds}
    for index, vlan in enumerate(network.vlans):
        where = f"vlans[{index}]"
        yield from _name_faults(f"{where}.name", vlan.name)
        if vlan.id not in _VLAN_IDS:
            yield f"{where}.id: {vlan.id} is not a VLAN id (1–4094)"
        if vlan.parent not in parents:
            yield f"{where}.parent: '{vlan.parent}' is neither the MAC of an interface nor the name of a bond"
        yield from _addressing_faults(where, vlan, is_carrier=False)


def _shared_faults(network: NodeNetwork) -> Iterator[str]:
    """Give what two links both claim."""
    members = [mac for bond in network.bonds for mac in bond.members]
    links: tuple[Addressing, ...] = (*network.interfaces, *network.bonds, *network.vlans)
    claimed = {
        "the MAC address": [*(interface.mac for interface in network.interfaces), *members],
        "the name": [*(bond.name for bond in network.bonds), *(vlan.name for vlan in network.vlans)],
        "the address": [address.partition("/")[0] for link in links for address in link.addresses],
        "the VLAN": [f"{vlan.id} on {vlan.parent}" for vlan in network.vlans],
    }
    for what, values in claimed.items():
        yield from (f"network: {what} {value} is given {n} times" for value, n in Counter(values).items() if n > 1)


def _addressing_faults(where: str, link: Addressing, *, is_carrier: bool) -> Iterator[str]:
    for address in link.addresses:
        if "/" not in address or not _parses(ipaddress.ip_interface, address):
            yield f"{where}.addresses: '{address}' is not ADDRESS/PREFIX"
    for field in ("gateway", "gateway6", "dns"):
        value = getattr(link, field)
        for address in (value,) if isinstance(value, str) else value:
            if address and not _parses(ipaddress.ip_address, address):
                yield f"{where}.{field}: '{address}' is not an IP address"
    if link.gateway6 and (not is_ipv6(link.gateway6) or is_ipv6(link.gateway)):
        yield f"{where}.gateway6: '{link.gateway6}' must be IPv6, and the gateway beside it IPv4"
    if link.dhcp or link.addresses or is_carrier:
        yield from _unreachable(where, link)
    else:
        yield f"{where}: neither dhcp nor addresses; the node would come up without a network"
    for domain in link.domains:
        if not all(map(_LABEL.fullmatch, domain.split("."))):
            yield f"{where}.domains: '{domain}' is not a domain"
    for index, route in enumerate(link.routes):
        yield from _route_faults(f"{where}.routes[{index}]", route)
    if link.mtu is not None and link.mtu not in _MTU:
        yield f"{where}.mtu: {link.mtu} is not from 68 to 65535"


def _unreachable(where: str, link: Addressing) -> Iterator[str]:
    """Give what the link has no address to speak to with, and gateways on none of its networks.

    The first NetworkManager refuses with the whole connection, the second the kernel at each boot.
    """
    try:
        nets = _nets(link)
        found = [("gateway", gateway) for gateway in gateways(link) if gateway]
        found += [("dns", server) for server in link.dns]
        found += [(f"routes[{index}].via", route.via) for index, route in enumerate(link.routes)]
        told = [(field, ipaddress.ip_address(address)) for field, address in found]
    except ValueError:
        return  # told by its own fault
    for field, address in told:
        if address.version == 6 and address.is_link_local and field != "dns":
            continue  # every link has such an address itself
        same = [net for net in nets if net.version == address.version]
        if not same and not (link.accept_ra if address.version == 6 else link.dhcp):
            yield f"{where}.{field}: '{address}' is IPv{address.version}, and the link gets no such address itself"
            continue
        # a prefix of one host has its gateway outside by design, and 169.254.0.0/16 is on any link
        is_meant = address.is_link_local or any(net.num_addresses == 1 or address in net for net in same)
        if field == "gateway" and not link.dhcp and not is_meant:
            shown = ", ".join(map(str, nets))
            yield f"{where}.gateway: '{address}' is not in {shown}; the clone could not reach it"


def _route_faults(where: str, route: Route) -> Iterator[str]:
    if "/" not in route.to or not _parses(ipaddress.ip_network, route.to):
        yield f"{where}.to: '{route.to}' is not NETWORK/PREFIX (no host bits set)"
    if not _parses(ipaddress.ip_address, route.via):
        yield f"{where}.via: '{route.via}' is not an IP address"
    elif is_ipv6(route.to) != is_ipv6(route.via):
        yield f"{where}: '{route.to}' and '{route.via}' are of different families"
    if route.metric is not None and route.metric not in _METRICS:
        yield f"{where}.metric: {route.metric} is not from 0 to 4294967295"


def _mac_faults(where: str, mac: str) -> Iterator[str]:
    if not _MAC.fullmatch(mac):
        yield f"{where}: '{mac}' is not a MAC address in lower case with colons"


def _name_faults(where: str, name: str) -> Iterator[str]:
    if not _DEVICE.fullmatch(name) or name.startswith(_RESERVED):
        yield f"{where}: '{name}' cannot name a link (a letter, then letters, digits, . _ -; 15 at most; not cloner…)"


def _parses(parser: object, text: str) -> bool:
    try:
        parser(text)  # type: ignore[operator]
    except ValueError:
        return False
    return "%" not in text  # a scope id is of this machine alone
