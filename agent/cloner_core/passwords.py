"""Passwords of the console: only their salted hash is sent, kept and compared.

Pure; the salt comes from the caller. scrypt (RFC 7914) with 8 MiB: what a 512 MiB node can spare for one guess.
"""

from __future__ import annotations

import hashlib
import hmac

from cloner_core.errors import InvalidError
from cloner_core.messages import PasswordHash

USER = "ssh"
"""The one user of the console."""
DEFAULT_PASSWORD = "breakin"
"""What every node's console takes until the site sets its own; known to everybody."""
PORT = 22
SALT_BYTES = 16
MAX_BYTES = 256
"""A longer password is wrong without being looked at."""
_SHORTEST = 6
_N, _R, _P = 1 << 13, 8, 1


def hash_password(password: str, salt: bytes) -> PasswordHash:
    """Return what is kept of `password`; `salt` is 16 random bytes."""
    return PasswordHash(salt=salt.hex(), digest=_digest(password.encode(), salt).hex())


def is_password(password: str, kept: PasswordHash) -> bool:
    """Tell whether `kept` was made of `password`; takes as long for a wrong one as for the right one."""
    data = password.encode(errors="surrogateescape")
    is_long = len(data) > MAX_BYTES
    digest = _digest(b"" if is_long else data, bytes.fromhex(kept.salt))
    return hmac.compare_digest(digest.hex(), kept.digest) and not is_long


def _digest(password: bytes, salt: bytes) -> bytes:
    # Hashed first: HMAC, on which scrypt stands, takes "x" and "x" with zeros behind it for one key.
    return hashlib.scrypt(hashlib.sha256(password).digest(), salt=salt, n=_N, r=_R, p=_P, dklen=32)


def require_password(password: str) -> None:
    """Raise InvalidError naming every reason why nobody could, or should, log in with `password`."""
    faults = []
    if len(password) < _SHORTEST:
        faults.append(f"it has {len(password)} characters, at least {_SHORTEST} are wanted")
    if len(password.encode(errors="surrogateescape")) > MAX_BYTES:
        faults.append(f"it has more than {MAX_BYTES} bytes")
    if not password.isprintable():
        faults.append("it has characters that cannot be typed")
    if faults:
        raise InvalidError("this password cannot be used", faults=faults)
