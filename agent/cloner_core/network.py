"""The network of a node as the site wants it: the non-secret half of an identity.

Written for the clone by `cloner_core.identity`; checked here, once, at the edge.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Interface(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One interface of a node, told by its MAC and never by a name the kernel gave."""

    mac: str  # lower case, colons
    dhcp: bool = True
    addresses: tuple[str, ...] = ()  # "10.1.0.11/24" or an IPv6 prefix
    gateway: str = ""
    dns: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


class NodeNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Host name and interfaces of one node."""

    hostname: str  # short name or FQDN, RFC 1123
    interfaces: tuple[Interface, ...] = ()


def network_faults(network: NodeNetwork) -> list[str]:
    """Return every fault of `network` as "path: what is wrong"; an empty list when it can be used."""
    faults = []
    name = network.hostname
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(part) for part in name.split(".")):
        faults.append(
            f"hostname: '{name}' is not a host name (RFC 1123: lower-case letters, digits, hyphens, 1–63 a label)"
        )
    for index, interface in enumerate(network.interfaces):
        where = f"interfaces[{index}]"
        if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", interface.mac):
            faults.append(f"{where}.mac: '{interface.mac}' is not a MAC address in lower case with colons")
        for address in interface.addresses:
            if "/" not in address or not _parses(ipaddress.ip_interface, address):
                faults.append(f"{where}.addresses: '{address}' is not ADDRESS/PREFIX")
        for field in ("gateway", "dns"):
            value = getattr(interface, field)
            for address in (value,) if isinstance(value, str) else value:
                if address and not _parses(ipaddress.ip_address, address):
                    faults.append(f"{where}.{field}: '{address}' is not an IP address")
        if not interface.dhcp and (reason := _gateway_fault(interface)):
            faults.append(f"{where}.gateway: {reason}")
        faults += [
            f"{where}.domains: '{d}' is not a domain"
            for d in interface.domains
            if not all(map(_LABEL.fullmatch, d.split(".")))
        ]
        if not interface.dhcp and not interface.addresses:
            faults.append(f"{where}: neither dhcp nor addresses; the node would come up without a network")
    return faults


def _gateway_fault(interface: Interface) -> str:
    """Return why networkd could not use the gateway of a static interface; "" when it can, or cannot be told."""
    try:
        gateway = ipaddress.ip_address(interface.gateway)
        networks = [ipaddress.ip_interface(address).network for address in interface.addresses]
    except ValueError:
        return ""
    if not networks or gateway.is_link_local or any(gateway in network for network in networks):
        return ""
    return f"'{gateway}' is not in {', '.join(map(str, networks))}; the clone could not reach it"


def _parses(parser: object, text: str) -> bool:
    try:
        parser(text)  # type: ignore[operator]
    except ValueError:
        return False
    return True
