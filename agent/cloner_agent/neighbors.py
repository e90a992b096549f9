"""Listens for LLDP in the background: which switch port is at the other end of each cable.

Never waits and never stops anything: a machine that cannot listen (no AF_PACKET, no right) has no neighbors. Some
network cards answer LLDP in their firmware and pass none on; then there is nothing to hear.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Sequence

from cloner_core.facts import Nic
from cloner_core.lldp import ETHERTYPE, MAX_NEIGHBORS, NEAREST_BRIDGE, MalformedError, Neighbor, parse_lldpdu

log = logging.getLogger(__name__)

_SOL_PACKET, _ADD_MEMBERSHIP, _MULTICAST = 263, 1, 0  # include/uapi/linux/if_packet.h, SOL_PACKET of socket.h
_FRAME_BYTES = 2048
_FRAMES_A_LOOK = 64
_OUTGOING = 4  # PACKET_OUTGOING


class Neighbors:
    """The LLDP socket of this machine; open it before the heartbeat forks, ask it there."""

    def __init__(self, nics: Sequence[Nic], *, boot_mac: str = "") -> None:
        """Join the group on every interface of `nics`; that of `boot_mac` is told first."""
        self._macs = {nic.name: nic.mac for nic in nics}
        self._boot_mac = boot_mac
        self._heard: dict[str, Neighbor] = {}
        self.malformed = 0
        self._socket = _open(tuple(self._macs))

    def heard(self) -> tuple[Neighbor, ...]:
        """Return who was heard so far, one an interface, without waiting."""
        for _ in range(_FRAMES_A_LOOK if self._socket is not None else 0):
            try:
                payload, (interface, _, kind, *_) = self._socket.recvfrom(_FRAME_BYTES)  # type: ignore[union-attr]
            except OSError:  # nothing more; or the interface went down
                break
            if kind != _OUTGOING and interface in self._macs:
                self._take(interface, payload)
        first = sorted(self._heard.values(), key=lambda one: (one.mac != self._boot_mac, one.interface))
        return tuple(first[:MAX_NEIGHBORS])

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _take(self, interface: str, payload: bytes) -> None:
        try:
            neighbor = parse_lldpdu(payload, interface=interface, mac=self._macs[interface])
        except MalformedError:
            self.malformed += 1
            return
        if neighbor is None:
            self._heard.pop(interface, None)
        else:
            self._heard[interface] = neighbor


def _open(interfaces: Sequence[str]) -> socket.socket | None:
    opened = None
    try:
        # SOCK_DGRAM: the kernel takes the Ethernet header off.
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETHERTYPE))
        for name in interfaces:
            _join(opened, name)
    except OSError as error:
        log.debug("LLDP is not heard: %s", error)
        if opened is not None:
            opened.close()
        return None
    return opened


def _join(opened: socket.socket, interface: str) -> None:
    try:
        # struct packet_mreq: interface, type, length and address.
        number = socket.if_nametoindex(interface)
        wanted = struct.pack("=iHH8s", number, _MULTICAST, len(NEAREST_BRIDGE), NEAREST_BRIDGE)
        opened.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, wanted)
    except OSError as error:
        log.debug("%s: LLDP is not heard: %s", interface, error)
