"""Half a key exchange against a host made here: who holds the key is believed, who only shows it is not.

Against OpenSSH's own server: `vm-tests/test_golden.py`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from functools import partial

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.sightings import SshAnswer
from cloner_server.hostproof import VERSION, Exchange, HostProof, NoProofError, _mpint, _string, packet, payload_of
from cloner_server.sshprobe import Expected, Found, judge, look

HOST = b"SSH-2.0-OpenSSH_9.2p1 Debian-2"
HostKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey
KEY, STRANGER, CA = (Ed25519PrivateKey.generate() for _ in range(3))
ECDSA = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, HostKey] = {"ed25519": KEY, "ecdsa": ECDSA, "rsa": rsa.generate_private_key(65537, 2048)}


def line(key: HostKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def blob(text: str | bytes) -> bytes:
    return base64.b64decode((text.encode() if isinstance(text, str) else text).split()[1])


def certificate(
    key: HostKey,
    *,
    by: HostKey = CA,
    kind: SSHCertificateType = SSHCertificateType.HOST,
) -> bytes:
    builder = SSHCertificateBuilder().public_key(key.public_key()).serial(1).type(kind).key_id(b"node01 7-1-ab")
    made = builder.valid_principals([b"node01"]).valid_after(0).valid_before(1 << 40).sign(by)
    return blob(made.public_bytes())


def opened(packet: bytes) -> bytes:
    assert int.from_bytes(packet[:4]) == len(packet) - 4
    assert len(packet) % 8 == 0
    return payload_of(packet[4:])


class Host:
    """The other side: shows `host_key` and signs with `signer`."""

    def __init__(self, host_key: bytes, signer: HostKey = KEY) -> None:
        self.host_key, self.signer = host_key, signer
        self.init = bytes([20]) + bytes(16) + b"".join(map(_string, [b"curve25519-sha256", b"ssh-ed25519"] + [b""] * 8))
        self.init += bytes(5)

    def reply(self, client_init: bytes, ecdh: bytes) -> bytes:
        assert ecdh[0] == 30
        own, theirs = X25519PrivateKey.generate(), ecdh[5:]
        shared = int.from_bytes(own.exchange(X25519PublicKey.from_public_bytes(theirs)))
        public = own.public_key().public_bytes_raw()
        parts = (VERSION, HOST, client_init, self.init, self.host_key, theirs, public)
        signed = hashlib.sha256(b"".join(map(_string, parts)) + _mpint(shared)).digest()
        return bytes([31]) + b"".join(map(_string, (self.host_key, public, signature(self.signer, signed))))


def signature(key: HostKey, signed: bytes) -> bytes:
    """Return the signature as SSH wraps it (RFC 8709 §6, RFC 5656 §3.1.2, RFC 8332 §3)."""
    if isinstance(key, EllipticCurvePrivateKey):
        numbers = map(_mpint, decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256()))))
        return _string(b"ecdsa-sha2-nistp256") + _string(b"".join(numbers))
    if isinstance(key, RSAPrivateKey):
        return _string(b"rsa-sha2-512") + _string(key.sign(signed, padding.PKCS1v15(), hashes.SHA512()))
    return _string(b"ssh-ed25519") + _string(key.sign(signed))


def compressed(key: EllipticCurvePrivateKey) -> bytes:
    """Return the key's blob with its point compressed, which RFC 5656 §3.1 permits and `cryptography` does not read."""
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return b"".join(map(_string, (b"ecdsa-sha2-nistp256", b"nistp256", point)))


def prove(host: Host, change: Callable[[bytes], bytes] = lambda reply: reply) -> HostProof | None:
    """Return what the host has proven; None when it was let go on with the exchange without a proof."""
    exchange = Exchange(line(CA))
    client_init = opened(exchange.begin(HOST))
    assert exchange.answer(bytes([4, 0])) == b"", "what may be ignored is"
    ecdh = opened(exchange.answer(host.init))
    exchange.answer(change(host.reply(client_init, ecdh)))
    return exchange.proof


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_host_that_holds_its_key_proves_it(key: HostKey) -> None:
    for _ in range(20):  # a shared secret begins with a zero or a one bit by chance
        assert prove(Host(blob(line(key)), key)) == HostProof(line(key), "")


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_certificate_of_ours_names_its_attempt(key: HostKey) -> None:
    assert prove(Host(certificate(key), key)) == HostProof(line(key), "node01 7-1-ab")


def test_a_key_nobody_here_reads_proves_nothing() -> None:
    with pytest.raises(NoProofError, match="not understood: Need uncompressed point"):
        prove(Host(compressed(ECDSA), ECDSA))


def test_a_certificate_by_an_authority_nobody_here_reads_is_worth_its_key_alone() -> None:
    shown = certificate(KEY, by=ECDSA).replace(_string(blob(line(ECDSA))), _string(compressed(ECDSA)))
    assert prove(Host(shown)) == HostProof(line(KEY), "")


@pytest.mark.parametrize(
    "shown",
    [certificate(KEY, by=STRANGER), certificate(KEY, kind=SSHCertificateType.USER)],
    ids=["of another authority", "of a user"],
)
def test_any_other_certificate_is_worth_its_key_alone(shown: bytes) -> None:
    assert prove(Host(shown)) == HostProof(line(KEY), "")


