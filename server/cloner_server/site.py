"""What makes a site itself: CA, server certificate, signing key, vault key; made once, at the first start.

All of it lies in one directory beside the database, readable by root alone, and appears at once or not at all: it is
made under a temporary name, synced and renamed. The database never holds any of it.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloner_core.errors import ClonerError

SERVER_NAME = "cloner-server"
"""The one name in the server's certificate; nodes connect by address and check this name."""

_CA, _CERTIFICATE, _KEY, _SIGNING, _VAULT = "ca.pem", "server.pem", "server.key", "signing.key", "vault.key"
# Clocks of nodes and of a restored server may be far off, and nothing renews a CA in an initramfs by itself.
_NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(2069, 12, 31, tzinfo=datetime.UTC)


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


def open_site(state: Path) -> tuple[Site, bool]:
    """Return the site kept beneath `state` and whether it was made just now.

    Raises ClonerError when parts of it are missing: a CA made anew would lock out every node and version.
    """
    directory = state / "site"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    is_new = not directory.exists()
    if is_new:
        _make(state, directory)
    try:
        signing = load_pem_private_key((directory / _SIGNING).read_bytes(), None)
        vault_key = bytes.fromhex((directory / _VAULT).read_text())
        site = Site(
            (directory / _CA).read_bytes(), directory / _CERTIFICATE, directory / _KEY, _ed25519(signing), vault_key
        )
        complete = len(vault_key) == 32 and site.certificate.exists() and site.certificate_key.exists()
    except (OSError, ValueError) as fault:
        raise ClonerError(f"{directory} is not usable: {fault}", hint="restore it from a backup") from fault
    if not complete:
        raise ClonerError(f"{directory} is not complete", hint="restore it from a backup")
    return site, is_new


def _ed25519(key: object) -> Ed25519PrivateKey:
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("signing.key is not an Ed25519 key")
    return key


def _make(state: Path, directory: Path) -> None:
    for left_over in state.glob(".site-*"):
        shutil.rmtree(left_over)
    fresh = state / f".site-{secrets.token_hex(4)}"
    fresh.mkdir(mode=0o700)
    ca_key = ec.generate_private_key(ec.SECP256R1())  # P-256: what every TLS stack accepts
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Cloner site CA {secrets.token_hex(4)}")])
    ca = _certificate(ca_name, ca_name, ca_key.public_key(), ca_key, is_ca=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    certificate = _certificate(name, ca_name, key.public_key(), ca_key, is_ca=False)
    _write(fresh / _CA, ca.public_bytes(Encoding.PEM), 0o644)
    _write(fresh / "ca.key", _pem(ca_key), 0o600)
    _write(fresh / _CERTIFICATE, certificate.public_bytes(Encoding.PEM), 0o644)
    _write(fresh / _KEY, _pem(key), 0o600)
    _write(fresh / _SIGNING, _pem(Ed25519PrivateKey.generate()), 0o600)
    _write(fresh / _VAULT, secrets.token_hex(32).encode(), 0o600)
    _sync_directory(fresh)
    fresh.rename(directory)
    _sync_directory(state)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
