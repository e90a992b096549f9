"""What the deploy asks of a server, as a seam: `Server` over HTTPS on a node, an object in memory in tests.

Must not open connections.
"""

from __future__ import annotations

from typing import Protocol

from cloner_core.atrest import CaptureReply, LayoutFound, LayoutTold
from cloner_core.bundle import Bundle
from cloner_core.erasing.words import EraseReceiptBody, EraseReply
from cloner_core.errors import RefusedError
from cloner_core.messages import (
    Beat,
    BeatReply,
    Failure,
    Fault,
    Hello,
    HelloReply,
    PlanReport,
    ReceiptBody,
    Secret,
    Vaulted,
)
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLater, SeatLeft, SeatRequest


class ServerFault(RefusedError):
    """The server understood and said no; asking again would not help."""

    def __init__(self, http_status: int, fault: Fault) -> None:
        self.http_status = http_status
        self.fault = fault
        message = "\n  - ".join((fault.error, *fault.faults))
        super().__init__(message, hint=fault.hint)

    def __reduce__(self) -> tuple[type[ServerFault], tuple[int, Fault]]:
        return type(self), (self.http_status, self.fault)


class Interrupt(Protocol):
    """Called between tries of a request; raises to end the waiting."""

    def __call__(self) -> None:
        """Raise AbortError when the attempt is to end."""


class Server(Protocol):
    """The requests of one attempt, in the order of a deploy; each may be sent twice without harm.

    Every method raises ServerFault for a refusal and UnreachableError when patience ended.
    """

    def hello(self, hello: Hello) -> HelloReply | EraseReply | CaptureReply:
        """Exchange the claim for an attempt; later requests carry its credential."""

    def verify(self, version_digest: str) -> None:
        """Have the server assert that every pack of the version is present and whole (it re-hashes them)."""

    def confirm_plan(self, report: PlanReport) -> None:
        """Have the plan compared with the server's own."""

    def vaulted(self) -> Vaulted:
        """Take the secret half of the identity."""

    def layout(self, found: LayoutFound) -> LayoutTold:
        """Have the layout of a node that is captured compared with the one the server keeps, or kept."""

    def disk_keys(self) -> tuple[Secret, ...]:
        """Take what may open the encrypted disks of a node that is captured, the newest first; () none is kept."""

    def commit(self) -> None:
        """Ask to make the disk bootable."""

    def receipt(self, body: ReceiptBody | EraseReceiptBody) -> None:
        """Deliver the receipt; returns when it is stored and netboot is `local`."""

    def fail(self, failure: Failure) -> None:
        """Report the end of the attempt."""

    def bundle(self, bundle: Bundle) -> None:
        """Send what the machine looked like when the attempt failed."""

    def rebooting(self) -> None:
        """Say good-bye."""

    def beat(self, beat: Beat) -> BeatReply:
        """Send one heartbeat, without patience."""

    def root(self, version_digest: str) -> bytes:
        """Fetch the stored bytes of a tree root."""

    def segment(self, digest: str, limit_bytes: int) -> bytes:
        """Fetch one stored (compressed) tree segment."""

    def pack_map(self, digest: str) -> bytes:
        """Fetch the stored bytes of a pack map."""

    def parcels(self, version_digest: str) -> ParcelList:
        """Fetch the list of what a multicast session of the version sends."""

    def seat(self, request: SeatRequest, *, patience_s: float | None = None) -> Seat | SeatLater | NoSeat:
        """Ask for a seat in the session of the task."""

    def seat_left(self, left: SeatLeft) -> None:
        """Say that the node takes no more of its session."""
