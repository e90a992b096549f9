"""The identity of one node, as files of its clone: names, keys, network, and what of the golden node must go.

Pure: takes what the server knows and the vault holds, gives files. Must not read an image or decide what is captured
(`cloner_agent.capture.golden_identity`); it removes the same things again, for images that others made.
"""

from __future__ import annotations

import base64
import hashlib
import re

import msgspec

from cloner_core import confirmation
from cloner_core.errors import InvalidError
from cloner_core.messages import ConfirmTo, Vaulted
from cloner_core.network import Interface, NodeNetwork, network_faults

_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_NETWORK_FOLDER = "/etc/systemd/network"
_SEED_BYTES = 512


class IdentityFile(msgspec.Struct, frozen=True):
    """One file to write, replacing what is there; parents are made 0755. Its content never shows in a log."""

    path: str  # absolute in the clone
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    is_secret: bool = False

    def __repr__(self) -> str:
        return f"IdentityFile({self.path!r}, {len(self.content)} bytes, {self.mode:04o})"


class IdentityLink(msgspec.Struct, frozen=True):
    """One symbolic link to make, replacing what is there."""

    path: str
    target: str


class Removal(msgspec.Struct, frozen=True):
    """Files to remove where they exist; "*" stands for one name. Come before any file to write."""

    path: str


class ImageIdentity(msgspec.Struct, frozen=True):
    """What the restored image says of itself, as far as an identity has to fit in."""

    hosts: bytes = b""  # content of /etc/hosts
    hostname: str = ""  # content of /etc/hostname
    has_dbus_machine_id: bool = False  # /var/lib/dbus/machine-id is a regular file, not a link
    has_cloud_init: bool = False  # /etc/cloud exists
    has_systemd: bool = True  # /etc/systemd exists
    has_bash: bool = True  # /bin/bash exists


class IdentityMade(msgspec.Struct, frozen=True):
    """What to do, in this order."""

    removals: tuple[Removal, ...]
    files: tuple[IdentityFile | IdentityLink, ...]
    notes: tuple[str, ...] = ()


REMOVALS = tuple(
    Removal(path)
    for path in (
        "/boot/efi/loader/random-seed",
        "/boot/loader/random-seed",
        "/efi/loader/random-seed",
        "/etc/ssh/ssh_host_*",
        "/etc/hostid",
        "/etc/dhcpcd.duid",
        "/etc/nvme/hostid",
        "/etc/nvme/hostnqn",
        "/etc/iscsi/initiatorname.iscsi",
        "/etc/krb5.keytab",
        # EL 9 and later refuse volumes of devices not listed there, and the list names the golden node's
        "/etc/lvm/devices/system.devices",
        "/etc/udev/rules.d/70-persistent-net.rules",
        f"{_NETWORK_FOLDER}/*-cloner-*.network",  # of the node this image was captured from
        "/var/lib/NetworkManager/*.lease",
        "/var/lib/NetworkManager/secret_key",
        "/var/lib/dhclient/*.lease",
        "/var/lib/dhclient/*.leases",
        "/var/lib/dhcp/*.lease",
        "/var/lib/dhcp/*.leases",
        "/var/lib/dhcpcd/*.lease",
        "/var/lib/dhcpcd/*.lease6",
        "/var/lib/dhcpcd/duid",
        "/var/lib/dhcpcd/secret",
        "/var/lib/systemd/credential.secret",
        "/var/lib/systemd/random-seed",
        "/var/lib/urandom/random-seed",
        confirmation.SETTINGS,
    )
)
"""What a clone must not share with any other machine, as patterns."""


def identity_files(
    network: NodeNetwork, vaulted: Vaulted, image: ImageIdentity, confirm: ConfirmTo | None
) -> IdentityMade:
    """Return the files that make a restored image the node of `network` and `vaulted`.

    Raises InvalidError naming every fault when they cannot be written as they are.
    """
    faults = network_faults(network)
    if not _MACHINE_ID.fullmatch(vaulted.machine_id):
        faults.append(f"machine_id: '{vaulted.machine_id}' is not 32 lower-case hexadecimal digits (machine-id(5))")
    if faults:
        raise InvalidError("the identity cannot be written", faults=faults)
    machine_id = f"{vaulted.machine_id}\n".encode()
    files: list[IdentityFile | IdentityLink] = [
        IdentityFile("/etc/hostname", f"{network.hostname}\n".encode()),
        IdentityFile("/etc/hosts", hosts_content(image.hosts, network.hostname, image.hostname.strip())),
        IdentityFile("/etc/machine-id", machine_id, mode=0o444),
    ]
    if image.has_dbus_machine_id:
        files.append(IdentityFile("/var/lib/dbus/machine-id", machine_id))
    files += _host_key_files(vaulted, network.hostname)
    for index, interface in enumerate(network.interfaces):
        path = f"{_NETWORK_FOLDER}/05-cloner-{index}.network"
        files.append(IdentityFile(path, network_content(interface)))
    if image.has_systemd:
        seed = bytes.fromhex(vaulted.random_seed.value)[:_SEED_BYTES]
        files.append(IdentityFile("/var/lib/systemd/random-seed", seed, mode=0o600, is_secret=True))
    if image.has_cloud_init:
        files.append(IdentityFile("/etc/cloud/cloud.cfg.d/99-cloner.cfg", _CLOUD_INIT))
    notes = []
    if confirm is not None and image.has_systemd and image.has_bash:
        files += _confirm_files(confirm)
    elif confirm is not None:
        notes.append("the image has no systemd or no bash: the clone cannot report that it booted")
    return IdentityMade(REMOVALS, tuple(files), tuple(notes))


