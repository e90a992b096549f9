"""The same network for four systems: matched by MAC, the golden node's gone, the right one chosen from files."""

from __future__ import annotations

import configparser
from collections.abc import Callable

import msgspec
import pytest
import yaml

from agentbench.networks import MACS, NETWORK
from cloner_core.identity import ImageIdentity, NetworkSystem, systems_of
from cloner_core.identity.systems import network_files
from cloner_core.network import Bond, Interface, NodeNetwork, Route

MACHINE_ID = "0123456789abcdef0123456789abcdef"


def written(*systems: NetworkSystem, has_resolvconf: bool = True) -> dict[str, str]:
    image = ImageIdentity(network_systems=systems, has_resolvconf=has_resolvconf)
    _, files, _ = network_files(NETWORK, image, MACHINE_ID)
    assert len({file.path for file in files}) == len(files)
    return {file.path: file.content.decode() for file in files}


def test_networkd_finds_vlans_and_bonds_before_the_interfaces_whose_mac_they_share() -> None:
    files = written(NetworkSystem.NETWORKD)
    names = sorted(path.rpartition("/")[2] for path in files)
    first = [name for name in names if name.endswith(".network")]
    assert first[:3] == ["04-cloner-bond0.network", "04-cloner-lab.network", "04-cloner-storage.network"]
    folder = "/etc/systemd/network"
    assert "Kind=bond" in files[f"{folder}/04-cloner-bond0.netdev"]
    assert "Mode=802.3ad" in files[f"{folder}/04-cloner-bond0.netdev"]
    assert "VLAN=storage" in files[f"{folder}/04-cloner-bond0.network"]
    assert (
        "PermanentMACAddress=52:54:00:00:00:04\n\n[Network]\nBond=bond0" in files[f"{folder}/05-cloner-bond0-1.network"]
    )
    assert "Kind=vlan\n\n[VLAN]\nId=7" in files[f"{folder}/04-cloner-storage.netdev"]
    static = files[f"{folder}/05-cloner-0.network"].splitlines()
    for line in ("MTUBytes=9000", "Gateway=10.1.0.1", "Gateway=2001:db8::1", "IPv6AcceptRA=no", "VLAN=lab"):
        assert line in static
    first_route = static.index("[Route]")
    assert static[first_route:] == [
        *("[Route]", "Destination=10.9.0.0/16", "Gateway=10.1.0.254", "Metric=50", ""),
        *("[Route]", "Destination=2001:db8:9::/48", "Gateway=2001:db8::254"),
    ]


def test_a_keyfile_holds_each_family_apart_and_hangs_vlans_on_the_connection_of_a_mac() -> None:
    files = written(NetworkSystem.NETWORK_MANAGER)
    parsed = {}
    for path, content in files.items():
        parser = configparser.ConfigParser(delimiters=("=",))
        parser.read_string(content)
        parsed[path.rpartition("/")[2].removesuffix(".nmconnection")] = parser
    static = parsed["cloner-0"]
    assert static["ethernet"]["mac-address"] == MACS[0]
    assert static["ipv4"]["method"] == "manual"
    assert (static["ipv4"]["address1"], static["ipv4"]["address2"]) == ("10.1.0.11/24", "10.1.0.12/24")
    assert (static["ipv4"]["gateway"], static["ipv6"]["gateway"]) == ("10.1.0.1", "2001:db8::1")
    assert (static["ipv4"]["dns"], static["ipv6"]["dns"]) == ("10.1.0.2;", "2001:db8::2;")
    assert static["ipv4"]["route1"] == "10.9.0.0/16,10.1.0.254,50"
    assert static["ipv6"]["route1"] == "2001:db8:9::/48,2001:db8::254"
    assert static["ipv6"]["method"] == "manual"
    assert (parsed["cloner-1"]["ipv4"]["method"], parsed["cloner-1"]["ipv6"]["method"]) == ("auto", "auto")
    assert parsed["cloner-lab"]["vlan"]["parent"] == static["connection"]["uuid"]
    assert parsed["cloner-storage"]["vlan"]["parent"] == "bond0"
    assert parsed["cloner-bond0-0"]["connection"]["master"] == "bond0"
    assert parsed["cloner-bond0"]["ipv4"]["method"] == "disabled"
    assert len({parser["connection"]["uuid"] for parser in parsed.values()}) == len(parsed)


