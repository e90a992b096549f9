"""Looks at this machine as the server it is to be: interface, DHCP, ports, firewall, files. Changes nothing."""

from __future__ import annotations

import asyncio
import difflib
import fcntl
import ipaddress
import os
import secrets
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cloner_core.errors import ClonerError, ExitStatus, InvalidError, NotFoundError, RefusedError
from cloner_core.sizes import format_bytes
from cloner_initramfs import read_installer
from cloner_initramfs.host import run as run_program
from cloner_pxe.decision import BootPolicy
from cloner_pxe.dhcp_probe import OtherServer, find_other_servers
from cloner_pxe.loaders import find_loaders
from cloner_server.config import CONFIG_FILE, ServerConfig, config_faults, load_config, read_settings
from cloner_server.setup.choosing import choose_dhcp
from cloner_server.setup.files import is_edited, marked, settings_text, unit_text
from cloner_server.setup.firewall import find_firewalls
from cloner_server.setup.link import Link, read_links
from cloner_server.setup.ports import Port, needed_ports, port_faults
from cloner_server.setup.preparation import Change, Finding, Kind, Preparation

UNIT_FILE = Path("/etc/systemd/system/cloner.service")
_SYSTEMD = Path("/run/systemd/system")
_LITTLE_ROOM = 5 << 30
_BUILD_TOOLS = {"apt-get": "apt", "dpkg-deb": "dpkg", "tar": "tar", "depmod": "kmod"}  # program: its Debian package


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for; None: as the settings file says, else chosen."""

    settings: dict[str, Any]  # of ServerConfig, those given
    command: tuple[str, ...]  # what runs `cloner`
    drivers: str = "full"
    builds_installer: bool = False
    is_forced: bool = False
    opens_firewall: bool = False
    enables: bool = False
    config_file: Path = CONFIG_FILE
    unit_file: Path = UNIT_FILE


def probe(interface: str) -> tuple[OtherServer, ...]:
    """Ask an interface who answers DHCP there; takes three seconds. Raises as `find_other_servers` does."""
    # Locally administered: no lease of a real machine is touched.
    mac = (b"\x02" + secrets.token_bytes(5)).hex(":")
    return asyncio.run(find_other_servers(interface, mac))


@dataclass(frozen=True, slots=True)
class Machine:
    """What is asked of the machine; a test gives its own."""

    links: Callable[[], dict[str, Link]] = read_links
    others: Callable[[str], tuple[OtherServer, ...]] = probe
    run: Callable[[Sequence[str]], str] = lambda argv: run_program(argv, timeout_s=20)
    has_systemd: Callable[[], bool] = _SYSTEMD.is_dir
    is_root: Callable[[], bool] = lambda: os.geteuid() == 0
    taken: Callable[[Sequence[Port], str, str], list[str]] = port_faults
    which: Callable[[str], str | None] = shutil.which
    loaders: Callable[[Iterable[str]], dict[str, Path]] = find_loaders


def examine(asked: Asked, machine: Machine = Machine()) -> Preparation:
    """Return what was found and what would be done.

    Raises RefusedError without root, and NotFoundError or InvalidError when there is no interface to look at.
    """
    if not machine.is_root():
        raise RefusedError("cloner init needs root: it asks the network for DHCP servers and writes to /etc")
    before = _settings_before(asked)
    config = msgspec.convert(before | asked.settings, ServerConfig)
    link = _link(config.interface, machine)
    findings = list(_link_findings(link))
    own = _own_address(config, link)
    if own is None:
        findings.append(
            _fault(
                f"{link.name} has no IPv4 address" + (f" {config.address}" if config.address else ""),
                f"give it a static one, as: ip address add 10.77.0.1/24 dev {link.name}",
            )
        )
        return Preparation(link.name, "", config.dhcp, config.state, tuple(findings))
    is_served = _is_served(Path(config.state))
    dhcp = (before | asked.settings).get("dhcp")
    if is_served:
        findings.append(
            Finding(Kind.NOTE, f"a server runs on {config.state}: it keeps its settings until it is restarted")
        )
    mode, more = _dhcp(dhcp, link, own, machine, is_served=is_served)
    config = msgspec.structs.replace(config, dhcp=mode)
    findings += more
    wrong = [fault for fault in config_faults(config) if not fault.startswith("dhcp")]
    findings += [_fault(fault, "", ExitStatus.USAGE) for fault in wrong]
    if not is_served and not wrong:
        taken = machine.taken(needed_ports(config), str(own.ip), link.name)
        findings += [_fault(fault, "stop that program, or choose another port (--help)") for fault in taken]
        findings += [] if taken else [Finding(Kind.OK, f"free: {', '.join(map(str, needed_ports(config)))}")]
    findings += _parts(config, own, machine)
    rules: list[tuple[str, ...]] = []
    for firewall in find_firewalls(machine.run, link.name, needed_ports(config)):
        rules += firewall.rules if asked.opens_firewall else []
        findings.append(_firewall(firewall.name, firewall.rules, firewall.note, is_opened=asked.opens_firewall))
    changes = [_settings_change(asked, config, findings), _unit_change(asked, findings)]
    if asked.enables and not machine.has_systemd():
        findings.append(_fault("systemd does not run here: the unit cannot be enabled", "leave out --enable"))
    builds = _builds(asked, config, machine, findings)
    enable = [("systemctl", "daemon-reload"), ("systemctl", "enable", "--now", "cloner")] if asked.enables else []
    return Preparation(
        interface=link.name,
        address=str(own),
        dhcp=config.dhcp,
        state=config.state,
        findings=tuple(findings),
        changes=tuple(changes),
        makes_keys=not (Path(config.state) / "site").is_dir(),
        builds=builds,
        commands=(*rules, *enable),
        next=tuple(_next(asked, config, has_systemd=machine.has_systemd(), is_served=is_served or asked.enables)),
    )


def _settings_before(asked: Asked) -> dict[str, Any]:
    """Return what the settings file says now; with --force a file that cannot be read says nothing."""
    try:
        load_config(asked.config_file, {})
    except InvalidError:
        if asked.is_forced:
            return {}
        raise
    return read_settings(asked.config_file)


def _link(name: str, machine: Machine) -> Link:
    links = machine.links()
    there = ", ".join(sorted(set(links) - {"lo"})) or "none"
    if not name:
        raise InvalidError("no interface is named", hint=f"--interface NAME; there are: {there}")
    if name not in links:
        raise NotFoundError(f"there is no interface {name}", hint=f"there are: {there}")
    return links[name]


def _link_findings(link: Link) -> Iterator[Finding]:
    if not link.is_up:
        yield _fault(f"{link.name} is down", f"ip link set {link.name} up")
    elif not link.has_carrier:
        yield Finding(Kind.WARNING, f"{link.name} has no carrier", "is the cable in, and the switch port on?")
    for address in link.addresses:
        if address.is_dynamic:
            remedy = "give it a static one: nodes lose the server when it changes"
            yield Finding(Kind.WARNING, f"{link.name} has its address {address.interface} by DHCP", remedy)


def _own_address(config: ServerConfig, link: Link) -> ipaddress.IPv4Interface | None:
    for address in link.addresses:
        if config.address in ("", str(address.interface.ip)):
            return address.interface
    return None


def _is_served(state: Path) -> bool:
    """Whether a server runs on this state directory: it holds the lock."""
    try:
        with (state / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _dhcp(
    asked: str | None, link: Link, own: ipaddress.IPv4Interface, machine: Machine, *, is_served: bool
) -> tuple[str, list[Finding]]:
    others: tuple[OtherServer, ...] | None = None
    unheard = "" if link.is_up else f"{link.name} is down"
    if link.is_up and not is_served:
        try:
            others = tuple(one for one in machine.others(link.name) if one.address != str(own.ip))
        except RefusedError as fault:
            unheard = fault.message
    is_dynamic = any(address.is_dynamic for address in link.addresses)
    return choose_dhcp(asked, others, own, unheard=unheard, is_dynamic=is_dynamic)


def _parts(config: ServerConfig, own: ipaddress.IPv4Interface, machine: Machine) -> Iterator[Finding]:
    """Look at what the server needs beside its settings: boot loaders, and room."""
    policy = BootPolicy(server_address=str(own.ip), http_base="")
    try:
        if config.tftp_port or config.dhcp != "none":
            found = machine.loaders(policy.offered_files)
            yield Finding(Kind.OK, f"boot loaders: {', '.join(sorted(found))}")
    except NotFoundError as fault:
        yield _fault(fault.message, "apt-get install ipxe shim-signed grub-efi-amd64-signed")
    place = Path(config.state)
    while not place.exists():
        place = place.parent
    if (free := shutil.disk_usage(place).free) < _LITTLE_ROOM:
        yield Finding(
            Kind.WARNING, f"{format_bytes(free)} are free for {config.state}: images take more", "--state DIR"
        )


def _firewall(name: str, rules: Sequence[Sequence[str]], note: str, *, is_opened: bool) -> Finding:
    if not rules:
        return Finding(Kind.OK, f"{name} lets nodes through")
    lines = "\n".join(shlex.join(rule) for rule in rules)
    if is_opened:
        return Finding(Kind.NOTE, f"{name} is told to let nodes through:\n{lines}", note)
    remedy = "; ".join(filter(None, ("--firewall runs these", note)))
    return Finding(Kind.WARNING, f"{name} may keep nodes out; these let them through:\n{lines}", remedy)


def _builds(asked: Asked, config: ServerConfig, machine: Machine, findings: list[Finding]) -> tuple[str, str] | None:
    if not config.installer:
        hint = "--installer /var/lib/cloner-installer builds one"
        findings.append(Finding(Kind.WARNING, "no installer: nodes are offered no agent and wait", hint))
        return None
    try:
        read_installer(Path(config.installer))
    except ClonerError as fault:
        if asked.builds_installer:
            missing = [package for program, package in _BUILD_TOOLS.items() if machine.which(program) is None]
            if missing:
                what = "the installer cannot be built: programs are missing"
                findings.append(_fault(what, f"apt-get install {' '.join(missing)}"))
            return config.installer, asked.drivers
        findings.append(_fault(fault.message, f"--installer {config.installer} builds it anew"))
        return None
    findings.append(Finding(Kind.OK, f"the installer in {config.installer} is whole"))
    return None


def _settings_change(asked: Asked, config: ServerConfig, findings: list[Finding]) -> Change:
    def says_the_same(text: str) -> bool:
        return msgspec.convert(tomllib.loads(text), ServerConfig) == config

    return _change(asked, asked.config_file, settings_text(config), says_the_same, findings)


def _unit_change(asked: Asked, findings: list[Finding]) -> Change:
    text = unit_text(asked.command, str(asked.config_file))
    (starts,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    return _change(asked, asked.unit_file, text, lambda old: starts in old.splitlines(), findings)


def _change(
    asked: Asked, path: Path, body: str, says_the_same: Callable[[str], bool], findings: list[Finding]
) -> Change:
    """Return what becomes of one file. What a person edited stays unless it must change, and then only by force."""
    content = marked(body)
    try:
        old = path.read_text(errors="replace")  # to compare and to show; what is kept of it are its bytes
    except FileNotFoundError:
        return Change(str(path), "made", content)
    if old == content:
        return Change(str(path), "unchanged", old)
    diff = "".join(difflib.unified_diff(_body(old), _body(content), f"{path} (now)", f"{path} (wanted)", n=1)).rstrip(
        "\n"
    )
    if not is_edited(old):
        return Change(str(path), "replaced", content, diff)
    if _holds(says_the_same, old):
        findings.append(Finding(Kind.NOTE, f"{path} was edited by hand and says what is wanted: it stays"))
        return Change(str(path), "unchanged", old)
    if not asked.is_forced:
        hint = "edit it, or --force replaces it and keeps a copy beside it"
        findings.append(_fault(f"{path} was edited by hand, and would change:\n{diff}", hint, ExitStatus.CONFLICT))
    return Change(str(path), "replaced", content, diff, backup=str(_free_name(path)))


def _body(text: str) -> list[str]:
    """Return the lines of a file without its mark."""
    return (text if is_edited(text) else text.partition("\n")[2]).splitlines(keepends=True)


def _holds(says_the_same: Callable[[str], bool], text: str) -> bool:
    try:
        return says_the_same(text)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError):
        return False


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.bak{number or ''}") for number in range(1000))
    return next(name for name in names if not name.exists())


def _next(asked: Asked, config: ServerConfig, *, has_systemd: bool, is_served: bool) -> Iterator[str]:
    if not config.installer:
        yield "cloner initramfs build --drivers full --out /var/lib/cloner-installer"
        yield "cloner init --installer /var/lib/cloner-installer"
    if not is_served:
        told = "" if asked.config_file == CONFIG_FILE else f"--config {shlex.quote(str(asked.config_file))}"
        yield "systemctl enable --now cloner" if has_systemd else f"cloner serve {told}".rstrip()
    yield "cloner status"
    yield "cloner disklayout-upload --disklayout NAME --file LAYOUT.yaml"
    yield "cloner new-image --root DIR --image NAME --disklayout NAME"
    yield "cloner node add NODE --mac MAC --image NAME --disklayout NAME"
    yield "cloner deploy --nodes NODE --wait"


def _fault(what: str, remedy: str, status: ExitStatus = ExitStatus.REFUSED) -> Finding:
    return Finding(Kind.FAULT, what, remedy, status)
