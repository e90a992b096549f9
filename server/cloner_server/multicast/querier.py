"""An IGMP querier: asks who listens to which group, so that switches that snoop do not forget it.

A switch passes a group on only where it heard that somebody wants it, and forgets that after some minutes unless a
router, or a querier, has receivers say so again (RFC 4541 §2.1.1). A network without either has sessions that end for
all their receivers at once. What is asked is an IGMPv2 general query, which hosts of version 3 answer as well. One
that hears another querier with a lower address is silent (RFC 2236 §3).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import suppress

_QUERY = 0x11
_ALL_HOSTS = "224.0.0.1"
_ROUTER_ALERT = b"\x94\x04\x00\x00"  # RFC 2113: switches look at what has it
_BODY = struct.Struct("!BBH4s")  # type, tenths of a second to answer within, checksum, group
EVERY_S = 60.0
_ANSWER_PART = 1 / 12  # of that, over which the answers of a thousand nodes are spread
_OTHER_FACTOR = 2.5  # RFC 2236 §8.5, in queries: how long another querier is believed in
_SO_BINDTODEVICE = socket.SO_BINDTODEVICE
_READ_BYTES = 2048


def general_query(answer_s: float) -> bytes:
    """Return the IGMPv2 message that asks for all groups, to be answered within `answer_s`."""
    body = _BODY.pack(_QUERY, max(1, min(255, round(answer_s * 10))), 0, bytes(4))
    return _BODY.pack(_QUERY, body[1], _checksum(body), bytes(4))


def asks(packet: bytes) -> str | None:
    """Return who sent the IPv4 packet when it is an IGMP query for all groups, None for any other."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_IGMP:
        return None
    body = packet[(packet[0] & 15) * 4 :]
    if len(body) < _BODY.size or body[0] != _QUERY or body[4:8] != bytes(4) or _checksum(body):
        return None
    return socket.inet_ntoa(packet[12:16])


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071); 0 of data that has its own in it."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Election:
    """Decides when to ask: at the begin twice, then every minute, and not while another with a lower address does."""

    def __init__(self, address: str, now_s: float, every_s: float = EVERY_S) -> None:
        self._own = int(ipaddress.IPv4Address(address))
        self._every_s = every_s
        self._early = True
        self._silent_until_s = self.due_s = now_s

    def heard(self, other: str, now_s: float) -> None:
        """Take that another querier asked; 0.0.0.0 is a switch's own question, which no one yields to (RFC 4541)."""
        if 0 < int(ipaddress.IPv4Address(other)) < self._own:
            self._silent_until_s = now_s + self._every_s * _OTHER_FACTOR

    def is_due(self, now_s: float) -> bool:
        """Return whether to ask now; when so, the next time is set."""
        if now_s < self.due_s:
            return False
        self.due_s = now_s + (self._every_s / 4 if self._early else self._every_s)  # RFC 2236 §8.6
        self._early = False
        return now_s >= self._silent_until_s


class Querier:
    """A raw socket that asks when it is due."""

    def __init__(self, interface: str, address: str, now_s: float, every_s: float = EVERY_S) -> None:
        """Ask on `interface` from its `address`. Raises OSError; PermissionError without CAP_NET_RAW."""
        self._election = Election(address, now_s, every_s)
        self._own = address
        self._query = general_query(every_s * _ANSWER_PART)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_IGMP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode())
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            index = socket.if_nametoindex(interface)
            # The source of what is sent. Not bound: then it would hear nothing that goes to a group.
            sender = struct.pack("4s4si", bytes(4), socket.inet_aton(address), index)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, sender)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _ROUTER_ALERT)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def turn(self, now_s: float) -> None:
        """Hear other queriers, and ask if it is time; to be called every second or so."""
        with suppress(OSError):  # nothing more to read; a link that is down passes
            while True:
                other = asks(self._socket.recv(_READ_BYTES))
                if other is not None and other != self._own:
                    self._election.heard(other, now_s)
        if self._election.is_due(now_s):
            with suppress(OSError):  # a link that is down loses a question, as it may at any time
                self._socket.sendto(self._query, (_ALL_HOSTS, 0))

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()