def keyfile(link: Interface) -> configparser.ConfigParser:
    image = ImageIdentity(network_systems=(NetworkSystem.NETWORK_MANAGER,))
    (file,) = network_files(NodeNetwork("n", (link,)), image, MACHINE_ID)[1]
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(file.content.decode())
    return parser


def test_a_gateway_beside_dhcp_is_a_route_before_the_one_dhcp_gives() -> None:
    """libnm: "gateway cannot be set if there are no addresses configured"; test_identity_network_readers asks it."""
    routes = (Route("10.9.0.0/16", "10.1.0.254"),)
    ipv4 = keyfile(Interface(MACS[0], gateway="10.1.0.1", routes=routes))["ipv4"]
    assert "gateway" not in ipv4
    assert (ipv4["route1"], ipv4["route2"]) == ("0.0.0.0/0,10.1.0.1,50", "10.9.0.0/16,10.1.0.254")
    link = Interface(MACS[0], dhcp=False, addresses=("10.1.0.11/24",), gateway6="fe80::1", accept_ra=False)
    assert dict(keyfile(link)["ipv6"]) == {"method": "link-local", "route1": "::/0,fe80::1"}


def test_a_family_that_is_off_has_neither_name_servers_nor_search_domains() -> None:
    """libnm: "this property is not allowed for 'method=disabled'"."""
    link = Interface(MACS[0], dhcp=False, addresses=("10.1.0.11/24",), dns=("10.1.0.2",), domains=("example.org",))
    parser = keyfile(msgspec.structs.replace(link, accept_ra=False))
    assert (parser["ipv4"]["dns"], parser["ipv4"]["dns-search"]) == ("10.1.0.2;", "example.org;")
    assert dict(parser["ipv6"]) == {"method": "link-local"}
    link = Interface(MACS[0], dhcp=False, addresses=("2001:db8::b/64",), domains=("example.org",))
    parser = keyfile(link)
    assert dict(parser["ipv4"]) == {"method": "disabled"}
    assert parser["ipv6"]["dns-search"] == "example.org;"


def test_keyfiles_are_for_root_alone_and_their_uuids_are_the_nodes_own() -> None:
    image = ImageIdentity(network_systems=(NetworkSystem.NETWORK_MANAGER,))
    removals, files, _ = network_files(NETWORK, image, MACHINE_ID)
    assert {file.mode for file in files} == {0o600}
    assert "/etc/NetworkManager/system-connections/*" in {removal.path for removal in removals}
    _, others, _ = network_files(NETWORK, image, "f" * 32)
    assert all(one.content != other.content for one, other in zip(files, others, strict=True))


def test_ifupdown_gets_links_named_by_mac() -> None:
    files = written(NetworkSystem.IFUPDOWN)
    link = files["/etc/systemd/network/05-cloner-cloner0.link"]
    assert f"MACAddress={MACS[0]}\nType=ether\n" in link
    assert "Name=cloner0" in link
    stanzas = files["/etc/network/interfaces"].split("\n\n")
    assert stanzas[0].endswith("auto lo\niface lo inet loopback")
    first = stanzas[1].splitlines()
    assert first[:4] == [
        "auto cloner0",
        "iface cloner0 inet static",
        "    address 10.1.0.11/24",
        "    gateway 10.1.0.1",
    ]
    assert "    up ip route add 10.9.0.0/16 via 10.1.0.254 dev $IFACE metric 50" in first
    assert "    up ip addr add 10.1.0.12/24 dev $IFACE" in first
    assert stanzas[2].splitlines()[:3] == [
        "iface cloner0 inet6 static",
        "    address 2001:db8::b/64",
        "    gateway 2001:db8::1",
    ]
    text = files["/etc/network/interfaces"]
    assert "bond-slaves cloner2 cloner3\n    bond-mode 802.3ad" in text
    assert "vlan-raw-device bond0\n    vlan-id 7" in text
    assert "vlan-raw-device cloner0\n    vlan-id 8" in text


