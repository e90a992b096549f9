"""The machine's network interfaces as the screen shows them: carrier and addresses, read from the kernel.

Only reads; an interface that goes away meanwhile is left out.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

from cloner_core.errors import RefusedError
from cloner_core.facts import normalize_mac
from cloner_core.screen import Link

_SIOCGIFADDR = 0x8915  # include/uapi/linux/sockios.h
_GLOBAL_SCOPE = "00"
_DISCARD = 9  # a port that nobody has: RFC 863


def interface_towards(address: str) -> str:
    """Return the name of the interface that the kernel's route to `address` uses; raises RefusedError or OSError."""
    import psutil

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((address, _DISCARD))  # sends nothing: the kernel chooses route and source address
        local = asking.getsockname()
    if family == socket.AF_INET6 and local[3]:
        return socket.if_indextoname(local[3])
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.family == family and entry.address.partition("%")[0] == local[0] for entry in entries):
            return name
    raise RefusedError(f"no network interface has {local[0]}, from where {address} is reached")


def read_links(root: str = "/") -> tuple[Link, ...]:
    """Return the interfaces that stand for hardware, those with a carrier first; /sys and /proc lie under `root`."""
    found = []
    addresses6 = _addresses6(Path(root, "proc/net/if_inet6"))
    for path in sorted(Path(root, "sys/class/net").glob("*/device")):
        name = path.parent.name
        try:
            has_carrier = (path.parent / "carrier").read_text().strip() == "1"
        except OSError:  # EINVAL while the interface is down
            has_carrier = False
        found.append(Link(name, has_carrier, (*_address4(name), *addresses6.get(name, ()))))
    return tuple(sorted(found, key=lambda link: not link.has_carrier))


def read_macs(root: str = "/") -> tuple[str, ...]:
    """Return the MAC addresses of the interfaces that stand for hardware, by their names; /sys lies under `root`."""
    found = []
    for path in sorted(Path(root, "sys/class/net").glob("*/device")):
        try:
            found.append(normalize_mac((path.parent / "address").read_text().strip()))
        except (OSError, ValueError):  # gone meanwhile; InfiniBand has an address of 20 bytes
            continue
    return tuple(found)


def _address4(name: str) -> tuple[str, ...]:
    """Return the first IPv4 address of an interface; source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("16s24x", name.encode()[:15]))
        except OSError:
            return ()
    return (socket.inet_ntoa(answer[20:24]),)


def _addresses6(path: Path) -> dict[str, list[str]]:
    """Return the global IPv6 addresses by interface; source: kernel, net/ipv6/addrconf.c, if6_seq_show()."""
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        words = line.split()
        if len(words) == 6 and words[3] == _GLOBAL_SCOPE:
            found.setdefault(words[5], []).append(str(ipaddress.IPv6Address(bytes.fromhex(words[0]))))
    return found
