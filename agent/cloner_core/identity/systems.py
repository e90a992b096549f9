"""Which network system an image uses, told from its files, and the files each of them wants."""

from __future__ import annotations

from collections.abc import Callable

from cloner_core.identity import ifupdown, netplan, networkd, networkmanager
from cloner_core.identity.values import IdentityFile, ImageIdentity, NetworkSystem, Removal
from cloner_core.network import NodeNetwork

_WANTS = "etc/systemd/system/multi-user.target.wants"
_SIGNS = {
    NetworkSystem.NETPLAN: ("usr/sbin/netplan", "sbin/netplan"),
    NetworkSystem.NETWORKD: (
        f"{_WANTS}/systemd-networkd.service",
        "etc/systemd/system/dbus-org.freedesktop.network1.service",
    ),
    NetworkSystem.NETWORK_MANAGER: (f"{_WANTS}/NetworkManager.service",),
    NetworkSystem.IFUPDOWN: ("sbin/ifup", "usr/sbin/ifup"),
}
"""A path that exists where the system is in use: an enabled service, or a program that nothing installs unasked."""


def systems_of(exists: Callable[[str], bool]) -> tuple[NetworkSystem, ...]:
    """Return the network systems in use, the leading one first; empty when there is no sign of any.

    netplan goes first because it writes the files of the others at each boot; ifupdown last because its program stays
    on machines that moved on.
    """
    return tuple(system for system, signs in _SIGNS.items() if any(map(exists, signs)))


def network_files(
    network: NodeNetwork, image: ImageIdentity, machine_id: str
) -> tuple[list[Removal], list[IdentityFile], list[str]]:
    """Return what to remove, what to write and what to note, so that the image's own system brings `network` up."""
    if not (network.interfaces or network.bonds):
        return [], [], ["the node has no interface: the network files of the image were left as they are"]
    notes, removals = [], tuple[str, ...]()
    used = image.network_systems
    if not used:
        notes.append("the image enables no network service known to Cloner: files for systemd-networkd were written")
    elif len(used) > 1 and used[0] is not NetworkSystem.NETPLAN:
        notes.append(f"the image has {', '.join(used)}: the network was written for {used[0]}")
    match used[0] if used else NetworkSystem.NETWORKD:
        case NetworkSystem.NETPLAN:
            is_desktop = NetworkSystem.NETWORK_MANAGER in used and NetworkSystem.NETWORKD not in used
            files = netplan.files(network, "NetworkManager" if is_desktop else "networkd")
            removals = netplan.REMOVALS
        case NetworkSystem.NETWORK_MANAGER:
            files, removals = networkmanager.files(network, machine_id), networkmanager.REMOVALS
        case NetworkSystem.IFUPDOWN:
            files, removals = ifupdown.files(network, has_resolvconf=image.has_resolvconf), ifupdown.REMOVALS
        case NetworkSystem.NETWORKD:
            files = networkd.files(network)
    return [Removal(path) for path in removals], files, notes
