"""Who is at the other end of the cable: LLDPDUs read (IEEE 802.1AB-2016 §8, §9), and the name of a node's switch.

Pure. Anybody on the wire can send an LLDPDU, so what is read is a label for people, bounded and printable, never a
reason to trust or refuse a machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

ETHERTYPE = 0x88CC
NEAREST_BRIDGE = bytes.fromhex("0180c200000e")
"""The group address that no bridge forwards: whoever is heard on it is at the other end of this cable."""

MAX_NEIGHBORS = 64

_END, _CHASSIS, _PORT, _LIFE, _PORT_DESCRIPTION, _SYSTEM_NAME = range(6)
_CHASSIS_MAC, _CHASSIS_ADDRESS = 4, 5
_PORT_MAC, _PORT_ADDRESS = 3, 4
_MAC_BYTES, _IPV4, _IPV4_BYTES = 6, 1, 5  # of an address: its family and four bytes
_CHARACTERS = 100

Label = Annotated[str, Meta(max_length=255)]


class Neighbor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The port a machine's interface is plugged into, as the switch tells of itself."""

    interface: Label  # of the machine: "eth0"
    mac: Label  # of that interface
    switch: Label  # its system name; its chassis id when it has none
    chassis: Label
    port: Label  # "Ethernet1/12"
    port_description: Label = ""


class MalformedError(ValueError):
    """The bytes are no LLDPDU."""


def parse_lldpdu(payload: bytes, *, interface: str, mac: str) -> Neighbor | None:
    """Return who sent an LLDPDU that came in on `interface`; None when the sender says good-bye (TTL 0).

    `payload` is what follows the EtherType. Raises MalformedError.
    """
    elements = list(_elements(payload))
    if [kind for kind, _ in elements[:3]] != [_CHASSIS, _PORT, _LIFE]:
        raise MalformedError("it does not begin with chassis id, port id and time to live")
    (_, chassis), (_, port), (_, life) = elements[:3]
    if len(chassis) < 2 or len(port) < 2 or len(life) < 2:
        raise MalformedError("a mandatory element is too short")
    if any(kind in (_CHASSIS, _PORT, _LIFE) for kind, _ in elements[3:]):
        raise MalformedError("a mandatory element comes twice")
    if life[:2] == b"\0\0":
        return None
    optional = dict(reversed(elements[3:]))  # the first of each counts
    named = _identifier(chassis, _CHASSIS_MAC, _CHASSIS_ADDRESS)
    return Neighbor(
        interface=_label(interface),
        mac=_label(mac),
        switch=_text(optional.get(_SYSTEM_NAME, b"")) or named,
        chassis=named,
        port=_identifier(port, _PORT_MAC, _PORT_ADDRESS),
        port_description=_text(optional.get(_PORT_DESCRIPTION, b"")),
    )


def switch_of(told: str, neighbors: Sequence[Neighbor], relay: str) -> str:
    """Return the switch or relay a machine is behind: what an admin told, else what LLDP told, else the DHCP relay.

    "" when nothing is known. Of several neighbors the first is meant: that of the interface it boots from.
    """
    if told or neighbors:
        return told or neighbors[0].switch
    return f"relay {relay}" if relay else ""


def _elements(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Give type and value up to the end mark, or the end of the frame, which IEEE 802.1AB-2009 allows as well."""
    at = 0
    while at < len(payload):
        if at + 2 > len(payload):
            raise MalformedError("half a header at the end")
        head = int.from_bytes(payload[at : at + 2], "big")
        kind, length = head >> 9, head & 0x1FF
        if kind == _END:
            return
        value = payload[at + 2 : at + 2 + length]
        if len(value) < length:
            raise MalformedError(f"element {kind} says it has {length} bytes, {len(value)} are left")
        yield kind, value
        at += 2 + length


def _identifier(value: bytes, mac_kind: int, address_kind: int) -> str:
    kind, name = value[0], value[1:]
    if kind == mac_kind and len(name) == _MAC_BYTES:
        return name.hex(":")
    if kind == address_kind and len(name) == _IPV4_BYTES and name[0] == _IPV4:
        return ".".join(map(str, name[1:]))
    return _text(name) or name.hex(":")[:_CHARACTERS]


def _text(value: bytes) -> str:
    return _label(value.rstrip(b"\0").decode(errors="replace"))


def _label(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_CHARACTERS]).strip()