def test_a_forged_certificate_is_worth_its_key_alone() -> None:
    shown = bytearray(certificate(KEY))
    shown[-1] ^= 1
    assert prove(Host(bytes(shown))) == HostProof(line(KEY), "")


@pytest.mark.parametrize("shown", [blob(line(KEY)), certificate(KEY)], ids=["key", "certificate"])
def test_who_shows_a_key_he_does_not_hold_proves_nothing(shown: bytes) -> None:
    with pytest.raises(NoProofError, match="does not hold"):
        prove(Host(shown, STRANGER))


def test_a_proof_overheard_is_good_for_no_other_exchange() -> None:
    host, exchange = Host(blob(line(KEY))), Exchange(line(CA))
    client_init = opened(exchange.begin(HOST))
    overheard = host.reply(client_init, opened(exchange.answer(host.init)))
    with pytest.raises(NoProofError, match="does not hold"):
        prove(host, lambda _: overheard)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@given(spoilt=st.binary(max_size=60) | st.tuples(st.integers(0, 1023), st.integers(1, 255)))
def test_a_reply_that_was_spoilt_proves_nothing(key: HostKey, spoilt: bytes | tuple[int, int]) -> None:
    sent = []

    def change(reply: bytes) -> bytes:
        changed = bytearray(reply)
        if isinstance(spoilt, tuple):
            changed[spoilt[0] % len(reply)] ^= spoilt[1]
        sent.append(bytes(changed) if isinstance(spoilt, tuple) else spoilt)
        return sent[0]

    try:
        proof = prove(Host(certificate(key), key), change)
    except NoProofError:
        return
    assert proof is None
    assert sent[0][:1] in (b"\2", b"\3", b"\4"), "nothing but what may be ignored is passed over"


@given(st.binary(max_size=200))
def test_whatever_begins_as_an_exchange_ends_without_harm(payload: bytes) -> None:
    exchange = Exchange(line(CA))
    exchange.begin(HOST)
    for start in (b"", bytes([20]) + bytes(16)):
        try:
            exchange.answer(start + payload)
        except NoProofError:
            continue
    assert exchange.proof is None


@pytest.mark.parametrize("version", [b"", b"HTTP/1.1 400 Bad Request", b"SSH-1.5-old", b"SSH-2.0-" + b"x" * 300])
def test_what_is_no_ssh_server_is_told(version: bytes) -> None:
    with pytest.raises(NoProofError, match="no SSH server"):
        Exchange(line(CA)).begin(version)


@pytest.mark.parametrize(
    ("proof", "answer"),
    [
        (HostProof(line(KEY), "node01 7-1-ab"), SshAnswer.CLONE),
        (HostProof(line(KEY), "node01 6-1-cd"), SshAnswer.KEY),
        (HostProof(line(KEY)), SshAnswer.KEY),
        (HostProof(line(STRANGER), "node01 7-1-ab"), SshAnswer.OTHER_KEY),
    ],
)
def test_only_the_certificate_of_this_attempt_tells_the_clone_from_what_was_there_before(
    proof: HostProof, answer: SshAnswer
) -> None:
    assert judge(proof, Expected((line(KEY),), line(CA), "node01 7-1-ab")) is answer


class Wire(asyncio.Transport):
    """A connection to `host` that needs no socket: what is written to it is answered at once."""

    def __init__(self, host: Host, reader: asyncio.StreamReader, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self.host, self.reader, self.protocol = host, reader, protocol
        self.heard = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data:
            return
        if bytes(data).endswith(b"\r\n"):
            self.reader.feed_data(HOST + b"\r\n" + packet(self.host.init))
        elif not self.heard:
            self.heard = opened(bytes(data))
        else:
            self.reader.feed_data(packet(self.host.reply(self.heard, opened(bytes(data)))))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.protocol.connection_lost(None)


async def connect(hosts: dict[str, Host], address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert port == 22
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    wire = Wire(hosts[address], reader, protocol)
    protocol.connection_made(wire)
    return reader, asyncio.StreamWriter(wire, protocol, reader, asyncio.get_running_loop())


class Odd(Host):
    """One that nobody has thought of."""

    def reply(self, client_init: bytes, ecdh: bytes) -> bytes:
        raise NotImplementedError


@pytest.mark.parametrize("other", [Host(compressed(ECDSA), ECDSA), Odd(b"")], ids=["compressed key", "unforeseen"])
def test_what_one_address_answers_costs_no_proof_of_another(other: Host) -> None:
    hosts = {"10.77.0.8": other, "10.77.0.9": Host(certificate(KEY))}
    expected = Expected((line(KEY),), line(CA), "node01 7-1-ab")
    found = asyncio.run(look(tuple(hosts), expected, connect=partial(connect, hosts)))
    assert found == Found(SshAnswer.CLONE, "10.77.0.9")
    del hosts["10.77.0.9"]
    found = asyncio.run(look(tuple(hosts), expected, connect=partial(connect, hosts)))
    assert found == Found(SshAnswer.NO_PROOF, "10.77.0.8")
