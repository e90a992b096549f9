"""The wires that sessions are sent over, the server's own and those of relays, as the desk of sessions needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cloner_core.multicast.session import Leaving
from cloner_core.seats import ParcelList
from cloner_server.multicast.orders import EpochOrder, InStore, SenderNews, SenderOrder, sender_order
from cloner_server.tasks.multicasting import Wire


class Sender(Protocol):
    """What is needed of `cloner_server.multicast.supervisor.Running`, and of a sender that runs on a relay."""

    @property
    def order(self) -> EpochOrder:
        """What it was started with."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Where receivers report to; None until it has its socket."""

    def news(self) -> SenderNews:
        """Return what was heard last."""

    def admit(self, number: int) -> None:
        """Have a receiver served."""

    def begin(self) -> None:
        """Have the data sent."""

    def dismiss(self, number: int, reason: Leaving) -> None:
        """Have a receiver served no more, and told so."""

    def settle(self, number: int) -> None:
        """Have it known that a receiver needs nothing more."""

    def stop(self) -> None:
        """Have it say that the session is over, and end."""


class Outlet(Protocol):
    """A wire that sessions are sent over."""

    def wire(self) -> Wire:
        """Return it as it is now; raises RefusedError when there is none."""

    def waits_for(self, pack_map: bytes) -> str:
        """Return what has to come before a sender of this map can be started, for people; "" it can.

        Raises ClonerError when it cannot.
        """

    def lost(self) -> str:
        """Return why nobody should wait for this wire any longer; "" while there is hope."""

    def require_room(self) -> None:
        """Raise the ConflictError or RefusedError of a sender that cannot be started now."""

    def start(self, order: EpochOrder, parcels: ParcelList) -> Sender:
        """Start the sender of an epoch. Raises what `require_room` does."""


@dataclass(frozen=True, slots=True)
class OwnOutlet:
    """The wire of this server: its senders read its store."""

    find: Callable[[], Wire]
    launch: Callable[[SenderOrder], Sender]
    check_room: Callable[[], None]  # raises what `launch` would
    store: str  # its directory

    def wire(self) -> Wire:
        """See `Outlet`."""
        return self.find()

    def waits_for(self, pack_map: bytes) -> str:
        """Return "": everything is here."""
        return ""

    def lost(self) -> str:
        """Return "": an interface that is gone may come back."""
        return ""

    def require_room(self) -> None:
        """See `Outlet`."""
        self.check_room()

    def start(self, order: EpochOrder, parcels: ParcelList) -> Sender:
        """See `Outlet`."""
        link, origin = self.find().link, InStore(self.store)
        told = sender_order(
            order, parcels=parcels, origin=origin, interface=link.interface, source=link.source(order.group)
        )
        return self.launch(told)
