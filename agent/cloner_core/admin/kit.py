"""The kit that golden nodes install, as a server gives it away."""

from __future__ import annotations

from cloner_core.messages import Strict


class KitView(Strict, frozen=True):
    """All that the line says which installs the kit. Digests are SHA-256, 64 hex digits."""

    version: str
    size_bytes: int
    address: str  # of the server, as nodes reach it
    http_port: int
    tls_port: int
    install_path: str  # of the script, on the plain port
    install_digest: str
    ca_digest: str  # of ca.pem, byte by byte
