"""TLS to the server: our CA and the fixed name, whatever the node's clock says. Real sockets on loopback."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloner_agent.client import SERVER_NAME, Endpoint, Transport, pinned
from cloner_core.errors import UnreachableError

pytestmark = pytest.mark.root
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class _Ca:
    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.pem = self._sign(self.name, self.key, is_ca=True, name="", start=NOW - DAY).decode()

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_ca: bool, name: str, start: datetime.datetime
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if name:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def server_pem(self, directory: Path, name: str = SERVER_NAME, start: datetime.datetime = NOW - DAY) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, is_ca=False, name=name, start=start)
        path = directory / "server.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate)
        return path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the name is http.server's
        return


@contextmanager
def _served(pem: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _ask(port: int, ca_pem: str, *, is_time_checked: bool = False) -> bytes:
    transport = Transport(Endpoint("127.0.0.1", port, ca_pem, is_time_checked), patience_s=0)
    try:
        return transport.request("GET", "/")
    finally:
        transport.close()


def test_our_server_is_believed(tmp_path: Path) -> None:
    ca = _Ca()
    with _served(ca.server_pem(tmp_path)) as port:
        assert _ask(port, ca.pem, is_time_checked=True) == b"ok"


@pytest.mark.parametrize("start", [NOW + 300 * DAY, NOW - 800 * DAY], ids=["not yet valid", "expired"])
def test_before_the_clock_is_set_dates_do_not_count_and_afterwards_they_do(
    tmp_path: Path, start: datetime.datetime
) -> None:
    ca = _Ca()
    with _served(ca.server_pem(tmp_path, start=start)) as port:
        assert _ask(port, ca.pem) == b"ok"
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            _ask(port, ca.pem, is_time_checked=True)


def test_a_server_of_another_ca_is_told_nothing(tmp_path: Path) -> None:
    with (
        _served(_Ca().server_pem(tmp_path)) as port,
        pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        _ask(port, _Ca().pem)


def test_another_machine_of_our_ca_is_not_the_server(tmp_path: Path) -> None:
    ca = _Ca()
    with (
        _served(ca.server_pem(tmp_path, name="node01")) as port,
        pytest.raises(UnreachableError, match="not valid for"),
    ):
        _ask(port, ca.pem)


def test_a_server_that_vanishes_without_a_word_is_found_out_within_a_minute(tmp_path: Path) -> None:
    ca = _Ca()
    with _served(ca.server_pem(tmp_path)) as port:
        connection = pinned(Endpoint("127.0.0.1", port, ca.pem), 1800.0)
        connection.connect()
        idle, every, probes = (
            connection.sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        connection.close()
    assert idle + every * probes <= 60
