"""A relay that says what a test has it say, over the door of relays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from cloner_server.multicast.orders import ReceiverNews, SenderNews, SenderPhase
from cloner_server.relay.words import PROTOCOL, EpochNews, Fetching, RelayLink, RelayOrders, RelayTurn
from serverbench.scene import Scene

LINK = RelayLink("eth1", "10.88.0.1/24", 1e9, 7e8)


@dataclass
class PretendRelay:
    """Takes turns when it is told to; its senders have their sockets at once."""

    scene: Scene
    name: str = "rack3"
    token: str = ""
    boot: str = "first"
    number: int = 0
    link: RelayLink | None = LINK
    has: tuple[int, int] = (5, 5)  # packs of each map that is wanted
    lacks: tuple[str, ...] = ()  # images, as NAME:NUMBER, of which it has nothing
    fault: str = ""
    orders: RelayOrders | None = None
    news: dict[int, SenderNews] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    obeyed: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        answer = self.scene.admin("POST", "/tokens", {"relay": self.name})
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["token"]

    def restart(self, boot: str = "second") -> None:
        self.boot, self.number, self.orders = boot, 0, None
        self.news.clear()
        self.done.clear()

    def said(self, **changes: Any) -> RelayTurn:
        self.number += 1
        have, of = self.has
        wanted = self.orders.wanted if self.orders else ()
        turn = RelayTurn(
            protocol=PROTOCOL,
            version="0.1.0",
            boot=self.boot,
            number=self.number,
            seen=self.orders.state if self.orders else "",
            is_held=False,
            link=self.link,
            cache_limit_bytes=50 << 30,
            fetching=tuple(
                Fetching(one.pack_map, 0, of, False)
                if one.image in self.lacks
                else Fetching(one.pack_map, have, of, have == of and not self.fault, self.fault)
                for one in wanted
            ),
            epochs=tuple(EpochNews(stream, news, self.done[stream]) for stream, news in self.news.items()),
        )
        return msgspec.structs.replace(turn, **changes)

    def post(self, turn: RelayTurn) -> httpx.Response:
        return self.ask("POST", "turn", content=msgspec.json.encode(turn))

    def ask(self, method: str, path: str, token: str | None = None, **sent: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token if token is None else token}"}
        return self.scene.agents.request(method, f"/v1/relays/{self.name}/{path}", headers=headers, **sent)

    def turn(self, *, is_lost: bool = False) -> RelayOrders:
        """Take a turn; obey the answer, unless it is lost."""
        answer = self.post(self.said())
        assert answer.status_code == 200, answer.text
        orders = msgspec.json.decode(answer.content, type=RelayOrders)
        if not is_lost:
            self.obey(orders)
        return orders

    def obey(self, orders: RelayOrders) -> None:
        self.orders = orders
        told = {one.order.stream: one for one in orders.epochs}
        self.news = {stream: self.news.get(stream, _gathering()) for stream in told}
        self.done = {stream: self.done.get(stream, 0) for stream in told}
        for stream, one in told.items():
            for each in one.commands:
                if each.number > self.done[stream]:
                    self.done[stream] = each.number
                    self.obeyed.append((stream, each.command))

    def hear(self, *numbers: int, **news: Any) -> None:
        """Have the sender of the only epoch hear receivers."""
        [stream] = self.news
        heard = {one.number: one for one in self.news[stream].receivers}
        heard |= {number: ReceiverNews(number, 0.1, **news) for number in numbers}
        self.change(receivers=tuple(heard.values()))

    def change(self, **news: Any) -> None:
        """Change the news of the only epoch."""
        [stream] = self.news
        self.news[stream] = msgspec.structs.replace(self.news[stream], **news)


def _gathering() -> SenderNews:
    return SenderNews(phase=SenderPhase.GATHERING, address="10.88.0.1", port=41000)
