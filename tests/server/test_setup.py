"""What `cloner init` decides: ranges, DHCP beside or alone, rules of firewalls, whose file it is, who has a port."""

from __future__ import annotations

import fcntl
import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.errors import ClonerError, ConflictError, ExitStatus, InvalidError, NotFoundError, RefusedError
from cloner_pxe.dhcp_probe import OtherServer
from cloner_server.config import ServerConfig
from cloner_server.setup import Asked, Preparation, apply, examine
from cloner_server.setup.choosing import choose_dhcp
from cloner_server.setup.examining import Machine
from cloner_server.setup.files import is_edited, marked, settings_text, unit_text
from cloner_server.setup.firewall import find_firewalls
from cloner_server.setup.link import Address, Link, parse_links
from cloner_server.setup.ports import holders, needed_ports
from cloner_server.setup.preparation import Finding, Kind, raise_faults
from cloner_server.setup.ranges import choose_range, range_faults

OWN = IPv4Interface("10.77.0.1/24")
SITE = OtherServer(address="10.77.0.2", gives_addresses=True)
PROXY = OtherServer(address="10.77.0.3", gives_addresses=False)
PORTS = needed_ports(ServerConfig(interface="eth1", dhcp="proxy"))


@pytest.mark.parametrize(
    ("own", "chosen"),
    [
        ("10.77.0.1/24", "10.77.0.100-10.77.0.199"),
        ("10.77.0.150/24", "10.77.0.75-10.77.0.149"),
        ("10.1.7.9/16", "10.1.7.100-10.1.7.199"),
        ("192.168.1.1/28", "192.168.1.8-192.168.1.14"),
        ("192.168.1.1/30", ""),
        ("192.168.1.1/32", ""),
    ],
)
def test_a_range_is_chosen_that_people_expect(own: str, chosen: str) -> None:
    assert choose_range(IPv4Interface(own)) == chosen


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 32))
def test_a_chosen_range_has_no_fault(address: int, prefix: int) -> None:
    own = IPv4Interface((address, prefix))
    if chosen := choose_range(own):
        assert range_faults(chosen, own) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.77.0.100", "want FIRST-LAST, proxy or none"),
        ("10.77.0.100-10.77.1.5", "10.77.1.5 is not in 10.77.0.0/24"),
        ("10.77.0.20-10.77.0.10", "comes after"),
        ("10.77.0.1-10.77.0.10", "this server's own"),
        ("10.77.0.200-10.77.0.255", "the broadcast address"),
        ("10.77.0.0-10.77.0.9", "the network's own"),
    ],
)
def test_a_range_that_cannot_be_is_told_why(text: str, told: str) -> None:
    assert any(told in fault for fault in range_faults(text, OWN))


@pytest.mark.parametrize(
    ("asked", "others", "mode", "kinds"),
    [
        (None, (), "10.77.0.100-10.77.0.199", [Kind.NOTE]),
        (None, (SITE,), "proxy", [Kind.NOTE]),
        (None, (PROXY,), "10.77.0.100-10.77.0.199", [Kind.WARNING, Kind.NOTE]),
        ("proxy", (SITE,), "proxy", [Kind.OK]),
        ("proxy", (), "proxy", [Kind.WARNING]),
        ("none", (), "none", [Kind.NOTE]),
        ("10.77.0.10-10.77.0.20", (), "10.77.0.10-10.77.0.20", [Kind.OK]),
        ("10.77.0.10-10.77.0.20", (SITE,), "10.77.0.10-10.77.0.20", [Kind.FAULT]),
        ("10.77.0.10-10.99.0.20", (SITE,), "10.77.0.10-10.99.0.20", [Kind.FAULT, Kind.FAULT]),
    ],
)
def test_dhcp_stands_beside_whoever_answers(
    asked: str | None, others: Sequence[OtherServer], mode: str, kinds: list[Kind]
) -> None:
    chosen, findings = choose_dhcp(asked, others, OWN)
    assert (chosen, [finding.kind for finding in findings]) == (mode, kinds)


def test_an_address_that_came_by_dhcp_tells_of_a_server_that_did_not_answer() -> None:
    assert choose_dhcp(None, None, OWN, unheard="port 68 is taken", is_dynamic=True)[0] == "proxy"


def test_without_a_look_nothing_is_chosen_that_could_give_a_second_set_of_addresses() -> None:
    for asked in (None, "10.77.0.10-10.77.0.20"):
        (fault,) = choose_dhcp(asked, None, OWN, unheard="port 68 is taken")[1]
        assert (fault.kind, "port 68 is taken" in fault.what) == (Kind.FAULT, True)
    for asked in ("proxy", "none"):
        assert Kind.FAULT not in [one.kind for one in choose_dhcp(asked, None, OWN, unheard="port 68 is taken")[1]]


