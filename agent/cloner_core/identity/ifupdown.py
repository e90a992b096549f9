"""/etc/network/interfaces of ifupdown (interfaces(5)), replacing the golden node's.

ifupdown knows links by name, so each interface gets one by its MAC from udev (systemd.link(5)): cloner0, cloner1, …
Bonds want the package ifenslave in the image.
"""

from __future__ import annotations

from cloner_core.identity.values import IdentityFile
from cloner_core.network import Addressing, NodeNetwork, gateways, is_ipv6

_LINKS = "/etc/systemd/network"
REMOVALS = ("/etc/network/interfaces.d/*",)


def files(network: NodeNetwork, *, has_resolvconf: bool) -> list[IdentityFile]:
    """Return the links' names, the interfaces, and resolv.conf where nothing in the image would write it."""
    names: dict[str, str] = {}
    for mac in (*(i.mac for i in network.interfaces), *(mac for bond in network.bonds for mac in bond.members)):
        names[mac] = f"cloner{len(names)}"
    made = [IdentityFile(f"{_LINKS}/05-cloner-{name}.link", _rename(mac, name)) for mac, name in names.items()]
    made.append(IdentityFile("/etc/network/interfaces", _interfaces(network, names)))
    links: tuple[Addressing, ...] = (*network.interfaces, *network.bonds, *network.vlans)
    servers = [server for link in links for server in link.dns]
    # a DHCP client writes resolv.conf by itself
    if servers and not has_resolvconf and not any(link.dhcp for link in links):
        domains = [domain for link in links for domain in link.domains]
        lines = [f"search {' '.join(dict.fromkeys(domains))}"] if domains else []
        lines += [f"nameserver {server}" for server in dict.fromkeys(servers)]
        made.append(IdentityFile("/etc/resolv.conf", ("\n".join(("# Written by Cloner.", *lines)) + "\n").encode()))
    return made


def _rename(mac: str, name: str) -> bytes:
    # Type=ether: a VLAN on this interface has the same MAC and must keep its own name
    return f"# Written by Cloner.\n[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\nName={name}\n".encode()


def _interfaces(network: NodeNetwork, names: dict[str, str]) -> bytes:
    lines = ["# Written by Cloner.", "auto lo", "iface lo inet loopback"]
    for interface in network.interfaces:
        lines += _stanzas(names[interface.mac], interface, [])
    for bond in network.bonds:
        members = " ".join(names[mac] for mac in bond.members)
        options = [f"bond-slaves {members}", f"bond-mode {bond.mode}", "bond-miimon 100"]
        lines += _stanzas(bond.name, bond, options)
    for vlan in network.vlans:
        raw = names.get(vlan.parent, vlan.parent)
        # vlan-raw-device alone reads the id off names as vlan7; any other name wants it said
        lines += _stanzas(vlan.name, vlan, [f"vlan-raw-device {raw}", f"vlan-id {vlan.id}"])
    return ("\n".join(lines) + "\n").encode()


def _stanzas(name: str, link: Addressing, options: list[str]) -> list[str]:
    ipv4 = [address for address in link.addresses if not is_ipv6(address)]
    first = "dhcp" if link.dhcp else "static" if ipv4 else "manual"
    four, _ = gateways(link)
    own = [f"address {ipv4[0]}"] if first == "static" else []
    own += [f"gateway {four}"] if first == "static" and four else []  # ifupdown adds it as on the link
    common = [*options, *([f"mtu {link.mtu}"] if link.mtu is not None else [])]
    common += [f"dns-nameservers {' '.join(link.dns)}"] if link.dns else []
    common += [f"dns-search {' '.join(link.domains)}"] if link.domains else []
    # what a first method does not take: more addresses, or a gateway beside DHCP, which has set its own
    rest = ipv4[1:] if first == "static" else ipv4
    common += [f"up ip addr add {address} dev $IFACE" for address in rest]
    common += [f"up ip route replace default via {four} dev $IFACE"] if first != "static" and four else []
    common += _routes(link, wants_ipv6=False)
    lines = ["", f"auto {name}", f"iface {name} inet {first}", *(f"    {line}" for line in [*own, *common])]
    second = _ipv6(link)
    method = "static" if any(map(is_ipv6, link.addresses)) else "auto" if link.dhcp and link.accept_ra else "manual"
    if second or method == "auto":
        lines += ["", f"iface {name} inet6 {method}", *(f"    {line}" for line in second)]
    return lines


def _ipv6(link: Addressing) -> list[str]:
    ipv6 = [address for address in link.addresses if is_ipv6(address)]
    _, six = gateways(link)
    if ipv6:
        lines = [f"address {ipv6[0]}", *([f"gateway {six}"] if six else [])]
        lines += [f"up ip addr add {address} dev $IFACE" for address in ipv6[1:]]
        lines += [f"accept_ra {2 if link.accept_ra else 0}"]
    else:
        # with dots sysctl(8) would take those of a name as bond0.7 for its own
        lines = [] if link.accept_ra else ["pre-up sysctl -qw net/ipv6/conf/$IFACE/accept_ra=0"]
        lines += [f"up ip -6 route replace default via {six} dev $IFACE"] if six else []
    return [*lines, *_routes(link, wants_ipv6=True)]


def _routes(link: Addressing, *, wants_ipv6: bool) -> list[str]:
    # in the part of their family: before it has its address, the kernel refuses a route through its network
    routes = [route for route in link.routes if is_ipv6(route.to) == wants_ipv6]
    return [
        f"up ip route add {route.to} via {route.via} dev $IFACE"
        + ("" if route.metric is None else f" metric {route.metric}")
        for route in routes
    ]
