"""A crowd is let in a few at a time, in its order; nobody is lost, and nobody who hangs keeps the others out."""

from __future__ import annotations

import asyncio

import pytest

from cloner_server.admission import Admission

PLACES = 3
CROWD = 50


class Room:
    """Who is in, and who was."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.inside = self.most = 0
        self.order: list[int] = []

    async def visit(self, number: int) -> None:
        async with self.admission.place():
            self.order.append(number)
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0)
            self.inside -= 1

    async def crowd(self) -> None:
        await asyncio.gather(*(self.visit(number) for number in range(CROWD)))


def test_a_crowd_comes_in_by_the_places_there_are_in_its_order() -> None:
    async def run() -> None:
        room = Room(Admission(PLACES, lease_s=3600))
        await room.crowd()
        assert room.order == list(range(CROWD))
        assert room.most == PLACES

    asyncio.run(run())


def test_those_who_hang_keep_nobody_out_and_free_no_place_twice() -> None:
    async def run() -> None:
        admission = Admission(PLACES, lease_s=0.01)
        wakes = asyncio.Event()

        async def hang() -> None:
            async with admission.place():
                await wakes.wait()

        hanging = [asyncio.create_task(hang()) for _ in range(PLACES)]
        await asyncio.sleep(0)
        await asyncio.wait_for(Room(admission).crowd(), 60)
        wakes.set()
        await asyncio.gather(*hanging)
        admission.lease_s = 3600
        room = Room(admission)
        await room.crowd()
        assert room.most == PLACES

    asyncio.run(run())


def test_an_answer_that_breaks_off_frees_its_place() -> None:
    async def run() -> None:
        admission = Admission(1, lease_s=3600)
        for _ in range(3):
            with pytest.raises(ConnectionError):
                async with admission.place():
                    raise ConnectionError
        await asyncio.wait_for(Room(admission).crowd(), 60)

    asyncio.run(run())
