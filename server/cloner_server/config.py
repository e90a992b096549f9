"""What the server is told at its start: by the command line, over /etc/cloner/server.toml, over the defaults."""

from __future__ import annotations

import ipaddress
import math
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError
from cloner_core.messages import ConfirmWay
from cloner_server.state.pruning import Keep
from cloner_server.tasks.rules import AcceptWord

_SCOPED_BITS = 16  # of an IPv6 group, behind which all are of one scope
_SCOPES = range(2, 15)  # from the link to the world
_LINK_LOCAL_GROUPS = ipaddress.IPv4Network("224.0.0.0/24")  # RFC 5771 §4

CONFIG_FILE = Path("/etc/cloner/server.toml")


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `cloner serve`; the names are those of server.toml."""

    state: str = "/var/lib/cloner"
    socket: str = "/run/cloner/cloner.sock"
    installer: str = ""  # "": no agent is offered
    interface: str = ""  # "": neither DHCP nor router advertisements
    address: str = ""  # as nodes reach us; "" takes the interface's, or 127.0.0.1 without one
    netmask: str = "255.255.255.0"
    dhcp: Literal["none", "proxy"] | str = "none"  # "FIRST-LAST" gives out addresses
    beside_another_dhcp: bool = False
    router: str = ""
    tls_port: int = 8443
    http_port: int = 8080
    tftp_port: int = 69  # 0: no TFTP
    confirm: ConfirmWay = ConfirmWay.PHONE_HOME
    console: bool = True  # agents show their screen over SSH
    confirm_s: float = 1800.0
    boot_s: float = 900.0
    lost_s: float = 60.0
    claim_life_s: float = 3600.0
    beat_every_s: float = 2.0
    attempts: int = 5
    multicast_wait_hours: float = 2.0  # that a node waits for a session
    accept: AcceptWord = "first-hello"
    kernel_arguments: tuple[str, ...] = ("console=tty0", "console=ttyS0", "panic=-1")
    keep_days: float = 365.0  # events; the newest 10 000 of a kind stay however old
    keep_events: int = 500_000
    keep_alarm_days: float = 1825.0
    keep_alarms: int = 50_000
    keep_network_days: float = 30.0  # events that anybody on the network can cause
    keep_network_events: int = 100_000
    keep_log_days: float = 90.0
    keep_log_lines: int = 2_000_000
    multicast_share: float = 0.7  # of the link's speed, of all sessions together
    multicast_mbps: float = 0.0  # in its place, in Mbit/s; 0: the share
    multicast_group: str = "239.255.67.0/24"  # a network of groups; each session gets one
    multicast_port: int = 47000  # the first; each session gets the next that is free
    multicast_querier: bool = False  # senders ask who listens, on networks where nobody else does
    reserve_mib: int = 256  # of the state's disk: uploads stop there, so that deploys can go on


def load_config(path: Path, given: dict[str, Any]) -> ServerConfig:
    """Return the settings of the file at `path` (none when absent) with `given` on top.

    Raises InvalidError that names every fault found.
    """
    try:
        config = msgspec.convert(read_settings(path) | given, ServerConfig)
    except msgspec.ValidationError as fault:
        raise InvalidError(f"{path}: {fault}") from fault
    if faults := config_faults(config):
        raise InvalidError("the server cannot start with these settings", faults=faults)
    return config


def read_settings(path: Path) -> dict[str, Any]:
    """Return what the file at `path` says, nothing when it is absent; raises InvalidError for one that is no TOML."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except OSError as fault:
        raise InvalidError(f"{path} cannot be read: {fault}") from fault
    except (tomllib.TOMLDecodeError, *UNREADABLE) as fault:
        raise InvalidError(f"{path}: {fault}") from fault


