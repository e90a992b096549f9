"""What an identity is made of and made for: files, links, removals, and what the image says of itself."""

from __future__ import annotations

from enum import StrEnum

import msgspec


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
    """What to remove where it exists, before any file is written.

    Files and links; "*" stands for one name, "/**" at the end for everything beneath a directory, directories too.
    """

    path: str


class NetworkSystem(StrEnum):
    """What configures the network of an image."""

    NETPLAN = "netplan"
    NETWORKD = "systemd-networkd"
    NETWORK_MANAGER = "NetworkManager"
    IFUPDOWN = "ifupdown"


class ImageIdentity(msgspec.Struct, frozen=True):
    """What the restored image says of itself, as far as an identity has to fit in."""

    hosts: bytes = b""  # content of /etc/hosts
    hostname: str = ""  # content of /etc/hostname
    has_dbus_machine_id: bool = False  # /var/lib/dbus/machine-id is a regular file, not a link
    has_cloud_init: bool = False  # /etc/cloud exists
    has_systemd: bool = True  # /etc/systemd exists
    has_bash: bool = True  # /bin/bash exists
    has_resolvconf: bool = True  # something takes the dns-nameservers lines of ifupdown
    has_nvme: bool = False  # /etc/nvme exists
    has_iscsi: bool = False  # /etc/iscsi exists
    has_sshd_parts: bool = False  # sshd reads /etc/ssh/sshd_config.d/*.conf
    network_systems: tuple[NetworkSystem, ...] = (NetworkSystem.NETWORKD,)  # the ones in use, the leading one first


class IdentityMade(msgspec.Struct, frozen=True):
    """What to do, in this order."""

    removals: tuple[Removal, ...]
    files: tuple[IdentityFile | IdentityLink, ...]
    notes: tuple[str, ...] = ()
