"""xCAT's stanzas, as `lsdef -z` prints them; networks in the same file give addresses their prefix and gateway.

Source: xcatstanzafile(5), node(7), mac(5), network(7) of xCAT.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cloner_cli.nodefiles.records import NodeFile, NodeRecord, read_macs, with_prefix

_HEADER = re.compile(r"([^=\s:]+):")
_ATTRIBUTE = re.compile(r"([^=\s]+?)\s*=(.*)", re.DOTALL)
_OBJTYPE = re.compile(r"^\s*objtype\s*=\s*\w", re.MULTILINE)
_DEFAULT = "default-"
_TAKEN = {"objtype", "mac", "ip", "groups"}
_NO_MACHINES = {"switch", "pdu", "rack", "mp", "cmm", "frame", "cec", "hmc", "fsp", "bpa"}  # nodetype and mgt
_IMAGES = {"provmethod", "os", "profile", "osimage"}
_OWN_GROUP = "__"  # xCAT keeps these for itself


@dataclass
class _Stanza:
    line: int
    name: str
    attributes: dict[str, str] = field(default_factory=dict)


def is_xcat(text: str) -> bool:
    """Whether this can be such a file."""
    return bool(_OBJTYPE.search(text))


def read_xcat(text: str, prefix_length: int | None) -> NodeFile:
    """Return the nodes of the stanzas; other objects are used or left out."""
    faults: list[str] = []
    stanzas = list(_with_defaults(_stanzas(text, faults)))
    networks = list(filter(None, (_network(one, faults) for one in stanzas if one.attributes["objtype"] == "network")))
    records: list[NodeRecord] = []
    skipped: list[str] = []
    ignored: dict[str, None] = {}
    for one in stanzas:
        said = one.attributes
        if not said["objtype"]:
            faults.append(f"line {one.line}: {one.name}: it has no objtype")
        if said["objtype"] != "node":
            continue
        kinds = {*said.get("nodetype", "").split(","), said.get("mgt", "")}
        if not said.get("mac") and kinds & _NO_MACHINES:
            skipped.append(one.name)
            continue
        records.append(_record(one, networks, prefix_length, faults))
        ignored.update(dict.fromkeys(name for name in said if name not in _TAKEN))
    notes = [f"no machines, left out: {', '.join(skipped)}"] if skipped else []
    if of_images := sorted(_IMAGES & ignored.keys()):
        named = ", ".join(of_images)
        notes.append(f"{named}: images of xCAT are not Cloner's; --image and --disklayout say what nodes get")
    if others := sorted(ignored.keys() - _IMAGES):
        notes.append(f"not imported: {', '.join(others)}")
    return NodeFile("xcat", tuple(records), tuple(notes), tuple(faults))


def _stanzas(text: str, faults: list[str]) -> Iterator[_Stanza]:
    stanza: _Stanza | None = None
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if header := _HEADER.fullmatch(line):
            if stanza is not None:
                yield stanza
            stanza = _Stanza(number, header[1])
        elif (attribute := _ATTRIBUTE.fullmatch(line)) and stanza is not None:
            stanza.attributes[attribute[1]] = attribute[2].strip()
        else:
            faults.append(f"line {number}: neither NAME: nor ATTRIBUTE=VALUE beneath one")
    if stanza is not None:
        yield stanza


def _with_defaults(stanzas: Iterator[_Stanza]) -> Iterator[_Stanza]:
    """Give the stanzas with the values that "default-node:" and the like set for those that follow."""
    defaults: dict[str, dict[str, str]] = {}
    for one in stanzas:
        if one.name.startswith(_DEFAULT):
            defaults.setdefault(one.name.removeprefix(_DEFAULT), {}).update(one.attributes)
            continue
        kind = one.attributes.get("objtype", "")
        said = defaults.get(kind, {}) | one.attributes | {"objtype": kind}
        yield _Stanza(one.line, one.name, {name: value for name, value in said.items() if value or name == "objtype"})


def _network(stanza: _Stanza, faults: list[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str] | None:
    """Return a network and its gateway; "" where that is none, or xCAT's own server (<xcatmaster>)."""
    said = stanza.attributes
    try:
        net = ipaddress.ip_network(f"{said['net'].partition('/')[0]}/{said['mask'].lstrip('/')}", strict=False)
    except (KeyError, ValueError) as fault:
        faults.append(f"line {stanza.line}: the network {stanza.name} cannot be read: {fault}")
        return None
    try:
        gateway = str(ipaddress.ip_address(said.get("gateway", "")))
    except ValueError:
        gateway = ""
    return net, gateway


def _record(
    stanza: _Stanza,
    networks: Sequence[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]],
    prefix_length: int | None,
    faults: list[str],
) -> NodeRecord:
    said, where = stanza.attributes, f"line {stanza.line}: {stanza.name}"
    # "MAC!HOSTNAME|MAC!*NOIP*": the first is the one it installs from
    macs = (
        read_macs((part.partition("!")[0].strip() for part in said.get("mac", "").split("|")), faults, where)
        if (said.get("mac"))
        else ()
    )
    if not said.get("mac"):
        faults.append(f"{where}: it has no MAC address")
    groups = tuple(name for name in said.get("groups", "").split(",") if name and not name.startswith(_OWN_GROUP))
    addresses, gateway = None, None
    if text := said.get("ip", ""):
        length, gateway = prefix_length, None
        for net, known in networks:
            if _lies_in(text, net):
                length, gateway = net.prefixlen, known or None
        addresses = (with_prefix(text, length, faults, where),)
    return NodeRecord(stanza.line, stanza.name, macs, addresses=addresses, gateway=gateway, groups=groups or None)


def _lies_in(text: str, net: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(text) in net
    except ValueError:
        return False