def config_faults(config: ServerConfig) -> list[str]:
    """Return what is wrong with `config`, as "name: what"."""
    faults = []
    for name in ("address", "router", "netmask"):
        value = getattr(config, name)
        try:
            if value:
                ipaddress.IPv4Address(value)
        except ValueError as fault:
            faults.append(f"{name}: {fault}")
    ports = {name: getattr(config, name) for name in ("tls_port", "http_port", "tftp_port")}
    faults += [f"{name}: {port} is not a port" for name, port in ports.items() if not 0 <= port < 65536]
    if config.tls_port and config.tls_port == config.http_port:
        faults.append(f"http_port: {config.http_port} is the TLS port too")
    kept = [name for name in config.__struct_fields__ if name.startswith("keep_")]
    for name in (
        "confirm_s",
        "boot_s",
        "lost_s",
        "claim_life_s",
        "beat_every_s",
        "attempts",
        "multicast_wait_hours",
        *kept,
    ):
        if not 0 < getattr(config, name) < math.inf:
            faults.append(f"{name}: {getattr(config, name)} is no number above 0")
    if config.reserve_mib < 0:
        faults.append(f"reserve_mib: {config.reserve_mib} is below 0")
    faults += _multicast_faults(config)
    if config.claim_life_s > 3600:
        faults.append("claim_life_s: a claim token lives an hour at most")
    if config.dhcp != "none" and not config.interface:
        faults.append("interface: DHCP needs one (--interface)")
    if config.dhcp not in ("none", "proxy"):
        try:
            pool(config)
        except ValueError as fault:
            faults.append(f"dhcp: '{config.dhcp}' is not FIRST-LAST: {fault}")
    return faults


def _multicast_faults(config: ServerConfig) -> list[str]:
    faults = []
    if not 0 < config.multicast_share <= 1:
        faults.append(f"multicast_share: {config.multicast_share} is no part of the link, above 0 and at most 1")
    if not 0 <= config.multicast_mbps < math.inf:
        faults.append(f"multicast_mbps: {config.multicast_mbps} is no number of Mbit/s")
    if not 1024 <= config.multicast_port < 65536:
        faults.append(f"multicast_port: {config.multicast_port} is no port from 1024 on")
    try:
        groups = ipaddress.ip_network(config.multicast_group)
    except ValueError as fault:
        return [*faults, f"multicast_group: {fault}"]
    if isinstance(groups, ipaddress.IPv6Network):
        return [*faults, *_groups6_faults(groups, has_querier=config.multicast_querier)]
    if not groups.is_multicast or not groups.broadcast_address.is_multicast:
        faults.append(f"multicast_group: {groups} is no network of multicast groups (239.255.0.0/16 is a site's own)")
    elif groups.overlaps(_LINK_LOCAL_GROUPS):
        faults.append(
            f"multicast_group: {groups} holds groups of {_LINK_LOCAL_GROUPS}, which switches send to every port"
        )
    return faults


def _groups6_faults(groups: ipaddress.IPv6Network, *, has_querier: bool) -> list[str]:
    """Return what speaks against sending to these groups: RFC 4291 §2.7 has flags and scope in their second byte."""
    faults = []
    flags, scope = groups.network_address.packed[1] >> 4, groups.network_address.packed[1] & 15
    if not groups.is_multicast or groups.prefixlen < _SCOPED_BITS or flags != 1 or scope not in _SCOPES:
        faults.append(
            f"multicast_group: {groups} is no network of groups that anybody may use beyond one machine"
            " (ff15::/16 is a site's own, ff12::/16 the link's)"
        )
    if has_querier:
        faults.append("multicast_querier: it asks by IGMP, and the groups of multicast_group are of IPv6")
    return faults


def pool(config: ServerConfig) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    """Return the first and last address given out; raises ValueError when `dhcp` names no range."""
    first, _, last = config.dhcp.partition("-")
    return ipaddress.IPv4Address(first.strip()), ipaddress.IPv4Address(last.strip())


def keep(config: ServerConfig) -> Keep:
    """Return how much of what happened is kept."""
    return Keep(
        days=config.keep_days,
        events=config.keep_events,
        alarm_days=config.keep_alarm_days,
        alarms=config.keep_alarms,
        network_days=config.keep_network_days,
        network=config.keep_network_events,
        log_days=config.keep_log_days,
        log_lines=config.keep_log_lines,
    )
