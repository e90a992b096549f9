"""What a file says of one node, whatever its format, and what two of its nodes cannot share."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloner_core.facts import normalize_mac

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node; None: the file says nothing about it, and an empty value says that there is none."""

    line: int  # where it begins, from 1
    name: str
    macs: Words  # lower case, colons; the one it boots from first
    hostname: str | None = None
    addresses: Words | None = None  # with prefix length
    gateway: str | None = None
    dns: Words | None = None
    domains: Words | None = None
    groups: Words | None = None
    image: str | None = None  # "debian" or "debian:3"
    layout: str | None = None
    uuid: str | None = None  # lower case
    serial: str | None = None
    kernel_arguments: Words | None = None
    is_protected: bool | None = None


@dataclass(frozen=True, slots=True)
class NodeFile:
    """A file that was read; with a fault in it nothing is imported."""

    form: str
    records: tuple[NodeRecord, ...]
    notes: Words = ()  # what was left out, once each
    faults: Words = ()  # "line 7: …"


def read_macs(texts: Iterable[str], faults: list[str], where: str) -> Words:
    """Return MACs in Cloner's form, each once; what is no MAC goes to `faults`."""
    macs = []
    for text in texts:
        try:
            macs.append(normalize_mac(text))
        except ValueError as fault:
            faults.append(f"{where}: {fault}")
    return tuple(dict.fromkeys(macs))


def with_prefix(address: str, prefix_length: int | None, faults: list[str], where: str) -> str:
    """Return `address` with a prefix length; without any, or when it is no address, that goes to `faults`."""
    try:
        if "/" in address:
            return str(ipaddress.ip_interface(address))
        known = ipaddress.ip_address(address)
    except ValueError:
        faults.append(f"{where}: '{address}' is not an IP address")
        return address
    if prefix_length is None or prefix_length > known.max_prefixlen:
        faults.append(f"{where}: {address} has no prefix length (as in {address}/24); --prefix-length says one for all")
        return address
    return f"{address}/{prefix_length}"


def shared_faults(records: Sequence[NodeRecord]) -> list[str]:
    """Return what two nodes of one file both claim: a name, a MAC, an address."""
    faults: list[str] = []
    owners: dict[tuple[str, str], NodeRecord] = {}
    for record in records:
        claims = [("name", record.name), *(("MAC", mac) for mac in record.macs)]
        claims += [("address", address.partition("/")[0]) for address in record.addresses or ()]
        for claim in dict.fromkeys(claims):
            first = owners.setdefault(claim, record)
            if first is not record:
                what = f"the {claim[0]} {claim[1]} is also that of {first.name} in line {first.line}"
                faults.append(f"line {record.line}: {record.name}: {what}")
    return faults
