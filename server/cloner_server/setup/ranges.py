"""Which addresses our own DHCP gives out: what is wrong with a range, and one that fits. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

_CUSTOM = range(100, 200)  # where people look for a pool in a network of 256
_FEWEST = 4


def range_faults(text: str, own: IPv4Interface) -> list[str]:
    """Return what is wrong with "FIRST-LAST" for a server with the address `own`."""
    first_text, _, last_text = text.partition("-")
    try:
        first, last = IPv4Address(first_text.strip()), IPv4Address(last_text.strip())
    except ValueError as fault:
        return [f"--dhcp '{text}': want FIRST-LAST, proxy or none: {fault}"]
    net = own.network
    faults = [f"--dhcp {text}: {one} is not in {net}" for one in (first, last) if one not in net]
    if first > last:
        faults.append(f"--dhcp {text}: {first} comes after {last}")
    elif not faults:
        kept = [(net.network_address, "the network's own"), (net.broadcast_address, "the broadcast address")]
        kept += [(own.ip, "this server's own")]
        faults += [f"--dhcp {text}: {one} is in it, and that is {what}" for one, what in kept if first <= one <= last]
    return faults


def choose_range(own: IPv4Interface) -> str:
    """Return a range of the network of `own` as "FIRST-LAST"; "" when the network has no room for one.

    Leaves addresses free for nodes that have static ones.
    """
    net = own.network
    base = int(own.ip) & ~0xFF  # of a big network only the part where the server is
    first, last = max(int(net.network_address), base) + 1, min(int(net.broadcast_address), base + 255) - 1
    custom = base + _CUSTOM.start, base + _CUSTOM.stop - 1
    if first <= custom[0] and custom[1] <= last and not custom[0] <= int(own.ip) <= custom[1]:
        return _text(*custom)
    below, above = (first, int(own.ip) - 1), (int(own.ip) + 1, last)
    low, high = max(below, above, key=lambda side: side[1] - side[0])
    low += (high - low + 1) // 2  # the lower half stays for static addresses
    return _text(low, high) if high - low + 1 >= _FEWEST else ""


def _text(first: int, last: int) -> str:
    return f"{IPv4Address(first)}-{IPv4Address(last)}"