def hosts_content(old: bytes, hostname: str, old_hostname: str = "") -> bytes:
    """Return /etc/hosts with this node at 127.0.1.1 and the golden node's name gone; other lines stay."""
    short = hostname.partition(".")[0]
    names = hostname if hostname == short else f"{hostname} {short}"
    own = f"127.0.1.1\t{names}".encode()
    former = {name.encode() for name in (old_hostname, old_hostname.partition(".")[0]) if name} - {b"localhost"}
    lines, place = [], None
    for line in old.splitlines() or [b"127.0.0.1\tlocalhost", b"::1\tlocalhost ip6-localhost ip6-loopback"]:
        words = line.partition(b"#")[0].split()
        if words[:1] == [b"127.0.1.1"]:
            continue
        kept = _without(line, words, former)
        if kept is not None:
            lines.append(kept)
        if words[:1] == [b"127.0.0.1"] and place is None:
            place = len(lines)
    lines.insert(0 if place is None else place, own)
    return b"\n".join(lines) + b"\n"


def _without(line: bytes, words: list[bytes], former: set[bytes]) -> bytes | None:
    """Return a loopback `line` without the names in `former`; None when nothing but its address remains."""
    if not words or words[0] not in (b"127.0.0.1", b"::1") or not former & set(words[1:]):
        return line
    kept = [word for word in words[1:] if word not in former]
    return words[0] + b"\t" + b" ".join(kept) if kept else None


def network_content(interface: Interface) -> bytes:
    """Return a systemd.network(5) file for one interface, found by its MAC and never by a name the kernel gave."""
    lines = ["# Written by Cloner.", "[Match]", f"MACAddress={interface.mac}", "", "[Network]"]
    lines.append(f"DHCP={'yes' if interface.dhcp else 'no'}")
    lines += [f"Address={address}" for address in interface.addresses]
    lines += [f"Gateway={interface.gateway}"] if interface.gateway else []
    lines += [f"DNS={address}" for address in interface.dns]
    lines += [f"Domains={' '.join(interface.domains)}"] if interface.domains else []
    if interface.dhcp:
        # by default networkd derives the client id from machine-id, and a server that knows MACs gives another lease
        lines += ["", "[DHCPv4]", "ClientIdentifier=mac"]
    return ("\n".join(lines) + "\n").encode()


def ssh_fingerprint(public: str) -> str:
    """Return "SHA256:…" of a public key line, as `ssh-keygen -l` prints it.

    Raises InvalidError when `public` is no OpenSSH public key.
    """
    words = public.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, ValueError) as error:
        raise InvalidError(f"'{public[:40]}' is not an OpenSSH public key") from error
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()


def _host_key_files(vaulted: Vaulted, hostname: str) -> list[IdentityFile]:
    files = []
    for key in vaulted.host_keys:
        path = f"/etc/ssh/ssh_host_{key.algorithm}_key"
        files.append(IdentityFile(path, key.private.value.encode(), mode=0o600, is_secret=True))
        files.append(IdentityFile(f"{path}.pub", f"{key.public.strip()} root@{hostname}\n".encode()))
    return files


def _confirm_files(confirm: ConfirmTo) -> list[IdentityFile | IdentityLink]:
    content = confirmation.settings_content(confirm)
    return [
        IdentityFile(confirmation.SETTINGS, content, mode=0o600, is_secret=True),
        IdentityFile(confirmation.SCRIPT, confirmation.SCRIPT_CONTENT, mode=0o755),
        IdentityFile(confirmation.UNIT, confirmation.UNIT_CONTENT),
        IdentityLink(confirmation.WANTS, "../cloner-confirm.service"),
    ]


_CLOUD_INIT = b"""# Written by Cloner: cloud-init sees a new machine, and would replace the identity it was given.
ssh_deletekeys: false
ssh_genkeytypes: []
preserve_hostname: true
manage_etc_hosts: false
network: {config: disabled}
"""
