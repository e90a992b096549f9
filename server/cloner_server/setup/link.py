"""The interface where nodes are, as `ip -json address` tells it."""

from __future__ import annotations

import ipaddress

import msgspec

from cloner_core.errors import ClonerError
from cloner_initramfs.host import run


class Address(msgspec.Struct, frozen=True):
    """One IPv4 address of the interface."""

    interface: ipaddress.IPv4Interface
    is_dynamic: bool  # it came by DHCP, and may go


class Link(msgspec.Struct, frozen=True):
    """One network interface."""

    name: str
    mac: str
    is_up: bool
    has_carrier: bool
    addresses: tuple[Address, ...]  # IPv4, those that can be reached from outside
    addresses6: tuple[ipaddress.IPv6Interface, ...] = ()  # that stay: those of the network, then those of the link


class _Info(msgspec.Struct):
    family: str = ""
    local: str = ""
    prefixlen: int = 0
    scope: str = ""
    dynamic: bool = False
    temporary: bool = False
    deprecated: bool = False
    tentative: bool = False
    dadfailed: bool = False


class _Told(msgspec.Struct):
    ifname: str = ""
    address: str = ""
    flags: tuple[str, ...] = ()
    addr_info: tuple[_Info, ...] = ()


def read_links() -> dict[str, Link]:
    """Return every interface of this machine by its name."""
    return {link.name: link for link in parse_links(run(["ip", "-json", "address", "show"], timeout_s=10))}


def parse_links(text: str) -> tuple[Link, ...]:
    """Return the interfaces that iproute2 told; raises ClonerError when that is not what it tells."""
    try:
        told = msgspec.json.decode(text, type=tuple[_Told, ...])
        return tuple(
            Link(
                name=one.ifname,
                mac=one.address,
                is_up="UP" in one.flags,
                has_carrier="LOWER_UP" in one.flags,
                addresses=tuple(_address(info) for info in one.addr_info if info.family == "inet"),
                addresses6=_addresses6(one.addr_info),
            )
            for one in told
            if one.ifname
        )
    except (msgspec.MsgspecError, ValueError) as fault:
        raise ClonerError(f"what 'ip -json address show' says cannot be read: {fault}") from fault


def _addresses6(told: tuple[_Info, ...]) -> tuple[ipaddress.IPv6Interface, ...]:
    passing = ("temporary", "deprecated", "tentative", "dadfailed")
    kept = [one for one in told if one.family == "inet6" and not any(getattr(one, word) for word in passing)]
    kept.sort(key=lambda one: one.scope != "global")
    return tuple(ipaddress.IPv6Interface(f"{one.local}/{one.prefixlen}") for one in kept if one.local)


def _address(info: _Info) -> Address:
    return Address(ipaddress.IPv4Interface(f"{info.local}/{info.prefixlen}"), info.dynamic)
