"""Half a key exchange against a host made here: who holds the key is believed, who only shows it is not.

Against OpenSSH's own server: `vm-tests/test_golden.py`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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
from cloner_server.hostproof import VERSION, Exchange, HostProof, NoProofError, _mpint, _string, payload_of
from cloner_server.sshprobe import Expected, judge

HOST = b"SSH-2.0-OpenSSH_9.2p1 Debian-2"
KEY, STRANGER, CA = (Ed25519PrivateKey.generate() for _ in range(3))


def line(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def blob(text: str | bytes) -> bytes:
    return base64.b64decode((text.encode() if isinstance(text, str) else text).split()[1])


def certificate(
    key: Ed25519PrivateKey, *, by: Ed25519PrivateKey = CA, kind: SSHCertificateType = SSHCertificateType.HOST
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

    def __init__(self, host_key: bytes, signer: Ed25519PrivateKey = KEY) -> None:
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
        signature = _string(b"ssh-ed25519") + _string(self.signer.sign(signed))
        return bytes([31]) + b"".join(map(_string, (self.host_key, public, signature)))


def prove(host: Host, change: Callable[[bytes], bytes] = lambda reply: reply) -> HostProof:
    exchange = Exchange(line(CA))
    client_init = opened(exchange.begin(HOST))
    assert exchange.answer(bytes([4, 0])) == b"", "what may be ignored is"
    ecdh = opened(exchange.answer(host.init))
    exchange.answer(change(host.reply(client_init, ecdh)))
    assert exchange.proof is not None
    return exchange.proof


def test_a_host_that_holds_its_key_proves_it() -> None:
    for _ in range(20):  # a shared secret begins with a zero or a one bit by chance
        assert prove(Host(blob(line(KEY)))) == HostProof(line(KEY), "")


def test_a_certificate_of_ours_names_its_attempt() -> None:
    assert prove(Host(certificate(KEY))) == HostProof(line(KEY), "node01 7-1-ab")


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


@given(st.data())
def test_whatever_a_host_sends_ends_in_a_proof_or_in_none(data: st.DataObject) -> None:
    def change(reply: bytes) -> bytes:
        if data.draw(st.booleans()):
            return data.draw(st.binary(max_size=60))
        at = data.draw(st.integers(0, len(reply) - 1))
        return reply[:at] + bytes([reply[at] ^ data.draw(st.integers(1, 255))]) + reply[at + 1 :]

    with pytest.raises((NoProofError, AssertionError)):
        prove(Host(certificate(KEY)), change)


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
