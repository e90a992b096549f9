"""What makes a site itself: CA, server certificate, signing key, vault key; made once, at the first start.

Only the server's certificate is ever made anew (`renew_certificate`).

All of it lies in one directory beside the database, readable by root alone, and appears at once or not at all: it is
made under a temporary name, synced and renamed. The database never holds any of it.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cloner_core.errors import ClonerError
from cloner_server.certificates import load_key, load_pair, make_ca, make_server, renewed
from cloner_server.durable import replace_file, sync_directory, write_new

_CA, _CERTIFICATE, _KEY, _SIGNING, _VAULT = "ca.pem", "server.pem", "server.key", "signing.key", "vault.key"
_CA_KEY = "ca.key"
SITE_FILES = (_CA, _CA_KEY, _CERTIFICATE, _KEY, _SIGNING, _VAULT)
"""All that a site consists of."""


@dataclass(frozen=True, slots=True)
class Site:
    """The keys of this site."""

    ca_pem: bytes
    certificate: Path
    certificate_key: Path
    signing_key: Ed25519PrivateKey = field(repr=False)
    vault_key: bytes = field(repr=False)  # 32 bytes, AES-256

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that versions, pack maps and receipts verify with."""
        return self.signing_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, data: bytes) -> bytes:
        """Return the Ed25519 signature (64 bytes) of `data`."""
        return self.signing_key.sign(data)


def open_site(state: Path, now_s: float) -> tuple[Site, bool]:
    """Return the site kept beneath `state` and whether it was made just now, at `now_s`.

    Raises ClonerError when parts of it are missing: a CA made anew would lock out every node and version.
    """
    directory = state / "site"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    is_new = not directory.exists()
    if is_new:
        _make(state, directory, now_s)
    try:
        signing = load_pem_private_key((directory / _SIGNING).read_bytes(), None)
        vault_key = bytes.fromhex((directory / _VAULT).read_text())
        site = Site(
            (directory / _CA).read_bytes(), directory / _CERTIFICATE, directory / _KEY, _ed25519(signing), vault_key
        )
        complete = len(vault_key) == 32 and site.certificate.exists() and site.certificate_key.exists()
    except (OSError, ValueError) as fault:
        raise ClonerError(
            f"{directory} is not usable: {fault}", hint="restore it from a backup (cloner state import)"
        ) from fault
    if not complete:
        raise ClonerError(f"{directory} is not complete", hint="restore it from a backup")
    return site, is_new


def renew_certificate(site: Site, now_s: float) -> bool:
    """Put a new certificate in place of the server's when that one ends soon; return whether it was done.

    The key stays, so that nobody ever sees a key and a certificate that do not fit. Raises ClonerError when the CA
    cannot sign.
    """
    directory = site.certificate.parent
    try:
        ca = load_pair(site.ca_pem, (directory / _CA_KEY).read_bytes())
        key = load_key(site.certificate_key.read_bytes())
        pem = renewed(ca, site.certificate.read_bytes(), key, now_s)
    except (OSError, ValueError) as fault:
        raise ClonerError(
            f"the server's certificate cannot be renewed: {fault}", hint=f"look at {directory}"
        ) from fault
    if pem is None:
        return False
    replace_file(site.certificate, pem, 0o644)
    return True


def _ed25519(key: object) -> Ed25519PrivateKey:
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("signing.key is not an Ed25519 key")
    return key


def _make(state: Path, directory: Path, now_s: float) -> None:
    for left_over in state.glob(".site-*"):
        shutil.rmtree(left_over)
    fresh = state / f".site-{secrets.token_hex(4)}"
    fresh.mkdir(mode=0o700)
    ca, key = make_ca(), ec.generate_private_key(ec.SECP256R1())
    server = make_server(ca, key, now_s)
    write_new(fresh / _CA, ca.pem, 0o644)
    write_new(fresh / _CA_KEY, _pem(ca.key), 0o600)
    write_new(fresh / _CERTIFICATE, server.public_bytes(Encoding.PEM), 0o644)
    write_new(fresh / _KEY, _pem(key), 0o600)
    write_new(fresh / _SIGNING, _pem(Ed25519PrivateKey.generate()), 0o600)
    write_new(fresh / _VAULT, secrets.token_hex(32).encode(), 0o600)
    sync_directory(fresh)
    fresh.rename(directory)
    sync_directory(state)


def _pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
