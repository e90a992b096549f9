"""The first half of SSH's key exchange, as its client: enough to have a host prove that it holds its host key.

Pure: bytes in, bytes out. No encryption is ever begun and nothing is logged in to; after the host's signature over the
exchange (RFC 4253 §8, RFC 8731, RFC 5656 §4) there is nothing more to learn. A key that is merely shown proves nothing.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from cloner_core.errors import InvalidError

VERSION = b"SSH-2.0-ClonerProbe"
PACKET_BYTES = 1 << 16  # RFC 4253 §6.1 wants 35000 at least
_DISCONNECT, _IGNORED = 1, (2, 3, 4)  # IGNORE, UNIMPLEMENTED, DEBUG
_KEXINIT, _ECDH_INIT, _ECDH_REPLY = 20, 30, 31
_CURVE25519 = ("curve25519-sha256", "curve25519-sha256@libssh.org")
_NISTP256 = "ecdh-sha2-nistp256"  # where FIPS rules
_PLAIN = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
# Certificates first: a host that has one is to show it.
_HOST_KEYS = (*(f"{name}-cert-v01@openssh.com" for name in _PLAIN), *_PLAIN)
_CIPHERS = ("aes128-ctr", "aes256-ctr", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
_MACS = ("hmac-sha2-256", "hmac-sha2-512", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")

# What `cryptography` says of a key it cannot read; NotImplementedError: of a compressed ECDSA point (RFC 5656 §3.1).
_UNREADABLE = (ValueError, UnsupportedAlgorithm, InvalidSignature, NotImplementedError)


class NoProofError(InvalidError):
    """The other side is no SSH server, or proves nothing."""


@dataclass(frozen=True, slots=True)
class HostProof:
    """What a host has proven: that it holds the private half of `public`, and which certificate it shows for it."""

    public: str  # one line without comment, as OpenSSH writes it
    key_id: str = ""  # of the certificate; "" without one, or for one that is none of `authority`


@dataclass
class Exchange:
    """One exchange: send `hello`, feed each packet's payload to `answer`, until `proof` is there."""

    authority: str  # public key of the CA whose certificates count, one line
    server_version: bytes = b""
    proof: HostProof | None = None
    _own_init: bytes = field(default_factory=lambda: _kexinit(secrets.token_bytes(16)))
    _server_init: bytes = b""
    _curve: str = ""
    _x25519: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    _p256: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def begin(self, server_version: bytes) -> bytes:
        """Return the first packet, once the server's identification (without line end) is known."""
        if not server_version.startswith((b"SSH-2.0-", b"SSH-1.99-")) or len(server_version) > 255:
            raise NoProofError(f"{server_version[:40]!r} is no SSH server")
        self.server_version = server_version
        return packet(self._own_init)

    def answer(self, payload: bytes) -> bytes:
        """Take one payload and return what is to be sent now; raises NoProofError when there will be no proof."""
        kind = payload[0] if payload else _DISCONNECT
        if kind in _IGNORED:
            return b""
        if kind == _KEXINIT and not self._server_init:
            return self._choose(payload)
        if kind == _ECDH_REPLY and self._server_init:
            self.proof = self._verify(payload)
            return b""
        raise NoProofError(f"the host ended the exchange (message {kind})")

    def _choose(self, payload: bytes) -> bytes:
        self._server_init = payload
        reader = _Reader(payload[17:])
        lists = [reader.string().decode("ascii", "replace").split(",") for _ in range(10)]
        curve = next((name for name in (*_CURVE25519, _NISTP256) if name in lists[0]), "")
        if not curve:
            raise NoProofError(f"no common key exchange: the host offers {', '.join(lists[0])[:200]}")
        if reader.byte():  # RFC 4253 §7: a guessed packet follows, which nobody here knows how to drop
            raise NoProofError("the host guesses the exchange")
        self._curve = curve
        return packet(bytes([_ECDH_INIT]) + _string(self._public()))

    def _public(self) -> bytes:
        if self._curve == _NISTP256:
            return self._p256.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return self._x25519.public_key().public_bytes_raw()

    def _shared(self, theirs: bytes) -> int:
        try:
            if self._curve == _NISTP256:
                point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
                return int.from_bytes(self._p256.exchange(ec.ECDH(), point))
            return int.from_bytes(self._x25519.exchange(X25519PublicKey.from_public_bytes(theirs)))
        except ValueError as fault:
            raise NoProofError(f"the host's half of the exchange is none: {fault}") from fault

    def _verify(self, payload: bytes) -> HostProof:
        reader = _Reader(payload[1:])
        host_key, theirs, signature = reader.string(), reader.string(), _Reader(reader.string())
        parts = (VERSION, self.server_version, self._own_init, self._server_init, host_key, self._public(), theirs)
        signed = hashlib.sha256(b"".join(map(_string, parts)) + _mpint(self._shared(theirs))).digest()
        key, key_id = self._identify(host_key)
        try:
            _check_signature(key, signature.string().decode("ascii", "replace"), signature.string(), signed)
        except (InvalidSignature, ValueError) as fault:
            raise NoProofError("the host does not hold the key it shows") from fault
        return HostProof(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(), key_id)

    def _identify(self, blob: bytes) -> tuple[_HostKey, str]:
        """Return the host's public key, and the key id of its certificate when our authority made that."""
        try:
            name = _Reader(blob).string()
            found = load_ssh_public_identity(name + b" " + base64.b64encode(blob))
            key = found.public_key() if isinstance(found, SSHCertificate) else found
        except _UNREADABLE as fault:
            raise NoProofError(f"the host's key is not understood: {fault}") from fault
        if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey):
            raise NoProofError(f"the host's key is a {type(key).__name__}")
        if not isinstance(found, SSHCertificate):
            return key, ""
        return key, _key_id(found, self.authority)


_HostKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


def packet(payload: bytes) -> bytes:
    """Return `payload` as one packet before encryption (RFC 4253 §6)."""
    pad = 8 - (5 + len(payload)) % 8
    pad += 8 if pad < 4 else 0
    return struct.pack("!IB", 1 + len(payload) + pad, pad) + payload + bytes(pad)


def payload_of(body: bytes) -> bytes:
    """Return the payload of a packet whose length field was read; raises NoProofError."""
    if not body or body[0] + 1 > len(body):
        raise NoProofError("a packet is padded beyond its end")
    return body[1 : len(body) - body[0]]


def _key_id(certificate: SSHCertificate, authority: str) -> str:
    try:
        signer = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        if certificate.type is not SSHCertificateType.HOST or signer != authority:
            return ""
        certificate.verify_cert_signature()
    except _UNREADABLE:
        return ""
    return certificate.key_id.decode(errors="replace")


def _check_signature(key: _HostKey, algorithm: str, signature: bytes, signed: bytes) -> None:
    """Raise InvalidSignature or ValueError unless `key` signed, with an algorithm we offered."""
    if algorithm not in _PLAIN:
        raise ValueError(f"the signature is a {algorithm[:40]}")
    if isinstance(key, Ed25519PublicKey) and algorithm == "ssh-ed25519":
        key.verify(signature, signed)
    elif isinstance(key, RSAPublicKey) and algorithm.startswith("rsa-"):
        key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA512() if "512" in algorithm else hashes.SHA256())
    elif isinstance(key, EllipticCurvePublicKey) and algorithm.startswith("ecdsa-"):
        reader = _Reader(signature)
        r, s = (int.from_bytes(reader.string()) for _ in range(2))
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    else:
        raise ValueError("the signature is not of the key's kind")


def _kexinit(cookie: bytes) -> bytes:
    both = [",".join(names).encode() for names in (_CIPHERS, _CIPHERS, _MACS, _MACS, ("none",), ("none",))]
    lists = [",".join((*_CURVE25519, _NISTP256)).encode(), ",".join(_HOST_KEYS).encode(), *both, b"", b""]
    return bytes([_KEXINIT]) + cookie + b"".join(map(_string, lists)) + bytes(5)


def _string(content: bytes) -> bytes:
    return struct.pack("!I", len(content)) + content


def _mpint(number: int) -> bytes:
    return _string(number.to_bytes(number.bit_length() // 8 + 1) if number else b"")


class _Reader:
    """Reads the fields of a message; raises NoProofError at its end."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def string(self) -> bytes:
        return self._take(int.from_bytes(self._take(4)))

    def byte(self) -> int:
        return self._take(1)[0]

    def _take(self, length: int) -> bytes:
        taken = self._content[self._at : self._at + length]
        if len(taken) != length:
            raise NoProofError("a message of the host ends early")
        self._at += length
        return taken
