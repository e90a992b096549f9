"""The link that sessions go out on: interface, address, speed, how much of it is theirs, and groups that are free."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from cloner_core.errors import RefusedError
from cloner_server.config import ServerConfig
from cloner_server.setup.link import Link as Interface
from cloner_server.setup.link import read_links

_SYSFS = Path("/sys/class/net")
_ROUTES = Path("/proc/net/route")
_IFF_MULTICAST = 0x1000  # include/uapi/linux/if.h
_UNKNOWN_BPS = 1e9
_MBPS = 1e6


@dataclass(frozen=True, slots=True)
class Link:
    """Where sessions leave this server."""

    interface: str
    address: ipaddress.IPv4Interface  # ours on it
    speed_bps: float
    budget_bps: float  # of all sessions together
    notes: tuple[str, ...] = ()  # what had to be guessed
    address6: ipaddress.IPv6Interface | None = None  # ours on it for groups of IPv6; None: it has none

    def source(self, group: str) -> str:
        """Return the address from which a group is sent to; raises RefusedError when the interface has none."""
        if ipaddress.ip_address(group).version == 4:
            return str(self.address.ip)
        if self.address6 is None:
            raise RefusedError(
                f"the interface {self.interface} has no IPv6 address, which nodes would report to",
                hint=f"ip address add ADDRESS/PREFIX dev {self.interface}, or an IPv4 multicast_group in server.toml",
            )
        return str(self.address6.ip)

    def reaches(self, address: str) -> bool:
        """Return whether a node is in the network of the interface, so that no router is between."""
        return ipaddress.ip_address(address) in self.address.network


def find_link(config: ServerConfig) -> Link:
    """Return the link of this machine that the settings mean; raises RefusedError when there is none."""
    return choose_link(config, read_links(), default_interface(_read(_ROUTES)), _SYSFS)


def choose_link(config: ServerConfig, interfaces: dict[str, Interface], default: str, sysfs: Path) -> Link:
    """Return the link among `interfaces`; `default` is that of the default route, "" for none.

    `sysfs` is the directory of the kernel's network interfaces (Documentation/ABI/testing/sysfs-class-net).
    """
    name = config.interface or _holder(interfaces.values(), config.address) or default
    if not name:
        raise RefusedError(
            "multicast needs a network interface, and none is configured",
            hint="set interface in server.toml, or start with --interface",
        )
    if name not in interfaces:
        raise RefusedError(f"there is no network interface {name!r}", hint=f"there are {', '.join(sorted(interfaces))}")
    address, address6 = _address(interfaces[name], config.address), next(iter(interfaces[name].addresses6), None)
    if not int(_read(sysfs / name / "flags") or "0", 16) & _IFF_MULTICAST:
        raise RefusedError(
            f"the interface {name} carries no multicast", hint=f"choose another, or: ip link set {name} multicast on"
        )
    speed_bps = read_speed(sysfs, name)
    notes = []
    if speed_bps is None and not config.multicast_mbps:
        notes.append(f"the kernel does not tell how fast {name} is: taken for 1 Gbit/s (multicast_mbps says otherwise)")
    told_bps = speed_bps if speed_bps is not None else _UNKNOWN_BPS
    budget_bps = config.multicast_mbps * _MBPS or told_bps * config.multicast_share
    speed_bps = max(told_bps, config.multicast_mbps * _MBPS)
    return Link(name, address, speed_bps, budget_bps, tuple(notes), address6)


def read_speed(sysfs: Path, name: str) -> float | None:
    """Return how many bits a second one flow has on an interface, None when the kernel does not know.

    Of a bond that is the slowest of its members: a session is one flow, and goes over one of them.
    """
    members = _read(sysfs / name / "bonding" / "slaves").split()
    if members:
        known = [speed for member in members if (speed := read_speed(sysfs, member)) is not None]
        return min(known, default=None)
    try:
        mbps = int(_read(sysfs / name / "speed"))
    except ValueError:
        return None
    return mbps * _MBPS if mbps > 0 else None


def pick_group(network: str, first_port: int, taken: Collection[tuple[str, int]]) -> tuple[str, int]:
    """Return a group of `network` and a port that nobody of `taken` has; no two sessions share either, while they can.

    Raises RefusedError when all are taken.
    """
    groups = ipaddress.ip_network(network)
    busy_groups, busy_ports = {group for group, _ in taken}, {port for _, port in taken}
    ports = range(first_port, min(first_port + len(taken) + 1, 1 << 16))
    port = next((port for port in ports if port not in busy_ports), None)
    if port is not None:
        # The last number of a group's first address is 0, which some take for a network: it comes last.
        for number in (*range(1, min(groups.num_addresses, len(taken) + 2)), 0):
            group = str(groups[number])
            if group not in busy_groups or groups.num_addresses <= len(taken):
                return group, port
    raise RefusedError(
        f"no multicast group of {network} with a port from {first_port} on is free: {len(taken)} are taken",
        hint="wait until a session has ended, or set multicast_group and multicast_port in server.toml",
    )


def _holder(interfaces: Iterable[Interface], address: str) -> str:
    """Return the interface that has this address, "" when none has."""
    for one in interfaces:
        if any(str(held.interface.ip) == address for held in one.addresses):
            return one.name
    return ""


def _address(interface: Interface, wanted: str) -> ipaddress.IPv4Interface:
    held = [one.interface for one in interface.addresses]
    for one in held:
        if str(one.ip) == wanted:
            return one
    if not held:
        raise RefusedError(
            f"the interface {interface.name} has no IPv4 address, which nodes would report to",
            hint=f"ip address add ADDRESS/PREFIX dev {interface.name}",
        )
    return held[0]


def default_interface(routes: str) -> str:
    """Return the interface of the default route that /proc/net/route tells, "" for none; the least metric wins."""
    rows = [line.split() for line in routes.splitlines()[1:]]
    defaults = [(int(row[6]), row[0]) for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"]
    return min(defaults, default=(0, ""))[1]


def _read(path: Path) -> str:
    """Return what a file of the kernel says, "" for what it does not tell: `speed` of a link that is down fails."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
