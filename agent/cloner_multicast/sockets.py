"""UDP sockets of a multicast session: a group on one interface, many datagrams in one call, buffers that suffice.

The kernel cuts one send into datagrams (UDP_SEGMENT, Linux 4.18) and joins what arrives in a row (UDP_GRO, 5.0). Where
it or the network card cannot, each datagram is sent by itself, with the same result.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from cloner_core.errors import InvalidError, RefusedError
from cloner_core.image.digest import Bytes

# include/uapi/linux/udp.h, include/uapi/asm-generic/socket.h; Python has no names for them.
_UDP_SEGMENT = 103
_UDP_GRO = 104
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29
_SOL_UDP = socket.IPPROTO_UDP
_SEGMENT = struct.Struct("H")
_INT = struct.Struct("i")

RECEIVE_BUFFER_BYTES = 64 << 20  # eight windows: a receiver that is not scheduled for half a second loses nothing
SEND_BUFFER_BYTES = 1 << 20  # a longer queue adds its length to every round of repair
_LARGEST_READ = 1 << 16
_CLASS_LOWER_EFFORT = 8 << 2  # DSCP CS1, RFC 8622's ancestor: switches that know it let everything else go first
_CANNOT_SEGMENT = (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT)

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Where a session is on the wire."""

    address: str  # of the group, IPv4 or IPv6
    port: int
    interface: str  # name on this machine
    hops: int = 1  # routers that may pass it on, plus one

    def __post_init__(self) -> None:
        faults = []
        if not ipaddress.ip_address(self.address).is_multicast:
            faults.append(f"{self.address} is no multicast group")
        if not 0 < self.port < 1 << 16:
            faults.append(f"{self.port} is no port")
        if not 0 < self.hops < 256:
            faults.append(f"{self.hops} hops, wanted 1 to 255")
        if faults:
            raise InvalidError("a multicast group cannot be so", faults=faults)

    @property
    def is_v6(self) -> bool:
        return ipaddress.ip_address(self.address).version == 6

    def index(self) -> int:
        """Return the number of the interface; raises RefusedError when there is none of this name."""
        try:
            return socket.if_nametoindex(self.interface)
        except OSError as error:
            raise RefusedError(
                f"there is no network interface {self.interface!r}", hint="ip link shows their names"
            ) from error


