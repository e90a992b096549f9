"""A switch's LLDP frames over a real link: heard without waiting, junk beside them counted, good-byes believed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from scapy.contrib.lldp import (
    LLDPDUChassisID,
    LLDPDUEndOfLLDPDU,
    LLDPDUPortDescription,
    LLDPDUPortID,
    LLDPDUSystemName,
    LLDPDUTimeToLive,
)
from scapy.layers.l2 import Ether

from cloner_agent.neighbors import Neighbors
from cloner_core.facts import Nic
from cloner_core.lldp import ETHERTYPE, Neighbor
from netns.netboot_lab import CLIENT_LINK, inside, lab_with_client

pytestmark = pytest.mark.netns
MAC, SWITCH_MAC = "52:54:00:12:34:56", "00:11:22:33:44:55"
PORT = "port0"  # the other end of the client's link


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, Neighbors]]:
    with lab_with_client() as (lab, client):
        with inside(lab.name):
            switch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            switch.bind((PORT, 0))
        with inside(client.name):
            nics = (Nic(name="gone0", mac="52:54:00:00:00:99"), Nic(name=CLIENT_LINK, mac=MAC))
            neighbors = Neighbors(nics, boot_mac=MAC)
        with switch:
            yield switch, neighbors
        neighbors.close()


def frame(name: str, *, life_s: int = 120) -> bytes:
    told = (
        LLDPDUChassisID(subtype=4, id=SWITCH_MAC)
        / LLDPDUPortID(subtype=5, id="Ethernet1/12")
        / LLDPDUTimeToLive(ttl=life_s)
        / LLDPDUPortDescription(description="to rack 12")
        / LLDPDUSystemName(system_name=name)
        / LLDPDUEndOfLLDPDU()
    )
    return bytes(Ether(src=SWITCH_MAC, dst="01:80:c2:00:00:0e", type=ETHERTYPE) / told)


def heard(neighbors: Neighbors, is_enough: Callable[[tuple[Neighbor, ...]], bool]) -> tuple[Neighbor, ...]:
    end = time.monotonic() + 10
    while not is_enough(found := neighbors.heard()):
        assert time.monotonic() < end, f"heard {found}"
        time.sleep(0.02)
    return found


def test_a_switch_is_heard_by_its_name_and_port(link: tuple[socket.socket, Neighbors]) -> None:
    switch, neighbors = link
    assert neighbors.heard() == ()
    switch.send(bytes(Ether(src=SWITCH_MAC, dst="01:80:c2:00:00:0e", type=ETHERTYPE) / (b"\2\7\4" + b"\xff" * 40)))
    switch.send(frame("sw-r12"))
    expected = Neighbor(CLIENT_LINK, MAC, "sw-r12", SWITCH_MAC, "Ethernet1/12", "to rack 12")
    assert heard(neighbors, bool) == (expected,)
    assert neighbors.malformed == 1
    switch.send(frame("sw-r13"))
    assert heard(neighbors, lambda found: found[0].switch == "sw-r13")
    switch.send(frame("sw-r13", life_s=0))
    assert heard(neighbors, lambda found: not found) == ()


def test_a_flood_of_frames_costs_one_look_a_bounded_time(link: tuple[socket.socket, Neighbors]) -> None:
    switch, neighbors = link
    for number in range(500):
        switch.send(frame(f"sw{number}"))
    assert [one.switch for one in neighbors.heard()] == ["sw63"]
