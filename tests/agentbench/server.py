"""Stands in for the server in tests of the agent: the network is false, everything else is real."""

from __future__ import annotations

from collections.abc import Callable

from cloner_agent.protocol import ServerFault
from cloner_core.atrest import CaptureReply, LayoutFound, LayoutTold
from cloner_core.bundle import Bundle
from cloner_core.erasing.words import EraseReceiptBody, EraseReply
from cloner_core.errors import UnreachableError
from cloner_core.layout import Layout
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
from cloner_core.multicast.session import VERSIONS
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLater, SeatLeft, SeatRequest

SEAT = Seat(
    version=VERSIONS[0],
    stream=7,
    number=2,
    group_key=Secret("0a" * 16),
    own_key=Secret("0b" * 16),
    group="239.255.67.1",
    port=47001,
    sender="10.0.0.1",
    sender_port=5000,
    hops=1,
    block_bytes=1440,
    window_parcels=16,
)
"""A seat of a session over IPv4, for a node that is not the first."""


class FakeServer:
    """Answers from memory and remembers what it was told, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.beats: list[Beat] = []
        self.failures: list[Failure] = []
        self.bundles: list[Bundle] = []
        self.receipts: list[ReceiptBody] = []
        self.plans: list[PlanReport] = []
        self.reply = BeatReply()
        self.hello_reply: HelloReply | EraseReply | CaptureReply | None = None
        self.erased: list[EraseReceiptBody] = []
        self.layouts: list[LayoutFound] = []
        self.kept_layout: Layout | None = None
        self.keys: tuple[Secret, ...] = ()
        self.vault: Vaulted | None = None
        self.listed: ParcelList | None = None
        self.seats: list[Seat | SeatLater | NoSeat] = []  # answers, each once
        self.asked: list[SeatRequest] = []
        self.seats_left: list[SeatLeft] = []
        self.blobs: dict[str, bytes] = {}
        self.verifier: Callable[[str], None] = lambda _: None
        self.refuse: dict[str, Fault] = {}  # by name of the request
        self.is_away = False

    def _heard(self, what: str) -> None:
        if self.is_away:
            raise UnreachableError("nobody there")
        self.said.append(what)
        if what in self.refuse:
            raise ServerFault(409, self.refuse[what])

    def hello(self, hello: Hello) -> HelloReply | EraseReply | CaptureReply:
        self._heard("hello")
        assert self.hello_reply is not None
        return self.hello_reply

    def verify(self, version_digest: str) -> None:
        self._heard("verify")
        self.verifier(version_digest)

    def confirm_plan(self, report: PlanReport) -> None:
        self._heard("plan")
        self.plans.append(report)

    def vaulted(self) -> Vaulted:
        self._heard("identity")
        assert self.vault is not None
        return self.vault

    def layout(self, found: LayoutFound) -> LayoutTold:
        self._heard("layout")
        self.layouts.append(found)
        layout = found.layout or self.kept_layout
        assert layout is not None
        return LayoutTold(layout, 1 << 40)

    def disk_keys(self) -> tuple[Secret, ...]:
        self._heard("disk-keys")
        return self.keys

    def commit(self) -> None:
        self._heard("commit")

    def receipt(self, body: ReceiptBody | EraseReceiptBody) -> None:
        self._heard("receipt")
        if isinstance(body, EraseReceiptBody):
            self.erased.append(body)
        else:
            self.receipts.append(body)

    def fail(self, failure: Failure) -> None:
        self._heard("fail")
        self.failures.append(failure)

    def bundle(self, bundle: Bundle) -> None:
        self._heard("bundle")
        self.bundles.append(bundle)

    def rebooting(self) -> None:
        self._heard("rebooting")

    def beat(self, beat: Beat) -> BeatReply:
        self._heard("beat")
        self.beats.append(beat)
        return self.reply

    def root(self, version_digest: str) -> bytes:
        return self._blob(f"root {version_digest}")

    def segment(self, digest: str, limit_bytes: int) -> bytes:
        data = self._blob(f"segment {digest}")
        assert len(data) <= limit_bytes
        return data

    def pack_map(self, digest: str) -> bytes:
        return self._blob(f"map {digest}")

    def parcels(self, version_digest: str) -> ParcelList:
        self._heard("parcels")
        assert self.listed is not None
        return self.listed

    def seat(self, request: SeatRequest, *, patience_s: float | None = None) -> Seat | SeatLater | NoSeat:
        self._heard("seat")
        self.asked.append(request)
        return self.seats.pop(0)

    def seat_left(self, left: SeatLeft) -> None:
        self._heard("seat left")
        self.seats_left.append(left)

    def _blob(self, name: str) -> bytes:
        if name not in self.blobs:
            raise ServerFault(404, Fault(error=f"there is no {name}", status=3))
        return self.blobs[name]
