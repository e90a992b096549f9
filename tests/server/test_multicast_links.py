"""Which link sessions go out on, how much of it is theirs, and which groups are free."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from cloner_core.errors import InvalidError, RefusedError
from cloner_server.config import ServerConfig, load_config
from cloner_server.multicast.links import choose_link, default_interface, pick_group, read_speed
from cloner_server.setup.link import Address, Link, parse_links

UP, NO_MULTICAST = "0x1003", "0x49"


def interface(name: str, *addresses: str) -> Link:
    held = tuple(Address(ipaddress.IPv4Interface(one), is_dynamic=False) for one in addresses if ":" not in one)
    held6 = tuple(ipaddress.IPv6Interface(one) for one in addresses if ":" in one)
    return Link(name, "02:00:00:00:00:01", is_up=True, has_carrier=True, addresses=held, addresses6=held6)


INTERFACES = {
    one.name: one
    for one in (
        interface("lo", "127.0.0.1/8"),
        interface("eth0", "192.0.2.5/24"),
        interface("eth1", "10.1.0.1/24", "10.2.0.1/16", "fd00:1::5/64", "fe80::5/64"),
        interface("eth2"),
    )
}


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    for name in INTERFACES:
        tell(tmp_path, name, "flags", NO_MULTICAST if name == "lo" else UP)
        tell(tmp_path, name, "speed", "10000")
    return tmp_path


def tell(sysfs: Path, name: str, what: str, content: str) -> None:
    path = sysfs / name / what
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("config", "default", "wanted"),
    [
        pytest.param({"interface": "eth1"}, "eth0", ("eth1", "10.1.0.1/24"), id="the interface that is configured"),
        pytest.param({"interface": "eth1", "address": "10.2.0.1"}, "", ("eth1", "10.2.0.1/16"), id="its address too"),
        pytest.param({"address": "10.2.0.1"}, "eth0", ("eth1", "10.2.0.1/16"), id="the one that has the address"),
        pytest.param({}, "eth0", ("eth0", "192.0.2.5/24"), id="the default route's"),
        pytest.param(
            {"interface": "eth0", "address": "203.0.113.9"}, "", ("eth0", "192.0.2.5/24"), id="an address of a NAT"
        ),
    ],
)
def test_the_link_is_that_of_the_settings(
    sysfs: Path, config: dict[str, Any], default: str, wanted: tuple[str, str]
) -> None:
    link = choose_link(ServerConfig(**config), INTERFACES, default, sysfs)
    assert (link.interface, str(link.address)) == wanted


@pytest.mark.parametrize(
    ("config", "default", "fault"),
    [
        ({}, "", "none is configured"),
        ({"interface": "eth9"}, "", "there is no network interface 'eth9'"),
        ({"interface": "eth2"}, "", "eth2 has no IPv4 address"),
        ({"interface": "lo"}, "", "lo carries no multicast"),
    ],
)
def test_what_cannot_carry_sessions_is_refused(sysfs: Path, config: dict[str, Any], default: str, fault: str) -> None:
    with pytest.raises(RefusedError, match=fault):
        choose_link(ServerConfig(**config), INTERFACES, default, sysfs)


def test_a_group_is_sent_to_from_an_address_of_its_family(sysfs: Path) -> None:
    link = choose_link(ServerConfig(interface="eth1"), INTERFACES, "", sysfs)
    assert (link.source("239.255.67.1"), link.source("ff15::1")) == ("10.1.0.1", "fd00:1::5")
    without = choose_link(ServerConfig(interface="eth0"), INTERFACES, "", sysfs)
    assert without.source("239.255.67.1") == "192.0.2.5"
    with pytest.raises(RefusedError, match="eth0 has no IPv6 address"):
        without.source("ff15::1")


def _told6(address: str, **more: object) -> dict[str, object]:
    return {"family": "inet6", "local": address, "prefixlen": 64, "scope": "global"} | more


def test_an_address_that_stays_is_chosen_and_that_of_the_network_first() -> None:
    told = [
        _told6("fe80::1", scope="link"),
        _told6("2001:db8::1", temporary=True),
        _told6("2001:db8::2", deprecated=True),
        _told6("2001:db8::3", tentative=True, dadfailed=True),
        _told6("fd00::4", dynamic=True),
    ]
    told.append({"family": "inet", "local": "192.0.2.1", "prefixlen": 24, "scope": "global"})
    [link] = parse_links(json.dumps([{"ifname": "eth0", "addr_info": told}]))
    assert [str(one) for one in link.addresses6] == ["fd00::4/64", "fe80::1/64"]
    assert [str(one.interface) for one in link.addresses] == ["192.0.2.1/24"]


@pytest.mark.parametrize(
    ("speed", "config", "speed_bps", "budget_bps", "is_guessed"),
    [
        ("10000", {}, 10e9, 7e9, False),
        ("10000", {"multicast_share": 0.25}, 10e9, 2.5e9, False),
        ("10000", {"multicast_mbps": 400.0}, 10e9, 4e8, False),
        ("-1", {}, 1e9, 0.7e9, True),
        ("-1", {"multicast_mbps": 2500.0}, 2.5e9, 2.5e9, False),
    ],
)
def test_sessions_share_a_part_of_the_link(
    sysfs: Path, speed: str, config: dict[str, Any], speed_bps: float, budget_bps: float, is_guessed: bool
) -> None:
    tell(sysfs, "eth0", "speed", speed)
    link = choose_link(ServerConfig(interface="eth0", **config), INTERFACES, "", sysfs)
    assert (link.speed_bps, link.budget_bps) == (speed_bps, budget_bps)
    assert bool(link.notes) == is_guessed


def test_a_bond_is_as_fast_as_its_slowest_member(sysfs: Path) -> None:
    tell(sysfs, "bond0", "speed", "20000")
    tell(sysfs, "bond0/bonding", "slaves", "eth0 eth1")
    assert read_speed(sysfs, "bond0") == 10e9
    tell(sysfs, "eth1", "speed", "1000")
    assert read_speed(sysfs, "bond0") == 1e9
    tell(sysfs, "eth0", "speed", "-1")
    tell(sysfs, "eth1", "speed", "-1")
    assert read_speed(sysfs, "bond0") is None


def test_a_link_that_is_down_has_no_speed(sysfs: Path) -> None:
    (sysfs / "eth0" / "speed").unlink()  # reading it fails with EINVAL, which cannot be had here
    assert read_speed(sysfs, "eth0") is None


def test_the_default_route_with_the_least_metric_counts() -> None:
    routes = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0102A8C0	0003	0	0	600	00000000	0	0	0
eth0	00000000	0100000A	0003	0	0	100	00000000	0	0	0
eth1	0000000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""
    assert default_interface(routes) == "eth0"
    assert default_interface("") == default_interface(routes.splitlines()[0]) == ""


def test_a_node_behind_a_router_is_not_reached(sysfs: Path) -> None:
    link = choose_link(ServerConfig(interface="eth0"), INTERFACES, "", sysfs)
    assert (link.reaches("192.0.2.200"), link.reaches("192.0.3.1")) == (True, False)


def test_no_two_sessions_have_a_group_or_a_port_in_common() -> None:
    taken: list[tuple[str, int]] = []
    for _ in range(300):
        taken.append(pick_group("239.255.67.0/24", 47000, taken))
    assert len({port for _, port in taken}) == 300
    assert len({group for group, _ in taken[:256]}) == 256  # then there are no more
    assert taken[0] == ("239.255.67.1", 47000)


def test_groups_of_ipv6_are_given_out_alike() -> None:
    taken: list[tuple[str, int]] = []
    for _ in range(300):
        taken.append(pick_group("ff15::c10e:0/112", 47000, taken))
    assert taken[0] == ("ff15::c10e:1", 47000)
    assert len({group for group, _ in taken}) == len({port for _, port in taken}) == 300


@pytest.mark.parametrize("groups", ["ff15::c10e:0/112", "ff12::/16", "ff18::/32", "ff1e::1/128"])
def test_a_network_of_groups_may_be_of_ipv6(tmp_path: Path, groups: str) -> None:
    assert load_config(tmp_path / "none", {"multicast_group": groups}).multicast_group == groups


def test_there_is_no_querier_for_groups_of_ipv6(tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load_config(tmp_path / "none", {"multicast_group": "ff15::/112", "multicast_querier": True})
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["multicast_querier"]


def test_what_an_ended_session_had_is_given_again() -> None:
    taken = [pick_group("239.255.67.0/24", 47000, [])]
    taken.append(pick_group("239.255.67.0/24", 47000, taken))
    assert pick_group("239.255.67.0/24", 47000, taken[1:]) == taken[0]


def test_one_group_is_shared_by_sessions_of_several_ports() -> None:
    assert pick_group("239.1.2.3/32", 5000, []) == ("239.1.2.3", 5000)
    assert pick_group("239.1.2.3/32", 5000, [("239.1.2.3", 5000)]) == ("239.1.2.3", 5001)


def test_the_last_port_is_the_end() -> None:
    with pytest.raises(RefusedError, match="is free: 1 are taken"):
        pick_group("239.1.2.3/32", 65535, [("239.1.2.3", 65535)])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("multicast_share", 0.0),
        ("multicast_share", 1.5),
        ("multicast_share", float("nan")),
        ("multicast_mbps", -1.0),
        ("multicast_mbps", float("inf")),
        ("multicast_port", 80),
        ("multicast_port", 65536),
        ("multicast_group", "239.255.67.1/24"),
        ("multicast_group", "10.0.0.0/8"),
        ("multicast_group", "192.0.0.0/2"),
        ("multicast_group", "224.0.0.0/24"),
        ("multicast_group", "224.0.0.0/8"),
        ("multicast_group", "ff00::/8"),
        ("multicast_group", "ff02::/112"),
        ("multicast_group", "ff05::/112"),
        ("multicast_group", "ff11::/112"),
        ("multicast_group", "ff1f::/112"),
        ("multicast_group", "ff15::1/112"),
        ("multicast_group", "fd00::/112"),
        ("multicast_group", ""),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, setting: str, value: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        load_config(tmp_path / "none", {setting: value})
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [setting]