def ifupdown_of(bond: Bond) -> dict[str, list[str]]:
    """Return the lines of each family of `bond`."""
    image = ImageIdentity(network_systems=(NetworkSystem.IFUPDOWN,))
    _, files, _ = network_files(NodeNetwork("n", bonds=(bond,)), image, MACHINE_ID)
    (text,) = (file.content.decode() for file in files if file.path == "/etc/network/interfaces")
    stanzas = [stanza.splitlines() for stanza in text.split("\n\n")[1:]]
    heads = [next(line for line in lines if line.startswith("iface")) for lines in stanzas]
    return {
        head.partition(" inet")[2]: [line.strip() for line in lines] for head, lines in zip(heads, stanzas, strict=True)
    }


def test_ifupdown_sets_accept_ra_of_a_name_with_a_dot() -> None:
    """sysctl(8) takes dots for its separators where the first separator is one, and wants slashes for such names."""
    stanzas = ifupdown_of(Bond("bond0.7", MACS[2:], accept_ra=False))
    assert "pre-up sysctl -qw net/ipv6/conf/$IFACE/accept_ra=0" in stanzas["6 manual"]


def test_ifupdown_adds_routes_when_their_family_has_its_address() -> None:
    routes = (Route("10.9.0.0/16", "10.1.0.254"), Route("2001:db8:9::/48", "2001:db8::254", 7))
    bond = Bond("b0", MACS[2:], dhcp=False, addresses=("10.1.0.11/24", "2001:db8::b/64"), routes=routes)
    stanzas = ifupdown_of(bond)
    assert [line for line in stanzas[" static"] if "ip route" in line] == [
        "up ip route add 10.9.0.0/16 via 10.1.0.254 dev $IFACE"
    ]
    assert stanzas["6 static"][-1] == "up ip route add 2001:db8:9::/48 via 2001:db8::254 dev $IFACE metric 7"


def test_ifupdown_takes_a_gateway_beside_dhcp_and_one_of_ipv6_without_an_address() -> None:
    stanzas = ifupdown_of(Bond("b0", MACS[2:], gateway="10.1.0.1", gateway6="fe80::1"))
    assert "up ip route replace default via 10.1.0.1 dev $IFACE" in stanzas[" dhcp"]
    assert "up ip -6 route replace default via fe80::1 dev $IFACE" in stanzas["6 auto"]
    static = Bond("b0", MACS[2:], dhcp=False, addresses=("10.1.0.11/24",), gateway="10.1.0.1", gateway6="fe80::1")
    assert ifupdown_of(static)["6 manual"][-1] == "up ip -6 route replace default via fe80::1 dev $IFACE"


def test_resolv_conf_is_written_only_where_nothing_else_would() -> None:
    static = NodeNetwork("n", (NETWORK.interfaces[0],))
    for has_resolvconf, network, wanted in ((False, static, True), (True, static, False), (False, NETWORK, False)):
        image = ImageIdentity(network_systems=(NetworkSystem.IFUPDOWN,), has_resolvconf=has_resolvconf)
        _, files, _ = network_files(network, image, MACHINE_ID)
        found = [file.content for file in files if file.path == "/etc/resolv.conf"]
        assert bool(found) == wanted
        assert not wanted or b"search example.org\nnameserver 10.1.0.2\nnameserver 2001:db8::2\n" in found[0]


def test_netplan_gets_one_document_that_yaml_reads() -> None:
    (content,) = written(NetworkSystem.NETPLAN, NetworkSystem.NETWORKD).values()
    document = yaml.safe_load(content)["network"]
    assert (document["version"], document["renderer"]) == (2, "networkd")
    static = document["ethernets"]["cloner0"]
    assert static["match"] == {"macaddress": MACS[0]}
    assert static["addresses"] == list(NETWORK.interfaces[0].addresses)
    assert {"to": "0.0.0.0/0", "via": "10.1.0.1"} in static["routes"]
    assert {"to": "10.9.0.0/16", "via": "10.1.0.254", "metric": 50} in static["routes"]
    assert document["ethernets"]["cloner1"]["dhcp-identifier"] == "mac"
    assert document["bonds"]["bond0"]["interfaces"] == ["cloner2", "cloner3"]
    assert {name: vlan["link"] for name, vlan in document["vlans"].items()} == {"storage": "bond0", "lab": "cloner0"}
    (desktop,) = written(NetworkSystem.NETPLAN, NetworkSystem.NETWORK_MANAGER).values()
    assert yaml.safe_load(desktop)["network"]["renderer"] == "NetworkManager"


