"""What netboot tells the timeline of a machine: one typed event per thing that happened on the wire.

No clock here: whoever receives an event stamps it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec


class EventKind(StrEnum):
    OFFER = "dhcp-offer"
    ACK = "dhcp-ack"
    NAK = "dhcp-nak"
    RELEASE = "dhcp-release"
    DECLINE = "dhcp-decline"
    POOL_EMPTY = "dhcp-pool-empty"
    OTHER_DHCP = "other-dhcp"
    TFTP_START = "tftp-start"
    TFTP_DONE = "tftp-done"
    TFTP_FAILED = "tftp-failed"
    SCRIPT = "script-served"
    RELAY = "dhcp-relay"  # `address` is that of the relay; "" when the machine is on our own network
    ALARM = "alarm"


class Asker(StrEnum):
    """Who asked for an address; a system is whatever is no boot client."""

    FIRMWARE = "firmware"
    IPXE = "ipxe"
    SYSTEM = "system"


class NetbootEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a machine's timeline."""

    kind: EventKind
    text: str
    mac: str = ""  # "" where the route does not tell (TFTP)
    address: str = ""  # IP address of the machine; "" before it has one
    asker: Asker | None = None  # None but for offers and acknowledgements


EventSink = Callable[[NetbootEvent], None]
