"""The certificates of a site: its CA, and the server's certificate under it, renewed long before it ends.

Pure: bytes in, bytes out, time given. Where they lie is `cloner_server.site`.
"""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloner_core.errors import ClonerError

SERVER_NAME = "cloner-server"
"""The one name in the server's certificate; nodes connect by address and check this name."""

# Clocks of nodes and of a restored server may be far off, and nothing renews a CA in an initramfs by itself.
_NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_CA_NOT_AFTER = datetime.datetime(2069, 12, 31, tzinfo=datetime.UTC)
_LIFE = datetime.timedelta(days=730)
_RENEW = datetime.timedelta(days=240)  # before the end: a server that is started once in half a year keeps up
CA_WARNING_DAYS = 365
"""A site has to make itself a new CA, and put it into every initramfs: that wants a year's notice."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)


def make_ca() -> Pair:
    """Return a new CA."""
    key = ec.generate_private_key(ec.SECP256R1())  # P-256: what every TLS stack accepts
    name = _name(f"Cloner site CA {secrets.token_hex(4)}")
    return Pair(_certificate(name, name, key.public_key(), key, until=_CA_NOT_AFTER), key)


def make_server(ca: Pair, key: ec.EllipticCurvePrivateKey, now_s: float) -> x509.Certificate:
    """Return a certificate of the server's `key` for two years from `now_s` on, never longer than its CA's."""
    until = min(max(_moment(now_s), _NOT_BEFORE) + _LIFE, ca.certificate.not_valid_after_utc)
    return _certificate(
        _name(SERVER_NAME), ca.certificate.subject, key.public_key(), ca.key, until=until, name=SERVER_NAME
    )


def renewed(ca: Pair, server_pem: bytes, key: ec.EllipticCurvePrivateKey, now_s: float) -> bytes | None:
    """Return the certificate that is to replace `server_pem`; None while that one is good for long enough.

    One that ends with its CA is as good as can be. One that was not made by this CA, or not for this key, is replaced.
    """
    try:
        former = x509.load_pem_x509_certificate(server_pem)
        former.verify_directly_issued_by(ca.certificate)
        is_ours = former.public_key() == key.public_key()
    except Exception:  # noqa: BLE001 — of a damaged certificate only one thing is to be known
        is_ours = False
    if is_ours:
        until = former.not_valid_after_utc
        if until - _moment(now_s) > _RENEW or until >= ca.certificate.not_valid_after_utc:
            return None
    return make_server(ca, key, now_s).public_bytes(Encoding.PEM)


def load_pair(certificate: bytes, key: bytes) -> Pair:
    """Return what two PEM files hold; raises ClonerError when they do not belong together."""
    loaded, private = x509.load_pem_x509_certificate(certificate), load_key(key)
    if loaded.public_key() != private.public_key():
        raise ClonerError("the certificate is not of its key", hint="restore the site directory from a backup")
    return Pair(loaded, private)


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return a private key on P-256; raises ValueError for anything else."""
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is no key on an elliptic curve")
    return key


def days_left(certificate_pem: bytes, now_s: float) -> float:
    """Return for how many days a certificate is still good; negative when it has ended."""
    until = x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc
    return (until - _moment(now_s)) / datetime.timedelta(days=1)


def _moment(now_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(min(max(now_s, 0.0), 4e9), datetime.UTC)  # whatever a clock shows


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    until: datetime.datetime,
    name: str = "",
) -> x509.Certificate:
    """Return a certificate: with `name` that of a server, without it a CA's."""
    is_ca = not name
    usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(signer, hashes.SHA256())
