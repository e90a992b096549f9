"""Recovery keys: what opens the encrypted disks of a node by hand, sealed in the database as its identity is.

A key is never taken away: a disk that was cloned before the newest one was made may still want a former one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, func, insert, select

from cloner_core.errors import IntegrityError, NotFoundError
from cloner_core.messages import Secret
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import recovery_keys

_LETTERS = "cbdefghijklnrtuv"  # on one key of nearly every keyboard there is, whatever its layout (modhex)
_GROUPS, _GROUP = 8, 4  # 128 bits


@dataclass(frozen=True, slots=True)
class Recovery:
    """One key of a node."""

    number: int  # from 1; the greatest is given to new clones
    key: Secret = field(repr=False)
    made_s: float


def make_key() -> str:
    """Return a new key: groups of letters with a space between, which is a part of it."""
    groups = ("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return " ".join(groups)


def ensure_key(connection: Connection, act: Act, node: str, vault_key: bytes) -> Secret:
    """Return the newest key of `node`, made now when it has none."""
    if not has_key(connection, node):
        add_key(connection, act, node, vault_key)
    return list_keys(connection, node, vault_key)[0].key


def has_key(connection: Connection, node: str) -> bool:
    """Tell whether a key was ever made for `node`."""
    return connection.execute(select(recovery_keys.c.number).where(recovery_keys.c.node == node)).first() is not None


def add_key(connection: Connection, act: Act, node: str, vault_key: bytes) -> None:
    """Make a further key for `node`, which its next clone gets."""
    query = select(func.coalesce(func.max(recovery_keys.c.number), 0)).where(recovery_keys.c.node == node)
    number = int(connection.execute(query).scalar_one()) + 1
    nonce = secrets.token_bytes(12)
    sealed = AESGCM(vault_key).encrypt(nonce, make_key().encode(), _bound_to(node, number))
    row = {"node": node, "number": number, "nonce": nonce, "sealed": sealed, "made_s": act.now_s}
    connection.execute(insert(recovery_keys).values(row))
    events.record(connection, act, f"node/{node}", "recovery key made", number=number)


def list_keys(connection: Connection, node: str, vault_key: bytes) -> list[Recovery]:
    """Return all keys of `node`, the newest first; raises IntegrityError when a seal is broken."""
    query = select(recovery_keys).where(recovery_keys.c.node == node).order_by(recovery_keys.c.number.desc())
    found = []
    for row in connection.execute(query):
        try:
            plain = AESGCM(vault_key).decrypt(row.nonce, row.sealed, _bound_to(node, row.number))
        except InvalidTag as fault:
            raise IntegrityError(
                f"recovery key {row.number} of '{node}' does not open with this site's vault key",
                hint="restore database and keys together",
            ) from fault
        found.append(Recovery(row.number, Secret(plain.decode()), row.made_s))
    return found


def show_keys(connection: Connection, act: Act, node: str, vault_key: bytes) -> list[Recovery]:
    """Return all keys of `node` to a person, the newest first, and note who saw them.

    Raises NotFoundError when none was ever made.
    """
    found = list_keys(connection, node, vault_key)
    if not found:
        raise NotFoundError(
            f"no recovery key was made for {node}",
            hint="its first deploy with an encrypted layout makes one; so look at its name and its layout",
        )
    events.record(connection, act, f"node/{node}", "recovery key shown", numbers=[one.number for one in found])
    return found


def nodes_with_keys(connection: Connection) -> list[str]:
    """Return the names of all nodes that have a key."""
    query = select(recovery_keys.c.node).distinct().order_by(recovery_keys.c.node)
    return list(connection.execute(query).scalars())


def _bound_to(node: str, number: int) -> bytes:
    return f"recovery key\0{node}\0{number}".encode()
