"""Files of systemd-networkd: systemd.network(5) and systemd.netdev(5).

They sort before those of the image, and the first that matches wins, so the image's own may stay. Bonds and VLANs sort
before interfaces: a VLAN has the MAC of its parent, a bond that of a member, and would match its file.
"""

from __future__ import annotations

from cloner_core.identity.values import IdentityFile
from cloner_core.network import Addressing, Bond, Interface, NodeNetwork, Vlan, gateways, is_beyond

FOLDER = "/etc/systemd/network"
_HEAD = "# Written by Cloner."


def files(network: NodeNetwork) -> list[IdentityFile]:
    """Return the files that bring `network` up."""
    made = []
    for bond in network.bonds:
        path = f"{FOLDER}/04-cloner-{bond.name}"
        made.append(_file(f"{path}.netdev", _bond_device(bond)))
        made.append(_file(f"{path}.network", _link([f"Name={bond.name}"], bond, network.vlans_on(bond.name))))
        for number, mac in enumerate(bond.members):
            # a member takes the MAC of its bond, and only the permanent one still tells it
            lines = ["[Match]", f"PermanentMACAddress={mac}", "", "[Network]", f"Bond={bond.name}"]
            made.append(_file(f"{FOLDER}/05-cloner-{bond.name}-{number}.network", lines))
    for vlan in network.vlans:
        path = f"{FOLDER}/04-cloner-{vlan.name}"
        made.append(_file(f"{path}.netdev", [*_device(vlan.name, "vlan"), "", "[VLAN]", f"Id={vlan.id}"]))
        made.append(_file(f"{path}.network", _link([f"Name={vlan.name}"], vlan, ())))
    for index, interface in enumerate(network.interfaces):
        content = network_content(interface, network.vlans_on(interface.mac))
        made.append(IdentityFile(f"{FOLDER}/05-cloner-{index}.network", content))
    return made


def network_content(interface: Interface, vlans: tuple[Vlan, ...] = ()) -> bytes:
    """Return the file for one interface, found by its MAC and never by a name the kernel gave."""
    return _content(_link([f"MACAddress={interface.mac}"], interface, vlans))


def _link(match: list[str], link: Addressing, vlans: tuple[Vlan, ...]) -> list[str]:
    lines = ["[Match]", *match, ""]
    lines += ["[Link]", f"MTUBytes={link.mtu}", ""] if link.mtu is not None else []
    lines += ["[Network]", f"DHCP={'yes' if link.dhcp else 'no'}"]
    lines += [f"Address={address}" for address in link.addresses]
    known = [gateway for gateway in gateways(link) if gateway]
    lines += [f"Gateway={gateway}" for gateway in known if not is_beyond(link, gateway)]
    lines += [f"DNS={address}" for address in link.dns]
    lines += [f"Domains={' '.join(link.domains)}"] if link.domains else []
    lines += [] if link.accept_ra else ["IPv6AcceptRA=no"]
    lines += [f"VLAN={vlan.name}" for vlan in vlans]
    for gateway in known:
        lines += ["", "[Route]", f"Gateway={gateway}", "GatewayOnLink=yes"] if is_beyond(link, gateway) else []
    for route in link.routes:
        lines += ["", "[Route]", f"Destination={route.to}", f"Gateway={route.via}"]
        lines += [f"Metric={route.metric}"] if route.metric is not None else []
    if link.dhcp:
        # by default networkd derives the client id from machine-id, and a server that knows MACs gives another lease
        lines += ["", "[DHCPv4]", "ClientIdentifier=mac"]
    return lines


def _bond_device(bond: Bond) -> list[str]:
    # without MIIMonitorSec the driver never notices a lost carrier (kernel, networking/bonding.rst)
    return [*_device(bond.name, "bond"), "", "[Bond]", f"Mode={bond.mode}", "MIIMonitorSec=100ms"]


def _device(name: str, kind: str) -> list[str]:
    return ["[NetDev]", f"Name={name}", f"Kind={kind}"]


def _file(path: str, lines: list[str]) -> IdentityFile:
    return IdentityFile(path, _content(lines))


def _content(lines: list[str]) -> bytes:
    return ("\n".join((_HEAD, *lines)) + "\n").encode()