BEYOND = NodeNetwork(
    "n",
    (
        Interface(
            MACS[0],
            dhcp=False,
            addresses=("10.1.0.11/32", "2001:db8::b/128"),
            gateway="10.2.0.1",
            gateway6="2001:db8:1::1",
        ),
    ),
)


@pytest.mark.parametrize(
    ("system", "wanted"),
    [
        (
            NetworkSystem.NETWORKD,
            "\n[Route]\nGateway=10.2.0.1\nGatewayOnLink=yes\n\n[Route]\nGateway=2001:db8:1::1\nGatewayOnLink=yes\n",
        ),
        (NetworkSystem.NETPLAN, '"via": "2001:db8:1::1",\n            "on-link": true'),
        # these two see to it themselves: ifupdown's inet.defn says onlink, NetworkManager adds a route to the gateway
        (NetworkSystem.IFUPDOWN, "    gateway 2001:db8:1::1\n"),
        (NetworkSystem.NETWORK_MANAGER, "gateway=2001:db8:1::1\n"),
    ],
)
def test_a_gateway_outside_of_a_prefix_of_one_host_is_said_to_be_on_the_link(
    system: NetworkSystem, wanted: str
) -> None:
    _, files, _ = network_files(BEYOND, ImageIdentity(network_systems=(system,)), MACHINE_ID)
    assert wanted in files[-1].content.decode()
    assert system is not NetworkSystem.NETWORKD or b"DHCP=no\nAddress=10.1.0.11/32\nAddress=2001:db8::b/128\n\n" in (
        files[-1].content
    )


@pytest.mark.parametrize("system", list(NetworkSystem))
def test_every_mac_and_every_address_is_in_the_files_of_every_system(system: NetworkSystem) -> None:
    text = "".join(written(system).values()).lower()
    addresses = [address for link in (*NETWORK.interfaces, *NETWORK.vlans) for address in link.addresses]
    for wanted in (*MACS, *addresses, "bond0", "storage", "lab"):
        assert wanted in text


def having(*paths: str) -> Callable[[str], bool]:
    return lambda path: path in paths


WANTS = "etc/systemd/system/multi-user.target.wants"


@pytest.mark.parametrize(
    ("paths", "systems"),
    [
        ((), ()),
        ((f"{WANTS}/systemd-networkd.service", "sbin/ifup"), (NetworkSystem.NETWORKD, NetworkSystem.IFUPDOWN)),
        (("sbin/ifup",), (NetworkSystem.IFUPDOWN,)),
        ((f"{WANTS}/NetworkManager.service",), (NetworkSystem.NETWORK_MANAGER,)),
        (
            ("usr/sbin/netplan", f"{WANTS}/systemd-networkd.service"),
            (NetworkSystem.NETPLAN, NetworkSystem.NETWORKD),
        ),
    ],
)
def test_the_systems_are_told_from_files(paths: tuple[str, ...], systems: tuple[NetworkSystem, ...]) -> None:
    assert systems_of(having(*paths)) == systems


def test_an_image_without_a_known_system_and_one_with_two_are_noted() -> None:
    for systems, word in (((), "no network service"), ((NetworkSystem.NETWORKD, NetworkSystem.IFUPDOWN), "ifupdown")):
        _, files, notes = network_files(NETWORK, ImageIdentity(network_systems=systems), MACHINE_ID)
        assert word in notes[0]
        assert all("/systemd/network/" in file.path for file in files)


@pytest.mark.parametrize("system", list(NetworkSystem))
def test_a_node_without_interfaces_leaves_the_network_of_the_image_alone(system: NetworkSystem) -> None:
    bare = msgspec.structs.replace(NETWORK, interfaces=(), bonds=(), vlans=())
    removals, files, notes = network_files(bare, ImageIdentity(network_systems=(system,)), MACHINE_ID)
    assert (removals, files, len(notes)) == ([], [], 1)
