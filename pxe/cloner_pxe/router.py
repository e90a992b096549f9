"""Answers IPv6 router solicitations with "no router here" (RFC 4861 §4.2).

iPXE configures IPv6 beside IPv4 and waits 13 s for a router advertisement that a provisioning network never sends.
An advertisement of lifetime 0, without prefix and without the flags for DHCPv6, ends that wait and changes nothing on
any host: it names us as no default router.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys

log = logging.getLogger(__name__)

SOLICITATION, ADVERTISEMENT = 133, 134
_ALL_ROUTERS, _ALL_NODES = "ff02::2", "ff02::1"
_ICMP6_FILTER = 1  # linux/icmpv6.h; Python does not name it
_LEAST_GAP_S = 0.05


def advertisement() -> bytes:
    """Return the ICMPv6 message; the kernel fills in its checksum."""
    hop_limit, flags, lifetime_s, reachable_ms, retransmit_ms = 64, 0, 0, 0, 0
    return struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, hop_limit, flags, lifetime_s, reachable_ms, retransmit_ms)


def is_solicitation(message: bytes, hop_limit: int) -> bool:
    """Whether `message` is a solicitation from this very link: a hop limit of 255 cannot come from beyond a router."""
    return len(message) >= 8 and message[:2] == bytes((SOLICITATION, 0)) and hop_limit == 255


class RouterService:
    """The answerer on one interface, from `start` to `stop`. A machine without IPv6 goes without."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._socket: socket.socket | None = None
        self._last_s = float("-inf")
        self.answered = 0

    def start(self) -> bool:
        """Serve inside the running loop; whether it could."""
        try:
            self._socket = self._open()
        except OSError as fault:
            log.warning("iPXE will wait 13 s: no IPv6 on %s: %s", self._interface, fault)
            return False
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive, self._socket)
        return True

    def stop(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        opened = socket.socket(
            socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6
        )
        try:
            index = socket.if_nametoindex(self._interface)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            # A set bit blocks its type; only solicitations pass.
            words = [0xFFFFFFFF] * 8
            words[SOLICITATION >> 5] &= ~(1 << (SOLICITATION & 31))
            opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
            for option in (socket.IPV6_UNICAST_HOPS, socket.IPV6_MULTICAST_HOPS):
                opened.setsockopt(socket.IPPROTO_IPV6, option, 255)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            group = socket.inet_pton(socket.AF_INET6, _ALL_ROUTERS) + struct.pack("=I", index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        except OSError:
            opened.close()
            raise
        return opened

    def _receive(self, opened: socket.socket) -> None:
        try:
            message, ancillary, _, _ = opened.recvmsg(1500, 64)
        except OSError as fault:
            log.debug("router solicitation not read: %s", fault)
            return
        hop_limit = next(
            (
                int.from_bytes(data[:4], sys.byteorder)
                for level, kind, data in ancillary
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)
            ),
            0,
        )
        now = asyncio.get_running_loop().time()
        if not is_solicitation(message, hop_limit) or now - self._last_s < _LEAST_GAP_S:
            return
        self._last_s = now
        try:
            # To everybody: one answer serves all machines that start at once, and needs no neighbour discovery.
            index = socket.if_nametoindex(self._interface)
            opened.sendto(advertisement(), (_ALL_NODES, 0, 0, index))
            self.answered += 1
        except OSError as fault:  # no link-local address yet
            log.debug("router advertisement not sent on %s: %s", self._interface, fault)
