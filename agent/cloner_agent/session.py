"""The requests of one attempt over HTTPS: `Server` for a real node.

Must not interpret refusals; it fills in paths, credentials and bounds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.client import PATIENCE_S, Credentials, Endpoint, Transport
from cloner_agent.failures import StageError
from cloner_agent.protocol import Interrupt
from cloner_core.atrest import CaptureReply, DiskKeys, LayoutFound, LayoutTold
from cloner_core.bundle import Bundle
from cloner_core.decoding import UNREADABLE
from cloner_core.erasing.words import EraseReceipt, EraseReceiptBody, EraseReply
from cloner_core.errors import UnreachableError
from cloner_core.messages import (
    Beat,
    BeatReply,
    Cause,
    Failure,
    Granted,
    Hello,
    HelloReply,
    PlanReport,
    Receipt,
    ReceiptBody,
    Secret,
    Vaulted,
)
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLater, SeatLeft, SeatRequest

API = "/agent/v1"
T = TypeVar("T")
_REPLY: type[HelloReply | EraseReply | CaptureReply] = HelloReply | EraseReply | CaptureReply  # type: ignore[assignment]
_RECEIPT: type[Receipt | EraseReceipt] = Receipt | EraseReceipt  # type: ignore[assignment]
_SEAT: type[Seat | SeatLater | NoSeat] = Seat | SeatLater | NoSeat  # type: ignore[assignment]
_NO_ATTEMPT = "there is no attempt yet that this could be said of"
_ROOT_BYTES = 64 << 20
_MAP_BYTES = 256 << 20
_VERIFY_S = 1800.0  # the server re-hashes every pack it has not seen since it changed
_BEAT_S = 10.0
_BUNDLE_S = 10.0
_SEAT_S = 10.0


class HttpsServer:
    """Implements `cloner_agent.protocol.Server`."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: Ed25519PrivateKey,
        *,
        patience_s: float = PATIENCE_S,
        interrupt: Interrupt | None = None,
    ) -> None:
        self._key = key
        self._patience_s = patience_s
        self._interrupt = interrupt
        self._transport = Transport(endpoint, patience_s=patience_s, interrupt=interrupt)
        self._credentials: Credentials | None = None
        self._attempt = ""

    @property
    def endpoint(self) -> Endpoint:
        """Where requests go now."""
        return self._transport.endpoint

    @property
    def credential(self) -> Secret:
        """The bearer credential of the attempt; blobs want it alone."""
        return self._credentials.credential if self._credentials else Secret("")

    def interrupted_by(self, interrupt: Interrupt) -> None:
        """Have `interrupt` called while waiting for a server that is away."""
        self._interrupt = interrupt
        self._renew(self.endpoint)

    def trust_clock(self) -> None:
        """From now on check the dates of certificates too."""
        self._renew(replace(self.endpoint, is_time_checked=True))

    @property
    def attempt(self) -> tuple[Credentials, str]:
        """What the attempt proves itself with, and the path of its requests; raises UnreachableError before hello."""
        if self._credentials is None:
            raise UnreachableError(_NO_ATTEMPT)
        return self._credentials, self._attempt

    def hello(self, hello: Hello) -> HelloReply | EraseReply | CaptureReply:
        """Exchange the claim for an attempt. The server answers the same key's repeated hello alike."""
        answer = self._transport.request("POST", f"{API}/hello", msgspec.json.encode(hello))
        reply = self._decode(answer, _REPLY)
        self._credentials = Credentials(reply.credential, self._key)
        self._attempt = f"{API}/attempts/{reply.task.attempt_id}"
        return reply

    def verify(self, version_digest: str) -> None:
        """Have the server assert that every pack of the version is present and whole."""
        answer = self._get(f"{API}/versions/{version_digest}/verified", 1 << 20, read_s=_VERIFY_S)
        self._decode(answer, Granted)

    def confirm_plan(self, report: PlanReport) -> None:
        """Have the plan compared with the server's own."""
        self._decode(self._post("plan", report), Granted)

    def vaulted(self) -> Vaulted:
        """Take the secret half of the identity."""
        return self._decode(self._post("identity", {}), Vaulted)

    def layout(self, found: LayoutFound) -> LayoutTold:
        """Have the layout of a node that is captured compared with the one the server keeps, or kept."""
        return self._decode(self._post("layout", found), LayoutTold)

    def disk_keys(self) -> tuple[Secret, ...]:
        """Take what may open the encrypted disks of a node that is captured, the newest first."""
        return self._decode(self._post("disk-keys", {}), DiskKeys).keys

    def commit(self) -> None:
        """Ask to make the disk bootable."""
        self._decode(self._post("commit", {}), Granted)

    def receipt(self, body: ReceiptBody | EraseReceiptBody) -> None:
        """Deliver the receipt, however long the server is away: the disk is ready and only this is missing."""
        self._decode(self._post("receipt", body, patience_s=float("inf")), _RECEIPT)

    def fail(self, failure: Failure) -> None:
        """Report the end of the attempt."""
        self._decode(self._post("fail", failure), Granted)

    def bundle(self, bundle: Bundle) -> None:
        """Send what the machine looked like; with little patience, for a person may wait for the node."""
        self._post("bundle", bundle, patience_s=_BUNDLE_S)

    def rebooting(self) -> None:
        """Say good-bye; nobody waits for the answer."""
        self._post("rebooting", {}, patience_s=0)

    def beat(self, beat: Beat) -> BeatReply:
        """Send one heartbeat, without patience: the next one carries newer news."""
        return self._decode(self._post("beat", beat, patience_s=0, read_s=_BEAT_S), BeatReply)

    def root(self, version_digest: str) -> bytes:
        """Fetch the stored bytes of a tree root."""
        return self._get(f"{API}/versions/{version_digest}/root", _ROOT_BYTES)

    def segment(self, digest: str, limit_bytes: int) -> bytes:
        """Fetch one stored (compressed) tree segment."""
        return self._get(f"{API}/segments/{digest}", limit_bytes)

    def pack_map(self, digest: str) -> bytes:
        """Fetch the stored bytes of a pack map."""
        return self._get(f"{API}/packmaps/{digest}", _MAP_BYTES)

    def parcels(self, version_digest: str) -> ParcelList:
        """Fetch the list of what a multicast session of the version sends."""
        answer = self._get(f"{API}/versions/{version_digest}/parcels", _MAP_BYTES)
        return self._decode(answer, ParcelList)

    def seat(self, request: SeatRequest, *, patience_s: float | None = None) -> Seat | SeatLater | NoSeat:
        """Ask for a seat in the session of the task."""
        return self._decode(self._post("seat", request, patience_s=patience_s, read_s=_SEAT_S), _SEAT)

    def seat_left(self, left: SeatLeft) -> None:
        """Say that the node takes no more of its session; with little patience: the packs come anyway."""
        self._decode(self._post("seat/left", left, patience_s=_SEAT_S), Granted)

    def _renew(self, endpoint: Endpoint) -> None:
        self._transport.close()
        self._transport = Transport(endpoint, patience_s=self._patience_s, interrupt=self._interrupt)

    def _get(self, path: str, limit_bytes: int, read_s: float = 60.0) -> bytes:
        return self._transport.request(
            "GET", path, credentials=self._credentials, limit_bytes=limit_bytes, read_s=read_s
        )

    def _post(self, name: str, message: object, *, patience_s: float | None = None, read_s: float = 60.0) -> bytes:
        if self._credentials is None:
            raise UnreachableError(_NO_ATTEMPT)
        return self._transport.request(
            "POST",
            f"{self._attempt}/{name}",
            msgspec.json.encode(message),
            credentials=self._credentials,
            patience_s=patience_s,
            read_s=read_s,
        )

    def _decode(self, answer: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except UNREADABLE as error:
            what = getattr(kind, "__name__", "answer")  # the union of what a deploy and an erase are told has no name
            raise StageError(Cause.PROTOCOL, f"the server's {what} is not understood: {error}") from error