def test_a_file_is_ours_until_a_byte_changes() -> None:
    text = marked("a = 1\n")
    assert not is_edited(text)
    assert is_edited(text + "# mine\n")
    assert is_edited(text.replace("1", "2"))
    assert is_edited("")


def test_settings_are_written_as_they_are_read() -> None:
    config = ServerConfig(
        interface="eth1", dhcp="10.77.0.100-10.77.0.199", installer='/srv/a "b"', tls_port=9443, boot_s=600.0
    )
    config = msgspec.structs.replace(config, kernel_arguments=("console=ttyS1",), lost_s=90.0)
    text = settings_text(config)
    assert msgspec.convert(tomllib.loads(text), ServerConfig) == config
    assert "http_port" not in text


def test_the_unit_runs_the_command_with_what_systemd_would_read_otherwise_escaped() -> None:
    text = unit_text(("/opt/100% cloner/$x/cloner",), "/etc/cloner/server.toml")
    assert "ExecStart='/opt/100%% cloner/$$x/cloner' serve --config /etc/cloner/server.toml\n" in text


def answers(told: dict[str, str]) -> object:
    def run(argv: Sequence[str]) -> str:
        for words, answer in told.items():
            if " ".join(argv).startswith(words):
                return answer
        raise ClonerError(f"{argv[0]} is not installed")

    return run


def rules_of(told: dict[str, str]) -> list[str]:
    found = find_firewalls(answers(told), "eth1", PORTS)  # type: ignore[arg-type]
    return [" ".join(rule) for firewall in found for rule in firewall.rules]


def chain(**fields: object) -> dict[str, object]:
    base = {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "accept"}
    return {"chain": base | fields}


def rule(*expressions: object, **fields: object) -> dict[str, object]:
    return {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": list(expressions)} | fields}


def nft(*entries: dict[str, object]) -> dict[str, str]:
    return {"nft -json list ruleset": json.dumps({"nftables": [{"metainfo": {}}, *entries]})}


_KEYS = ["chain", "rule", "expr", "jump", "target", "xt", "family", "table", "name", "hook", "policy", "comment"]
UDP = "nft insert rule inet filter input iifname eth1 udp dport { 67, 68, 69, 4011 } accept"
TCP = "nft insert rule inet filter input iifname eth1 tcp dport { 8080, 8443 } accept"


@pytest.mark.parametrize(
    "entries",
    [
        [chain(policy="drop")],
        [chain(), rule({"drop": None})],
        [chain(), rule({"jump": {"target": "own"}}), rule({"reject": {"type": "icmpx"}}, chain="own")],
        [chain(), rule({"xt": {"type": "target", "name": "REJECT"}})],
    ],
)
def test_rules_for_nftables_where_the_way_in_drops(entries: list[dict[str, object]]) -> None:
    told = rules_of(nft(*entries))
    assert [line.split(" comment")[0] for line in told] == [UDP, TCP]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [chain()],
        [chain(name="forward", hook="forward", policy="drop")],
        [chain(family="ip6", policy="drop")],
        [chain(), rule({"drop": None}, chain="forward")],
        [chain(), rule({"jump": {"target": "input"}})],  # a circle ends
    ],
)
def test_no_rules_for_nftables_where_nothing_keeps_nodes_out(entries: list[dict[str, object]]) -> None:
    assert rules_of(nft(*entries)) == []


def test_a_rule_of_ours_is_not_added_again() -> None:
    first = find_firewalls(answers(nft(chain(policy="drop"))), "eth1", PORTS)[0]  # type: ignore[arg-type]
    there = [rule(comment=line[-1].strip('"')) for line in first.rules]
    (found,) = find_firewalls(answers(nft(chain(policy="drop"), *there)), "eth1", PORTS)  # type: ignore[arg-type]
    assert found.rules == ()


def test_what_iptables_keeps_is_changed_by_iptables() -> None:
    told = nft(chain(family="ip", name="INPUT", policy="drop"))
    assert [line.split()[0:3] for line in rules_of(told)] == [["iptables", "-I", "INPUT"]] * 2
    assert rules_of(told | {"iptables -C INPUT": ""}) == []


def test_firewalld_is_told_by_its_own_command_in_the_zone_of_the_interface() -> None:
    told = {
        "firewall-cmd --state": "running\n",
        "firewall-cmd --get-zone-of-interface=eth1": "nodes\n",
        "firewall-cmd --permanent --zone=nodes --list-ports": "69/udp 8080/tcp\n",
    }
    lines = rules_of(told)
    assert "firewall-cmd --permanent --zone=nodes --add-port=67/udp" in lines
    assert not any("69/udp" in line or "8080/tcp" in line for line in lines)
    assert lines[-1] == "firewall-cmd --reload"


