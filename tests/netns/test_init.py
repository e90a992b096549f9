"""`cloner init` on a real interface: alone, beside another DHCP server, with what stands in its way."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.netboot_lab import CLIENT_LINK, NetbootLab, lab_with_client
from netns.page_reader import INSTALL, INTERFACE, Reader
from vmlab.lab import SERVER_ADDRESS, Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

INIT = f"cloner init --interface {INTERFACE}"
WRITTEN = ("/etc/cloner/server.toml", "/etc/systemd/system/cloner.service", "/var/lib/cloner/site/ca.pem")


@pytest.fixture
def seat() -> Iterator[tuple[Reader, Lab]]:
    with lab_with_client() as (lab, client):
        reader = Reader(lab, Path("/nonexistent"))
        reader.sit_down()
        reader.type(INSTALL)
        yield reader, client


def there(reader: Reader) -> list[str]:
    return [path for path in WRITTEN if reader.attempt(f"test -e {path}").returncode == 0]


def refused(reader: Reader, command: str, status: int, *told: str) -> str:
    done = reader.attempt(command)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert [words for words in told if words not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_alone_it_gives_out_addresses_and_the_unit_it_wrote_serves(seat: tuple[Reader, Lab]) -> None:
    reader, _ = seat
    shown = reader.type(f"{INIT} --dry-run")
    assert re.search(r"^dhcp +10\.77\.0\.100-10\.77\.0\.199$", shown, re.M)
    assert there(reader) == []
    made = json.loads(reader.type(f"{INIT} --json"))
    assert [change["action"] for change in made["changes"]] == ["made", "made"]
    assert (made["address"], made["makes_keys"], there(reader)) == (f"{SERVER_ADDRESS}/24", True, list(WRITTEN))
    assert "CLONER READY" in reader.start_unit("systemctl enable --now cloner")
    assert f"dhcp 10.77.0.100-10.77.0.199 on {INTERFACE}" in reader.type("cloner status")
    # With the server running its own ports and its own DHCP stand in nobody's way, and nothing is to be done.
    again = json.loads(reader.type(f"{INIT} --json"))
    assert [change["action"] for change in again["changes"]] == ["unchanged", "unchanged"]
    assert any("a server runs" in finding["what"] for finding in again["findings"])
    reader.stop()
    changed = reader.type("cloner init --dhcp 10.77.0.50-10.77.0.60 --http-port 8081")
    assert '-dhcp = "10.77.0.100-10.77.0.199"' in changed
    assert "+http_port = 8081" in changed
    assert "replaced" in changed


def test_beside_another_dhcp_server_it_only_adds_boot_information(seat: tuple[Reader, Lab]) -> None:
    reader, client = seat
    client.run(["ip", "address", "add", "10.77.0.8/24", "dev", CLIENT_LINK])
    with NetbootLab(client, interface=CLIENT_LINK, address="10.77.0.8"):
        refused(reader, f"{INIT} --dhcp 10.77.0.100-10.77.0.120", 4, "10.77.0.8", "--dhcp proxy")
        assert there(reader) == []
        assert re.search(r"^dhcp +proxy$", reader.type(INIT), re.M)
    assert "proxy" in reader.type("cat /etc/cloner/server.toml")


def test_what_stands_in_the_way_is_told_at_once_and_nothing_is_changed(seat: tuple[Reader, Lab]) -> None:
    reader, _ = seat
    holding = "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 69));"
    holding += "t = socket.create_server(('', 8443)); print('held', flush=True); time.sleep(600)"
    reader.lab.popen(["python3", "-c", holding], log_name="holder")
    log = reader.lab.evidence.path("holder.log")
    reader.type(
        "nft 'add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }'"
    )
    reader.type(f"for i in $(seq 100); do grep -q held {log} && exit 0; sleep 0.1; done; exit 1")
    told = refused(
        reader,
        f"{INIT} --dhcp 10.77.1.5-10.77.0.1",
        2,
        "10.77.1.5 is not in 10.77.0.0/24",
        "udp port 69 (TFTP): taken by python3 (pid ",
        "tcp port 8443 (API of nodes): taken by python3 (pid ",
        f"nft insert rule inet filter input iifname {INTERFACE} udp dport",
    )
    assert "10.77.1.5-10.77.0.1: 10.77.1.5 comes after 10.77.0.1" in told
    refused(reader, "cloner init --interface eth7", 3, "there is no interface eth7", INTERFACE)
    refused(reader, "cloner init", 2, "no interface is named")
    refused(reader, f"{INIT} --dhcp none --tls-port 99999 --http-port -1", 2, "99999 is not a port", "-1 is not a port")
    refused(reader, f"{INIT} --enable --dhcp none --tftp-port 0 --tls-port 8444", 4, "systemd does not run here")
    reader.lab.run(["ip", "address", "flush", "dev", INTERFACE])
    reader.lab.run(["ip", "link", "set", INTERFACE, "down"])
    refused(reader, INIT, 4, f"{INTERFACE} is down", f"{INTERFACE} has no IPv4 address")
    assert there(reader) == []


def test_the_firewall_is_opened_only_when_asked_and_once(seat: tuple[Reader, Lab]) -> None:
    reader, client = seat
    chain = "add chain inet filter input { type filter hook input priority 0; policy drop; }"
    keep = "add rule inet filter input iif lo accept; add rule inet filter input ct state established accept"
    reader.type(f"nft 'add table inet filter; {chain}; {keep}'")
    client.run(["ip", "address", "add", "10.77.0.9/24", "dev", CLIENT_LINK])
    before = reader.type("nft list ruleset")
    reader.type(f"{INIT} --dhcp none")
    assert reader.type("nft list ruleset") == before
    reader.start_unit("systemctl enable --now cloner")
    url = f"http://{SERVER_ADDRESS}:8080/boot/ipxe?mac=52:54:00:00:00:01&platform=efi"
    assert client.run(["curl", "-sS", "--max-time", "2", url], check=False) == ""
    assert json.loads(reader.type("cloner init --firewall --json"))["commands"]
    assert "#!ipxe" in client.run(["curl", "-sS", "--max-time", "10", url])
    opened = reader.type("nft list ruleset")
    assert json.loads(reader.type("cloner init --firewall --json"))["commands"] == []
    assert reader.type("nft list ruleset") == opened
    reader.stop()


def test_a_file_that_was_edited_by_hand_is_kept_or_replaced_by_force(seat: tuple[Reader, Lab]) -> None:
    reader, _ = seat
    reader.type(f"{INIT} --dhcp none")
    reader.type("echo 'attempts = 3  # ours' >> /etc/cloner/server.toml")
    assert "stays" in reader.attempt("cloner init").stderr
    refused(reader, "cloner init --tls-port 9443", 5, "edited by hand", "+tls_port = 9443", "--force")
    assert "tls_port" not in reader.type("cat /etc/cloner/server.toml")
    assert "server.toml.bak" in reader.type("cloner init --tls-port 9443 --force")
    written = reader.type("cat /etc/cloner/server.toml")
    assert "attempts = 3" in written  # the setting stays, the remark is in the copy
    assert "tls_port = 9443" in written
    assert "# ours" in reader.type("cat /etc/cloner/server.toml.bak")
    reader.type("echo nonsense > /etc/cloner/server.toml")
    refused(reader, INIT, 2, "/etc/cloner/server.toml")
    reader.type(f"{INIT} --dhcp none --force")
    assert reader.type("cat /etc/cloner/server.toml.bak1") == "nonsense\n"
