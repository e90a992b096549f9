"""DHCP packets as values, and their bytes (RFC 2131 §2, RFC 2132, RFC 3396).

Pure, total and bounded: `decode` returns a packet or raises MalformedPacketError, whatever the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address

from cloner_core.errors import InvalidError

SERVER_PORT = 67
CLIENT_PORT = 68
PXE_PORT = 4011
NO_ADDRESS = IPv4Address(0)
BROADCAST = IPv4Address("255.255.255.255")
BROADCAST_FLAG = 0x8000

_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_COOKIE = b"\x63\x82\x53\x63"
_LARGEST_DATAGRAM = 4096
_SMALLEST_DATAGRAM = 300  # BOOTP's; some firmware drops less (RFC 1542 §2.1)


class MalformedPacketError(InvalidError):
    """Bytes that are not a DHCP packet we can use: counted and dropped."""


class Op(IntEnum):
    REQUEST = 1
    REPLY = 2


class MessageType(IntEnum):
    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """The options this server reads or writes."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    DNS = 6
    HOST_NAME = 12
    BROADCAST_ADDRESS = 28
    VENDOR_SPECIFIC = 43
    REQUESTED_ADDRESS = 50
    LEASE_SECONDS = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETERS = 55
    MESSAGE = 56
    MAX_SIZE = 57
    RENEWAL_SECONDS = 58
    REBINDING_SECONDS = 59
    VENDOR_CLASS = 60
    CLIENT_ID = 61
    TFTP_SERVER = 66
    BOOT_FILE = 67
    USER_CLASS = 77
    ARCH = 93
    MACHINE_UUID = 97
    IPXE = 175
    END = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One DHCP message; only Ethernet, only messages that carry option 53."""

    op: Op
    message_type: MessageType
    xid: int
    mac: str  # chaddr, six pairs joined by colons
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = NO_ADDRESS
    yiaddr: IPv4Address = NO_ADDRESS
    siaddr: IPv4Address = NO_ADDRESS
    giaddr: IPv4Address = NO_ADDRESS
    sname: bytes = b""
    file: bytes = b""
    options: Mapping[int, bytes] = field(default_factory=dict)  # without option 53

    def address(self, option: Option) -> IPv4Address | None:
        """Return the address in `option`; None when the option is absent or not of four bytes."""
        raw = self.options.get(option, b"")
        return IPv4Address(raw) if len(raw) == 4 else None

    def text(self, option: Option) -> str:
        """Return `option` as text, what is not printable ASCII replaced; "" when absent."""
        raw = self.options.get(option, b"").rstrip(b"\0")
        return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in raw)


def decode(datagram: bytes) -> Packet:
    """Return the packet in `datagram`; raises MalformedPacketError, and nothing else, for any other bytes."""
    if not _HEADER.size + len(_COOKIE) <= len(datagram) <= _LARGEST_DATAGRAM:
        raise MalformedPacketError(f"{len(datagram)} bytes are no DHCP packet")
    (op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file) = (
        _HEADER.unpack_from(datagram)
    )
    rest = datagram[_HEADER.size :]
    if rest[:4] != _COOKIE:
        raise MalformedPacketError("no DHCP cookie: plain BOOTP is not served")
    if (htype, hlen) != (1, 6) or chaddr[0] & 1 or not any(chaddr[:6]):
        raise MalformedPacketError(f"not the address of an Ethernet card (type {htype}, length {hlen})")
    if op not in (Op.REQUEST, Op.REPLY):
        raise MalformedPacketError(f"op is {op}, wanted 1 or 2")
    options = _options(rest[4:], {})
    # Option 52: the fields file and sname hold options too (RFC 2131 §4.1, in this order).
    overload = options.get(Option.OVERLOAD, b"\0")[:1]
    if overload in (b"\1", b"\3"):
        options, file = _options(file, options), b""
    if overload in (b"\2", b"\3"):
        options, sname = _options(sname, options), b""
    kind = options.pop(Option.MESSAGE_TYPE, b"")
    if len(kind) != 1 or not MessageType.DISCOVER <= kind[0] <= MessageType.INFORM:
        raise MalformedPacketError("no usable message type (option 53)")
    return Packet(
        op=Op(op),
        message_type=MessageType(kind[0]),
        xid=xid,
        mac=chaddr[:6].hex(":"),
        hops=hops,
        secs=secs,
        flags=flags,
        ciaddr=IPv4Address(ciaddr),
        yiaddr=IPv4Address(yiaddr),
        siaddr=IPv4Address(siaddr),
        giaddr=IPv4Address(giaddr),
        sname=sname.split(b"\0")[0],
        file=file.split(b"\0")[0],
        options=options,
    )


def encode(packet: Packet) -> bytes:
    """Return the bytes of `packet`, padded to BOOTP's least size.

    A `file` or `sname` too long for its field (128 and 64 bytes with the ending NUL) is left out of the field; the
    caller puts it into options 67 and 66 as well.
    """
    header = _HEADER.pack(
        packet.op,
        1,
        6,
        packet.hops,
        packet.xid,
        packet.secs,
        packet.flags,
        packet.ciaddr.packed,
        packet.yiaddr.packed,
        packet.siaddr.packed,
        packet.giaddr.packed,
        bytes.fromhex(packet.mac.replace(":", "")),
        packet.sname if len(packet.sname) < 64 else b"",
        packet.file if len(packet.file) < 128 else b"",
    )
    parts = [header, _COOKIE, bytes((Option.MESSAGE_TYPE, 1, packet.message_type))]
    for code, value in packet.options.items():
        # RFC 3396 §5: a value beyond 255 bytes goes on in a further option of the same code.
        for at in range(0, max(len(value), 1), 255):
            piece = value[at : at + 255]
            parts.append(bytes((code, len(piece))) + piece)
    return (b"".join(parts) + bytes((Option.END,))).ljust(_SMALLEST_DATAGRAM, b"\0")


def sub_options(raw: bytes) -> dict[int, bytes]:
    """Return the options encapsulated in `raw` (options 43 and 175); what does not parse is left out."""
    try:
        return _options(raw, {})
    except MalformedPacketError:
        return {}


def _options(raw: bytes, found: dict[int, bytes]) -> dict[int, bytes]:
    at = 0
    while at < len(raw):
        code = raw[at]
        at += 1
        if code == Option.PAD:
            continue
        if code == Option.END:
            break
        if at >= len(raw) or at + 1 + raw[at] > len(raw):
            raise MalformedPacketError(f"option {code} runs over the end of the packet")
        length = raw[at]
        # RFC 3396 §7: pieces of one code are joined.
        found[code] = found.get(code, b"") + raw[at + 1 : at + 1 + length]
        at += 1 + length
    return found
