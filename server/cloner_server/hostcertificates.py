"""SSH certificates of host keys: signed by the site's own SSH CA, so that clients believe every node by one line.

The CA's key derives from the vault key. It exists from the first start on, needs no file of its own in a backup, and
guards no more than the vault key does: who has that has every host key already.
"""

from __future__ import annotations

import ipaddress

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_key,
)

from cloner_core.admin.nodes import NodeView
from cloner_core.messages import HostKey, Vaulted

# Clocks of nodes and clients may be far off, and a clone renews nothing by itself: as long as the site's CA lives.
_NOT_BEFORE_S = 1_577_836_800  # 2020-01-01
_NOT_AFTER_S = 3_155_673_600  # 2070-01-01


def authority_line(vault_key: bytes) -> str:
    """Return the public key of the site's SSH CA in OpenSSH's format, without comment."""
    return _authority(vault_key).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def principals(node: NodeView) -> tuple[str, ...]:
    """Return the names and addresses a client may reach `node` by: those its certificates are for."""
    network = node.network
    links = (*network.interfaces, *network.bonds, *network.vlans)
    addresses = [str(ipaddress.ip_interface(address).ip) for link in links for address in link.addresses]
    names = (node.name, network.hostname, network.hostname.partition(".")[0], *addresses)
    return tuple(dict.fromkeys(names))


def key_id(node: str, attempt: str) -> str:
    """Return what the certificates of an attempt are named; host keys stay, so this alone tells its clone."""
    return f"{node} {attempt}".rstrip()


def certified(vaulted: Vaulted, node: NodeView, vault_key: bytes, *, attempt: str = "") -> Vaulted:
    """Return `vaulted` with a certificate for each host key of `node`, made for `attempt`; "" for a preview."""
    authority, name = _authority(vault_key), key_id(node.name, attempt)
    keys = tuple(
        msgspec.structs.replace(key, certificate=_certificate(key, node, authority, name)) for key in vaulted.host_keys
    )
    return msgspec.structs.replace(vaulted, host_keys=keys)


def _authority(vault_key: bytes) -> Ed25519PrivateKey:
    derived = blake3(vault_key, derive_key_context="cloner 2026 ssh certificate authority").digest()
    return Ed25519PrivateKey.from_private_bytes(derived)


def _certificate(key: HostKey, node: NodeView, authority: Ed25519PrivateKey, name: str) -> str:
    builder = (
        SSHCertificateBuilder()
        .public_key(load_ssh_public_key(key.public.encode()))  # type: ignore[arg-type]  # one of the three we make
        .serial(int.from_bytes(blake3(key.public.encode()).digest(8)))  # tells keys apart, e.g. to revoke one
        .type(SSHCertificateType.HOST)
        .key_id(name.encode())
        .valid_principals([name.encode() for name in principals(node)])
        .valid_after(_NOT_BEFORE_S)
        .valid_before(_NOT_AFTER_S)
    )
    return builder.sign(authority).public_bytes().decode()
