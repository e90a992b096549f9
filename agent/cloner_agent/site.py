"""What the boot and the site layer of the initramfs tell the agent: server, claim, interface, CA, signing key.

Must not open a connection; everything here is read once, at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cloner_core.errors import InvalidError
from cloner_core.facts import normalize_mac
from cloner_core.messages import PROTOCOL

CONFIG_DIRECTORY = "/etc/cloner"


@dataclass(frozen=True, slots=True)
class BootArguments:
    """The kernel command line as far as it concerns the agent."""

    host: str
    port: int
    claim: str
    boot_mac: str  # "" when the boot loader gave no BOOTIF
    is_debug: bool
    is_discover: bool = False  # tell the facts and restart; nothing else
    is_wait: bool = False  # for a multicast session; then go on with the claim it brings

    def __repr__(self) -> str:
        return f"BootArguments({self.host}:{self.port}, claim=***, boot_mac={self.boot_mac})"


class Site(msgspec.Struct, frozen=True):
    """The part of site.json the agent needs; other programs of the initramfs have fields of their own in it."""

    protocol: int
    server_key: str  # hex, Ed25519 public key: signs versions and pack maps


@dataclass(frozen=True, slots=True)
class Trust:
    """What makes a server ours."""

    ca_pem: str
    server_key: bytes  # 32 bytes


def parse_arguments(command_line: str) -> BootArguments:
    """Read `cloner.server`, `cloner.claim` and `BOOTIF`; of a repeated argument the last counts, as in the kernel.

    Raises InvalidError naming every fault.
    """
    values = dict(word.partition("=")[::2] for word in command_line.split())
    faults = []
    url = urlsplit(values.get("cloner.server", ""))
    host, port = "", 0
    try:
        host, port = url.hostname or "", url.port or 8443
    except ValueError as error:
        faults.append(f"cloner.server: {error}")
    if url.scheme != "https" or not host:
        faults.append(f"cloner.server: '{values.get('cloner.server', '')}' is not https://HOST[:PORT]")
    if not values.get("cloner.claim"):
        faults.append("cloner.claim: missing; only a network boot through the server gives a claim")
    mac = ""
    if bootif := values.get("BOOTIF", ""):
        try:
            # pxelinux puts the ARP hardware type in front: 01- is Ethernet.
            mac = normalize_mac(bootif[3:] if len(bootif) == 20 else bootif)
        except ValueError as error:
            faults.append(f"BOOTIF: {error}")
    if faults:
        raise InvalidError("the kernel command line does not start a deploy", faults=faults)
    return BootArguments(
        host,
        port,
        values["cloner.claim"],
        mac,
        is_debug=values.get("cloner.debug") == "1",
        is_discover=values.get("cloner.discover") == "1",
        is_wait=values.get("cloner.wait") == "1",
    )


def load_trust(directory: str | Path = CONFIG_DIRECTORY) -> Trust:
    """Read ca.pem and site.json of the site layer.

    Raises InvalidError when one is missing, unreadable or of another protocol.
    """
    base = Path(directory)
    try:
        ca_pem = (base / "ca.pem").read_text()
        site = msgspec.json.decode((base / "site.json").read_bytes(), type=Site)
        key = bytes.fromhex(site.server_key)
    except (OSError, ValueError) as error:
        raise InvalidError(
            f"the site layer of the initramfs is not usable: {error}",
            hint="the server appends it at each boot; boot this initramfs through a Cloner server",
        ) from error
    if site.protocol != PROTOCOL:
        raise InvalidError(
            f"the initramfs is of protocol {PROTOCOL}, the site layer of {site.protocol}",
            hint="rebuild the initramfs with 'cloner initramfs build'",
        )
    if len(key) != 32:
        raise InvalidError(f"site.json: server_key has {len(key)} bytes, want 32")
    return Trust(ca_pem, key)
