"""What is written for a network system is read by that system's own parser. Starts real programs."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloner_core.identity import ImageIdentity, NetworkSystem
from cloner_core.identity.systems import network_files
from cloner_core.identity.values import IdentityFile
from cloner_core.network import Bond, Interface, NodeNetwork, Route, Vlan, gateways, is_beyond, network_faults

pytestmark = pytest.mark.root
MACHINE_ID = "0123456789abcdef0123456789abcdef"
ADDRESSES = (
    (),
    ("10.1.0.11/24",),
    ("10.1.0.11/32",),
    ("2001:db8::b/64",),
    ("10.1.0.11/24", "10.1.0.12/24", "2001:db8::b/128"),
)
GATEWAYS = (
    ("", ""),
    ("10.1.0.1", ""),
    ("169.254.0.1", "fe80::1"),
    ("2001:db8:1::1", ""),
    ("10.2.0.1", "2001:db8::1"),
)
SERVERS = ((), ("10.9.0.2",), ("2001:db8::2",))
ROUTES = ((), (Route("10.8.0.0/16", "10.1.0.254", 50),), (Route("2001:db8:9::/48", "fe80::2"),))

# libnm is for the Python of the distribution; it loads GKeyFile and checks as the daemon does at each start.
LIBNM = """
import json, sys
import gi
gi.require_version("NM", "1.0")
from gi.repository import GLib, NM
faults = []
for path, text in json.load(sys.stdin):
    try:
        keys = GLib.KeyFile()
        keys.load_from_data(text, len(text.encode()), GLib.KeyFileFlags.NONE)
        warn = lambda _, connection, kind, handled, path: faults.append(f"{path}: warning") and False
        connection = NM.keyfile_read(keys, path.rpartition("/")[0], NM.KeyfileHandlerFlags.NONE, warn, path)
        connection.normalize()
        connection.verify()
        connection.verify_secrets()
    except GLib.Error as error:
        faults.append(f"{path}: {error.message}\\n{text}")
json.dump(faults, sys.stdout)
"""


def accepted() -> list[NodeNetwork]:
    """Return every network of a table that has no fault: one interface, and the same on a VLAN, a bond and above."""
    found: list[NodeNetwork] = []
    for dhcp, addresses, (gateway, gateway6), dns, routes, accept_ra, domains in itertools.product(
        (True, False), ADDRESSES, GATEWAYS, SERVERS, ROUTES, (True, False), ((), ("example.org",))
    ):
        values: dict[str, Any] = {"dhcp": dhcp, "addresses": addresses, "gateway": gateway, "gateway6": gateway6}
        values |= {"dns": dns} | {"routes": routes, "accept_ra": accept_ra, "domains": domains}
        mac = f"52:54:00:00:{len(found) >> 8:02x}:{len(found) & 255:02x}"
        kinds = (
            NodeNetwork("n", (Interface(mac, **values),)),
            NodeNetwork("n", (Interface(mac, **values),), (), (Vlan("v.7", 7, mac, mtu=1400),)),
            NodeNetwork("n", (), (Bond("b.0", (mac,), **values),), (Vlan("v.7", 7, "b.0"),)),
        )
        found += [network for network in kinds if not network_faults(network)]
    return found


def files_for(network: NodeNetwork, *systems: NetworkSystem) -> list[IdentityFile]:
    return network_files(network, ImageIdentity(network_systems=systems), MACHINE_ID)[1]


def test_libnm_takes_every_keyfile() -> None:
    texts = {}
    for network in accepted():
        for file in files_for(network, NetworkSystem.NETWORK_MANAGER):
            texts[file.content] = (file.path, file.content.decode())
    assert len(texts) > 300
    done = subprocess.run(
        ("/usr/bin/python3", "-I", "-c", LIBNM),
        input=json.dumps(list(texts.values())),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == []


# netplan(8) itself would also tell the running systemd
GENERATE = "/usr/libexec/netplan/generate"


@pytest.mark.parametrize(
    ("renderer", "on_link"),
    [(NetworkSystem.NETWORKD, "GatewayOnLink=true"), (NetworkSystem.NETWORK_MANAGER, "_options=onlink=true")],
)
def test_netplan_takes_its_document_and_keeps_what_is_on_the_link(
    tmp_path: Path, renderer: NetworkSystem, on_link: str
) -> None:
    links = [network.interfaces[0] for network in accepted() if network.interfaces and not network.vlans]
    (document,) = files_for(NodeNetwork("n", tuple(links)), NetworkSystem.NETPLAN, renderer)
    path = tmp_path / document.path.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(document.content)
    path.chmod(document.mode)
    done = subprocess.run((GENERATE, "--root-dir", str(tmp_path)), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = "".join(one.read_text() for one in tmp_path.joinpath("run").rglob("*") if one.is_file())
    beyond = [gateway for link in links for gateway in gateways(link) if gateway and is_beyond(link, gateway)]
    assert made.count(on_link) == len(beyond) > 10