class SenderSocket:
    """Sends to a group, and hears what receivers answer."""

    def __init__(self, group: Group, source: str) -> None:
        """Bind to `source`, an address of the interface of `group`. Raises RefusedError or OSError."""
        self._group = group
        self._to = (group.address, group.port)
        family = socket.AF_INET6 if group.is_v6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._is_segmenting = True
        try:
            index = group.index()
            if group.is_v6:
                self._to = (group.address, group.port, 0, index)  # type: ignore[assignment]
                options = (
                    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index),
                    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, group.hops),
                    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0),
                    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _CLASS_LOWER_EFFORT),
                )
            else:
                mreqn = struct.pack("4s4si", bytes(4), socket.inet_aton(source), index)
                options = (
                    (socket.IPPROTO_IP, socket.IP_MULTICAST_IF, mreqn),  # type: ignore[assignment]
                    (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, group.hops),
                    (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0),
                    (socket.IPPROTO_IP, socket.IP_TOS, _CLASS_LOWER_EFFORT),
                )
            for level, option, value in options:
                self._socket.setsockopt(level, option, value)
            _size_buffer(self._socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            _size_buffer(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._socket.bind((source, 0, 0, index) if is_link_local(source) else (source, 0))
        except BaseException:
            self._socket.close()
            raise

    @property
    def address(self) -> Address:
        """Where receivers send their reports."""
        name = self._socket.getsockname()
        return name[0], name[1]

    @property
    def is_segmenting(self) -> bool:
        """Whether one system call sends many datagrams, as far as is known."""
        return self._is_segmenting

    def fileno(self) -> int:
        """Return the descriptor, to wait for reports."""
        return self._socket.fileno()

    def send(self, datagrams: Bytes, segment_bytes: int) -> None:
        """Send datagrams of `segment_bytes` each, the last may be shorter; waits while the send buffer is full.

        Raises OSError. A network that is down for a moment loses them, as it may at any time.
        """
        if len(datagrams) <= segment_bytes:
            self._send_one(datagrams)
            return
        if self._is_segmenting:
            try:
                control = [(_SOL_UDP, _UDP_SEGMENT, _SEGMENT.pack(segment_bytes))]
                self._socket.sendmsg([datagrams], control, 0, self._to)
                return
            except OSError as error:
                if error.errno not in _CANNOT_SEGMENT:
                    _unless_passing(error)
                    return
                self._is_segmenting = False
        view = memoryview(datagrams)
        for at in range(0, len(datagrams), segment_bytes):
            self._send_one(view[at : at + segment_bytes])

    def _send_one(self, datagram: Bytes) -> None:
        try:
            self._socket.sendto(datagram, self._to)
        except OSError as error:
            _unless_passing(error)

    def receive(self) -> bytes | None:
        """Return the next datagram that has arrived, None when there is none."""
        try:
            return self._socket.recv(_LARGEST_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            _unless_passing(error)
            return None

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class ReceiverSocket:
    """Hears a group, and answers its sender."""

    def __init__(self, group: Group) -> None:
        """Join the group. Raises RefusedError or OSError."""
        family = socket.AF_INET6 if group.is_v6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            index = self._index = group.index()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.buffer_bytes = _size_buffer(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            """What the kernel keeps while nobody reads, its own bookkeeping included."""
            try:
                self._socket.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            except OSError as error:
                if error.errno not in _CANNOT_SEGMENT:
                    raise
            # Bound to the group: the kernel hands us nothing that was sent to another address.
            if group.is_v6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
                self._socket.bind((group.address, group.port, 0, index))
                member = socket.inet_pton(socket.AF_INET6, group.address) + struct.pack("I", index)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
                self._socket.bind((group.address, group.port))
                member = struct.pack("4s4si", socket.inet_aton(group.address), bytes(4), index)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            self._answers = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, to wait for datagrams."""
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, int] | None:
        """Return datagrams that arrived in a row, and the size of each but the last; None when there are none."""
        try:
            data, control, _, _ = self._socket.recvmsg(_LARGEST_READ, socket.CMSG_SPACE(_INT.size), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        for level, kind, value in control:
            if level == _SOL_UDP and kind == _UDP_GRO:
                return data, _INT.unpack(value[: _INT.size])[0]
        return data, max(1, len(data))

    def answer(self, datagram: bytes, sender: Address) -> None:
        """Send a report to the sender; one that cannot be sent is lost, as on the wire.

        An address of one link (fe80::) is one of the link that the group is on.
        """
        try:
            self._answers.sendto(datagram, (*sender, 0, self._index) if is_link_local(sender[0]) else sender)
        except OSError as error:
            _unless_passing(error)

    def close(self) -> None:
        """Leave the group."""
        self._answers.close()
        self._socket.close()


_PASSING = (
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ECONNREFUSED,
    errno.ENOBUFS,
    errno.EAGAIN,
    errno.EPERM,  # a packet filter
)


def _unless_passing(error: OSError) -> None:
    """Raise what will not pass by itself: a cable that is out, a full queue and a lost packet are one to a session."""
    if error.errno not in _PASSING:
        raise error


def _size_buffer(opened: socket.socket, force: int, ask: int, wanted: int) -> int:
    """Make a buffer as big as wanted, or as big as who is not root may; return its size as the kernel counts."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, force, wanted)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, ask, wanted)
    return opened.getsockopt(socket.SOL_SOCKET, ask)


def is_link_local(address: str) -> bool:
    """Tell whether this is an IPv6 address that means something on one link alone."""
    return ":" in address and ipaddress.IPv6Address(address.partition("%")[0]).is_link_local
