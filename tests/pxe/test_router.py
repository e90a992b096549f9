"""The answer to IPv6 router solicitations."""

from __future__ import annotations

import pytest
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS

from cloner_pxe.router import advertisement, is_solicitation


def test_the_advertisement_names_no_router_no_prefix_and_no_dhcpv6() -> None:
    seen = ICMPv6ND_RA(advertisement())
    assert (seen.type, seen.code, seen.routerlifetime, seen.M, seen.O) == (134, 0, 0, 0, 0)
    assert not seen.payload


@pytest.mark.parametrize(
    ("message", "hop_limit", "is_one"),
    [
        pytest.param(bytes(ICMPv6ND_RS()), 255, True, id="solicitation"),
        pytest.param(bytes(ICMPv6ND_RS()), 64, False, id="from beyond a router"),
        pytest.param(bytes(ICMPv6ND_RA()), 255, False, id="advertisement"),
        pytest.param(b"\x85\0", 255, False, id="cut off"),
        pytest.param(b"", 255, False, id="empty"),
    ],
)
def test_only_solicitations_of_this_link_are_answered(message: bytes, hop_limit: int, is_one: bool) -> None:
    assert is_solicitation(message, hop_limit) == is_one
