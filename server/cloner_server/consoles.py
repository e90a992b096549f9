"""The console's side of the server: each node's host key, the password an agent is told, what it reports of guesses.

Host keys derive from a key of the site, so they need no place in a backup and are the same at each boot. They are the
console's alone: a machine that got one may pretend to be this node's console, never the clone's SSH server.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sqlalchemy import Connection

from cloner_core.admin.nodes import NodeView
from cloner_core.messages import ConsoleAccess, ConsoleReport, PasswordHash, Secret
from cloner_core.passwords import DEFAULT_PASSWORD, SALT_BYTES, hash_password
from cloner_server.state import consoles, events, nodes
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tasks import AnyRow

ALARM_GUESSES = 10
_QUIET_S = 60.0  # between two events of one console
_GUESSED, _VIEWED = "console guessed", "console viewed"


def console_key(vault_key: bytes) -> bytes:
    """Return the key that all host keys of consoles derive from."""
    return blake3(vault_key, derive_key_context="cloner 2026 host keys of consoles").digest()


def host_key_line(key: bytes, node: str) -> str:
    """Return the public key of the console of `node` in OpenSSH's format, without comment."""
    return _host_key(key, node).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def access_for(connection: Connection, node: NodeView, key: bytes) -> ConsoleAccess:
    """Return what the agent on `node` is told."""
    private = _host_key(key, node.name).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    _, password = consoles.source_of(
        consoles.kept_passwords(connection, node.name, node.groups), node.name, node.groups
    )
    return ConsoleAccess(host_key=Secret(private), password=password or _default_password(key))


def hear(connection: Connection, act: Act, attempt: AnyRow, node: str, report: ConsoleReport) -> None:
    """Keep what a console has seen; guesses and views become events, ten guesses an alarm, and each tenfold again."""
    before = msgspec.json.decode(attempt.console, type=ConsoleReport) if attempt.console else ConsoleReport()
    # Never downwards: an agent that tells less than before, and more again, must not raise alarm after alarm.
    most = max(report.guesses, before.guesses), max(report.views, before.views)
    report = msgspec.structs.replace(report, guesses=most[0], views=most[1])
    if report == before:
        return
    rows.change_attempt(connection, attempt.id, console=msgspec.json.encode(report).decode())
    obj, told = f"node/{node}", {"attempt": attempt.id}
    if report.guesses > before.guesses:
        is_alarm = _magnitude(report.guesses) > _magnitude(before.guesses)
        if is_alarm or not events.count_since(connection, obj, _GUESSED, act.now_s - _QUIET_S):
            told |= {"guesses": str(report.guesses), "last_from": report.last_from}
            events.record(connection, act, obj, _GUESSED, alarm=is_alarm, **told)
    elif report.views > before.views and not events.count_since(connection, obj, _VIEWED, act.now_s - _QUIET_S):
        events.record(connection, act, obj, _VIEWED, **told)


def default_warning(connection: Connection) -> str:
    """Return what is to be said of nodes whose console takes the password everybody knows; "" when none does."""
    kept = consoles.kept_passwords(connection)
    if ("site", "") in kept:
        return ""
    views = nodes.list_nodes(connection)
    count = sum(view.console_password == consoles.DEFAULT for view in views)
    if views and not count:
        return ""
    which = "of every node to come" if not views else f"of {count} node{'s' * (count != 1)}"
    return f"the console {which} takes the password everybody knows: cloner console password --site"


def _magnitude(guesses: int) -> int:
    """Return 0 below ten guesses, then how many digits there are."""
    return 0 if guesses < ALARM_GUESSES else len(str(guesses))


def _host_key(key: bytes, node: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(blake3(node.encode(), key=key).digest())


@lru_cache(maxsize=4)
def _default_password(key: bytes) -> PasswordHash:
    salt = blake3(key, derive_key_context="cloner 2026 salt of the default password").digest(SALT_BYTES)
    return hash_password(DEFAULT_PASSWORD, salt)
