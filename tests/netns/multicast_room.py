"""A room: a real server, machines that each have a link of their own, and sessions that are sent to them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from agentbench.ground import Ground
from agentbench.yard import End, Running
from netns.multicast_yard import Yard


@dataclass
class Room:
    """A server, machines that each have a link of their own, and the links."""

    made: Ground
    links: Yard

    @property
    def machines(self) -> list[Running]:
        return self.made.yard.machines

    def wait_called(self, count: int | None = None) -> None:
        """Boot machines, the first `count` or all, into waiting."""
        machines = self.machines[:count]
        names = [one.machine.name for one in machines]
        self.made.served.admin("POST", "/netboot", json={"nodes": names, "value": "cloner-multicast"})
        for one in machines:
            self.made.yard.switch_on(one)
        self.until(lambda: len(self.waiting()) == len(names), "they do not wait")

    def waiting(self) -> list[str]:
        found: list[dict[str, Any]] = self.made.served.admin("GET", "/multicast/waiting")
        return [one["node"] for one in found if one["since_s"] is not None]

    def begin(self, **words: Any) -> str:
        wanted = {"nodes": [one.machine.name for one in self.machines], "image": "golden"} | words
        return str(self.made.served.admin("POST", "/multicast/sessions", json=wanted)["id"])

    def session(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.made.served.admin("GET", f"/multicast/sessions/{name}")
        return found

    def until(self, is_so: Any, otherwise: str) -> None:
        ends_s = time.monotonic() + 90
        while not is_so():
            assert time.monotonic() < ends_s, (
                f"{otherwise}: {[one.console.read_text()[-300:] for one in self.machines]}"
            )
            self.made.yard.wait(0.1)

    def until_written(self, name: str) -> None:
        """Wait until each machine has written something of the session, which goes on."""
        self.until(lambda: all(seat["parcels"] for seat in self.session(name)["seats"]), "nothing is written")
        assert self.session(name)["state"] == "sending", "it was to be disturbed in the middle"

    def finish(self) -> list[str]:
        """Wait until all are clones; return what their receipts say of multicast."""
        self.made.yard.run(deadline_s=200)
        assert {one.end for one in self.machines} == {End.CLONE}
        tasks = [self.made.task(one) for one in self.machines]
        assert {task["state"] for task in tasks} == {"done"}
        receipts = [self.made.served.admin("GET", f"/receipts/{task['id']}") for task in tasks]
        notes = [note for receipt in receipts for note in receipt["receipt"]["body"]["notes"] if "multicast" in note]
        assert len(notes) == len(self.machines)
        return notes
