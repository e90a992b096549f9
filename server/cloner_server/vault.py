"""The vault: each node's machine-id and SSH host keys, made once before its first deploy, sealed in the database.

Sealed with AES-256-GCM under a key that lies outside the database, bound to the node's name, so a sealed identity
moved to another row does not open. Deciding who may have it is `cloner_server.tasks.attempts`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sqlalchemy import Connection, delete, insert, select

from cloner_core.errors import IntegrityError
from cloner_core.messages import HostKey, Secret, Vaulted
from cloner_server import recoverykeys
from cloner_server.state import events
from cloner_server.state.database import Act, Database
from cloner_server.state.tables import vault

_RSA_BITS = 3072  # what ssh-keygen makes


class _Identity(msgspec.Struct, frozen=True):
    machine_id: str
    host_keys: tuple[HostKey, ...]


@dataclass(frozen=True, slots=True)
class Sealed:
    """An identity that only the site's vault key opens."""

    nonce: bytes
    content: bytes


def ensure_identities(database: Database, act: Act, names: list[str], key: bytes) -> None:
    """Make what is missing; an identity once made is kept for every later deploy."""
    with database.read() as connection:
        have = set(connection.execute(select(vault.c.node).where(vault.c.node.in_(names))).scalars())
    for name in names:
        if name in have:
            continue
        nonce, sealed = _seal(name, make_identity(), key)  # outside the transaction: an RSA key takes a while
        with database.write() as connection:
            # Another request may have been faster; what is there first stays.
            if connection.execute(select(vault.c.node).where(vault.c.node == name)).first() is None:
                row = {"node": name, "nonce": nonce, "sealed": sealed, "created_s": act.now_s}
                connection.execute(insert(vault).values(row))
                events.record(connection, act, f"node/{name}", "identity made")


def seal_new(names: list[str], key: bytes) -> dict[str, Sealed]:
    """Make a new identity for each of `names`, sealed; takes a while, so it is done outside of transactions."""
    return {name: Sealed(*_seal(name, make_identity(), key)) for name in dict.fromkeys(names)}


def replace_identities(connection: Connection, act: Act, fresh: Mapping[str, Sealed], key: bytes) -> None:
    """Put the identities of `fresh` in place of those the vault holds; the former ones are gone for good.

    A node with a recovery key gets a new one as well, beside the former.
    """
    for name, sealed in fresh.items():
        row = {"node": name, "nonce": sealed.nonce, "sealed": sealed.content, "created_s": act.now_s}
        connection.execute(delete(vault).where(vault.c.node == name))
        connection.execute(insert(vault).values(row))
        events.record(connection, act, f"node/{name}", "identity renewed")
        if recoverykeys.has_key(connection, name):
            recoverykeys.add_key(connection, act, name, key)


def has_identity(connection: Connection, node: str) -> bool:
    """Tell whether the vault holds an identity of `node`."""
    return connection.execute(select(vault.c.node).where(vault.c.node == node)).first() is not None


def open_identity(connection: Connection, node: str, key: bytes) -> Vaulted:
    """Return the identity of `node` with a fresh random seed; raises IntegrityError when the seal is broken."""
    identity = _open(connection, node, key)
    return Vaulted(
        machine_id=identity.machine_id, host_keys=identity.host_keys, random_seed=Secret(secrets.token_hex(512))
    )


def machine_id(connection: Connection, node: str, key: bytes) -> str:
    """Return the machine-id of `node`, which is the part that receipts and confirmations name."""
    return _open(connection, node, key).machine_id


def publics(connection: Connection, node: str, key: bytes) -> tuple[str, ...]:
    """Return the public host keys of `node`, one line each without comment; none when it has no identity yet."""
    if not has_identity(connection, node):
        return ()
    return tuple(one.public for one in _open(connection, node, key).host_keys)


def make_identity() -> _Identity:
    """Return a new machine-id and new host keys."""
    ed25519, ecdsa = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    keys = (
        _host_key("ed25519", ed25519),
        _host_key("ecdsa", ecdsa),
        _host_key("rsa", rsa.generate_private_key(65537, _RSA_BITS)),
    )
    # machine-id(5): 128 random bits, formed as a version 4 UUID as systemd does.
    raw = bytearray(secrets.token_bytes(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    return _Identity(raw.hex(), keys)


def _host_key(algorithm: str, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> HostKey:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return msgspec.convert({"algorithm": algorithm, "private": {"value": private}, "public": public}, HostKey)


def _seal(node: str, identity: _Identity, key: bytes) -> tuple[bytes, bytes]:
    nonce = secrets.token_bytes(12)
    return nonce, AESGCM(key).encrypt(nonce, msgspec.json.encode(identity), node.encode())


def _open(connection: Connection, node: str, key: bytes) -> _Identity:
    row = connection.execute(select(vault).where(vault.c.node == node)).one_or_none()
    if row is None:
        raise IntegrityError(f"the vault holds no identity for '{node}'", hint="cloner deploy makes one")
    try:
        plain = AESGCM(key).decrypt(row.nonce, row.sealed, node.encode())
    except InvalidTag as fault:
        raise IntegrityError(
            f"the identity of '{node}' does not open with this site's vault key",
            hint="restore database and keys together",
        ) from fault
    return msgspec.json.decode(plain, type=_Identity)