def test_ufw_is_told_by_its_own_command_and_only_when_it_is_active() -> None:
    assert rules_of({"ufw status": "Status: inactive\n"}) == []
    (udp, tcp) = rules_of({"ufw status": "Status: active\n"})
    assert udp == "ufw allow in on eth1 proto udp to any port 67,68,69,4011 comment cloner"
    assert "8080,8443" in tcp


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.sampled_from(["inet", "filter", "input", "drop"]),
        lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), each, max_size=6),
    )
)
def test_a_rule_set_nobody_expected_crashes_nothing(value: object) -> None:
    rules_of({"nft -json list ruleset": json.dumps(value)})
    rules_of({"nft -json list ruleset": json.dumps({"nftables": [value]})})


def test_interfaces_are_read_as_iproute2_tells_them() -> None:
    told = [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP", "LOWER_UP"], "address": "00:00:00:00:00:00", "addr_info": []},
        {
            "ifindex": 2,
            "ifname": "eth1",
            "flags": ["BROADCAST", "NO-CARRIER", "UP"],
            "address": "52:54:00:00:00:01",
            "addr_info": [
                {"family": "inet", "local": "10.77.0.1", "prefixlen": 24, "scope": "global", "dynamic": True},
                {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
            ],
        },
    ]
    eth1 = parse_links(json.dumps(told))[1]
    assert (eth1.is_up, eth1.has_carrier) == (True, False)
    assert [(one.interface, one.is_dynamic) for one in eth1.addresses] == [(IPv4Interface("10.77.0.1/24"), True)]
    for broken in ("", "{}", '[{"ifname": "x", "addr_info": [{"family": "inet", "local": "no"}]}]'):
        with pytest.raises(ClonerError, match="ip -json"):
            parse_links(broken)


def test_whoever_has_a_port_is_named(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "  1: 00000000:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2"
    (tmp_path / "net/udp").write_text(f"  sl  local_address\n{line}\n")
    for pid, inode in ((812, 4711), (813, 1)):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/comm").write_text("in.tftpd\n")
        os.symlink(f"socket:[{inode}]", tmp_path / f"{pid}/fd/3")
    assert holders("udp", 69, tmp_path) == ("in.tftpd (pid 812)",)
    assert holders("udp", 67, tmp_path) == ()
    assert holders("tcp", 69, tmp_path) == ()


def test_the_ports_follow_the_settings() -> None:
    assert [port.number for port in needed_ports(ServerConfig())] == [8443, 8080, 69]
    assert [port.number for port in needed_ports(ServerConfig(tftp_port=0, http_port=80))] == [8443, 80]
    assert {67, 4011} <= {port.number for port in PORTS}


def test_the_status_of_several_faults_is_that_of_the_first_kind() -> None:
    conflict = Finding(Kind.FAULT, "edited", "", ExitStatus.CONFLICT)
    usage = Finding(Kind.FAULT, "wrong range", "--dhcp", ExitStatus.USAGE)
    with pytest.raises(ConflictError, match="edited"):
        raise_faults([conflict, Finding(Kind.WARNING, "slow")])
    with pytest.raises(InvalidError) as caught:
        raise_faults([conflict, usage])
    assert caught.value.faults == ("edited", "wrong range")
    raise_faults([Finding(Kind.OK, "fine")])


ETH1 = Link("eth1", "52:54:00:00:00:01", True, True, (Address(OWN, False),))


def world(**changed: Any) -> Machine:
    """Return a machine with one interface, nobody else on its network, and nothing in the way."""
    told: dict[str, Any] = {
        "links": lambda: {"eth1": ETH1, "lo": msgspec.structs.replace(ETH1, name="lo")},
        "others": lambda name: (),
        "run": answers({}),
        "has_systemd": lambda: True,
        "is_root": lambda: True,
        "taken": lambda ports, address, interface: [],
        "which": lambda program: f"/usr/bin/{program}",
        "loaders": lambda names: {name: Path("/usr/lib/ipxe") / name for name in names},
    }
    return Machine(**(told | changed))


def asked(folder: Path, **more: Any) -> Asked:
    settings: dict[str, Any] = {"interface": "eth1", "state": str(folder / "state"), "tftp_port": 0, "dhcp": "none"}
    files: dict[str, Any] = {"config_file": folder / "server.toml", "unit_file": folder / "cloner.service"}
    return Asked(settings | more.pop("settings", {}), ("/usr/sbin/cloner",), **files, **more)


def kinds(found: Preparation, words: str) -> list[Kind]:
    return [finding.kind for finding in found.findings if words in finding.what]


def test_looking_changes_nothing_and_doing_it_twice_changes_nothing_more(tmp_path: Path) -> None:
    found = examine(asked(tmp_path), world())
    assert list(tmp_path.iterdir()) == []
    assert [change.action for change in found.changes] == ["made", "made"]
    apply(found, lambda text: None)
    assert tomllib.loads((tmp_path / "server.toml").read_text())["interface"] == "eth1"
    assert (tmp_path / "state/site/ca.key").stat().st_mode & 0o777 == 0o600
    again = examine(asked(tmp_path), world())
    assert ([change.action for change in again.changes], again.makes_keys) == (["unchanged", "unchanged"], False)


def test_what_is_not_named_stays_as_the_file_says(tmp_path: Path) -> None:
    apply(examine(asked(tmp_path, settings={"http_port": 8081, "attempts": 3}), world()), lambda text: None)
    other = replace(asked(tmp_path), settings={"tls_port": 9443})
    (settings, unit) = examine(other, world()).changes
    kept = tomllib.loads(settings.content)
    assert (kept["http_port"], kept["attempts"], kept["tls_port"]) == (8081, 3, 9443)
    assert (settings.action, settings.backup, unit.action) == ("replaced", "", "unchanged")


def test_a_settings_file_that_is_no_text_is_replaced_by_force_alone_and_its_bytes_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_bytes(b"# K\xf6ln\n")
    file.chmod(0o600)
    with pytest.raises(InvalidError, match=r"server\.toml"):
        examine(asked(tmp_path), world())
    apply(examine(asked(tmp_path, is_forced=True), world()), lambda text: None)
    assert tomllib.loads(file.read_text())["interface"] == "eth1"
    kept = tmp_path / "server.toml.bak"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"# K\xf6ln\n", 0o600)
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_every_fault_is_found_in_one_look(tmp_path: Path) -> None:
    down = msgspec.structs.replace(ETH1, is_up=False, has_carrier=False)
    (tmp_path / "cloner.service").write_text("[Unit]\n")
    found = examine(
        asked(tmp_path, settings={"installer": str(tmp_path / "none")}, builds_installer=True, enables=True),
        world(
            links=lambda: {"eth1": down},
            taken=lambda ports, address, interface: [f"{ports[0]}: taken by nginx (pid 7)"],
            has_systemd=lambda: False,
            which=lambda program: None,
        ),
    )
    for words in ("eth1 is down", "taken by nginx", "systemd does not run", "programs are missing", "edited by hand"):
        assert kinds(found, words) == [Kind.FAULT], words
    with pytest.raises(RefusedError, match="kmod"):
        apply(found, lambda text: None)
    assert not (tmp_path / "server.toml").exists()


def test_a_server_that_runs_holds_its_own_ports_and_answers_its_own_dhcp(tmp_path: Path) -> None:
    def never(*_: object) -> Any:
        raise AssertionError("asked though a server of ours runs")

    (tmp_path / "state").mkdir()
    with (tmp_path / "state/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = examine(asked(tmp_path, settings={"dhcp": "proxy"}), world(taken=never, others=never))
    assert kinds(found, "a server runs") == [Kind.NOTE]
    assert [finding for finding in found.findings if finding.kind is Kind.FAULT] == []


def test_an_address_by_dhcp_and_a_dead_port_are_warned_about(tmp_path: Path) -> None:
    link = msgspec.structs.replace(ETH1, has_carrier=False, addresses=(Address(OWN, True),))
    found = examine(asked(tmp_path), world(links=lambda: {"eth1": link}))
    assert kinds(found, "by DHCP") == kinds(found, "no carrier") == [Kind.WARNING]


def test_an_interface_that_cannot_be_named_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="eth1"):
        examine(asked(tmp_path, settings={"interface": "eth9"}), world())
    with pytest.raises(InvalidError, match="eth1"):
        examine(asked(tmp_path, settings={"interface": ""}), world())
    with pytest.raises(RefusedError, match="root"):
        examine(asked(tmp_path), world(is_root=lambda: False))
    found = examine(asked(tmp_path, settings={"address": "10.9.9.9"}), world())
    assert kinds(found, "no IPv4 address 10.9.9.9") == [Kind.FAULT]


def test_the_next_commands_follow_what_was_done(tmp_path: Path) -> None:
    assert "systemctl enable --now cloner" in examine(asked(tmp_path), world()).next
    assert "systemctl enable --now cloner" not in examine(asked(tmp_path, enables=True), world()).next
    assert any(
        line.startswith("cloner serve --config ")
        for line in examine(asked(tmp_path), world(has_systemd=lambda: False)).next
    )
    assert examine(asked(tmp_path, enables=True), world()).commands[-1] == ("systemctl", "enable", "--now", "cloner")


def test_addresses_of_a_chosen_range_leave_room_for_static_ones() -> None:
    first, _, last = choose_range(OWN).partition("-")
    assert int(IPv4Address(last)) - int(IPv4Address(first)) < 128
