"""The firewalls of this machine, and the very commands that let nodes through. Changes nothing by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cloner_core.errors import ClonerError
from cloner_pxe.dhcp_packet import CLIENT_PORT, SERVER_PORT
from cloner_server.setup.ports import Port

Run = Callable[[Sequence[str]], str]
"""Runs one program and returns its stdout; raises ClonerError when it fails or is not installed."""

_MARK = "cloner"
_OF_IPTABLES = ("ip", "filter", "INPUT")


@dataclass(frozen=True, slots=True)
class Firewall:
    """One firewall that is at work here, and what would let nodes through."""

    name: str
    rules: tuple[tuple[str, ...], ...]  # commands; none when nothing is missing
    note: str = ""


def find_firewalls(run: Run, interface: str, ports: Iterable[Port]) -> tuple[Firewall, ...]:
    """Return the firewalls that may keep nodes out. firewalld and ufw own their nftables rules, so they go first."""
    needed = tuple(ports)
    if (zone := _firewalld_zone(run, interface)) is not None:
        return (_firewalld(run, zone, needed),)
    if (status := _told(run, ("ufw", "status"))) is not None and "Status: active" in status:
        return (_ufw(interface, needed),)
    ruleset = _told(run, ("nft", "-json", "list", "ruleset"))
    return _nftables(run, ruleset, interface, needed) if ruleset else ()


def _told(run: Run, argv: tuple[str, ...]) -> str | None:
    try:
        return run(argv)
    except ClonerError:
        return None  # not installed, or not at work


def _numbers(ports: Iterable[Port], protocol: str) -> tuple[int, ...]:
    """Return the ports to be opened, with the one on which the answers of another DHCP server come to our watch."""
    numbers = {port.number for port in ports if port.protocol == protocol}
    return tuple(sorted(numbers | ({CLIENT_PORT} if protocol == "udp" and SERVER_PORT in numbers else set())))


def _firewalld_zone(run: Run, interface: str) -> str | None:
    state = _told(run, ("firewall-cmd", "--state"))
    if state is None or "running" not in state or "not running" in state:
        return None
    bound = _told(run, ("firewall-cmd", f"--get-zone-of-interface={interface}"))
    return (bound or _told(run, ("firewall-cmd", "--get-default-zone")) or "public").strip()


def _firewalld(run: Run, zone: str, ports: tuple[Port, ...]) -> Firewall:
    there = set((_told(run, ("firewall-cmd", "--permanent", f"--zone={zone}", "--list-ports")) or "").split())
    wanted = [f"{number}/{protocol}" for protocol in ("udp", "tcp") for number in _numbers(ports, protocol)]
    rules = [
        ("firewall-cmd", "--permanent", f"--zone={zone}", f"--add-port={port}") for port in wanted if port not in there
    ]
    return Firewall("firewalld", (*rules, ("firewall-cmd", "--reload")) if rules else ())


def _ufw(interface: str, ports: tuple[Port, ...]) -> Firewall:
    def rule(protocol: str) -> tuple[str, ...]:
        listed = ",".join(map(str, _numbers(ports, protocol)))
        words = ("ufw", "allow", "in", "on", interface, "proto", protocol, "to", "any", "port", listed)
        return (*words, "comment", _MARK)

    protocols = [protocol for protocol in ("udp", "tcp") if _numbers(ports, protocol)]
    return Firewall("ufw", tuple(map(rule, protocols)), "rules that are there already are left as they are")


def _nftables(run: Run, ruleset: str, interface: str, ports: tuple[Port, ...]) -> tuple[Firewall, ...]:
    """Return nftables where a chain on the way in drops: by its policy, by a rule, or by one in a chain it jumps to."""
    try:
        entries = msgspec.json.decode(ruleset, type=dict[str, list[dict[str, dict[str, Any]]]]).get("nftables", [])
    except msgspec.MsgspecError:
        return ()
    rules: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for rule in (entry["rule"] for entry in entries if "rule" in entry):
        rules.setdefault(_place(rule, "chain"), []).append(rule)
    missing: list[tuple[str, ...]] = []
    is_found = False
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        at = _place(chain, "name")
        is_on_the_way = chain.get("hook") == "input" and at[0] in ("ip", "inet")
        if not is_on_the_way or (chain.get("policy") != "drop" and not _drops(at, rules)):
            continue
        is_found = True
        for protocol in ("udp", "tcp"):
            if numbers := _numbers(ports, protocol):
                missing += _missing_rule(
                    run, at, rules.get(at, []), interface=interface, protocol=protocol, numbers=numbers
                )
    note = "they last until the rule set is loaded anew: add them to what loads it (/etc/nftables.conf) as well"
    return (Firewall("nftables", tuple(missing), note if missing else ""),) if is_found else ()


def _missing_rule(
    run: Run,
    at: tuple[str, ...],
    there: Sequence[dict[str, Any]],
    *,
    interface: str,
    protocol: str,
    numbers: tuple[int, ...],
) -> Iterator[tuple[str, ...]]:
    mark = f"{_MARK} {interface} {protocol} {' '.join(map(str, numbers))}"
    if at == _OF_IPTABLES:  # nft must not write into what iptables keeps
        match = ("-i", interface, "-p", protocol, "-m", "multiport", "--dports", ",".join(map(str, numbers)))
        rule = ("INPUT", *match, "-m", "comment", "--comment", mark, "-j", "ACCEPT")
        if _told(run, ("iptables", "-C", *rule)) is None:
            yield ("iptables", "-I", *rule)
    elif not any(rule.get("comment") == mark for rule in there):
        listed = ("{", *", ".join(map(str, numbers)).split(" "), "}")
        into = ("nft", "insert", "rule", *at, "iifname", interface, protocol, "dport", *listed)
        yield (*into, "accept", "comment", f'"{mark}"')


def _place(entry: dict[str, Any], name: str) -> tuple[str, ...]:
    return tuple(str(entry.get(key, "")) for key in ("family", "table", name))


def _drops(at: tuple[str, ...], rules: dict[tuple[str, ...], list[dict[str, Any]]]) -> bool:
    """Whether a rule that can be reached from this chain drops or rejects."""
    reached, waiting = set(), [at]
    while waiting:
        here = waiting.pop()
        if here in reached:
            continue
        reached.add(here)
        said = [rule.get("expr") for rule in rules.get(here, ())]
        for each in (each for one in said if isinstance(one, list) for each in one if isinstance(each, dict)):
            named = each.get("xt")
            if {"drop", "reject"} & each.keys() or (
                isinstance(named, dict) and named.get("name") in ("DROP", "REJECT")
            ):
                return True
            for way in ("jump", "goto"):
                target = each.get(way)
                waiting += [(*at[:2], str(target.get("target", "")))] if isinstance(target, dict) else []
    return False
