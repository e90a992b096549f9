"""The way from a relay to its head: over TLS, to the holder of the CA whose SHA-256 an admin told."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cloner_cli.api import Api, segment
from cloner_cli.nodefile import name_server, parse_server, pinned_client
from cloner_core.errors import ClonerError, IntegrityError, InvalidError, NotFoundError, RefusedError, UnreachableError
from cloner_core.seats import ParcelList

if TYPE_CHECKING:
    import httpx2

    from cloner_server.relay.words import RelayOrders, RelayTurn

_ANSWER_S = 10.0  # beyond the time for which the head holds a turn
_PART_S = 60.0
_CA_BYTES = 1 << 16
_AUTHOR = "relay"


class HttpHead:
    """The head of a relay; for several threads. Satisfies `Head` and `Parts`."""

    def __init__(self, client: httpx2.Client, where: str, name: str) -> None:
        """Take an open client that carries the relay's token; `where` names the head to a person."""
        self._api = Api(client, where, _AUTHOR, away_hint="does 'cloner serve' run there?")
        self._base = f"/v1/relays/{segment(name)}"

    def turn(self, turn: RelayTurn) -> RelayOrders:
        """Tell the head, and return what is to be done."""
        from cloner_server.relay.words import HELD_S, RelayOrders  # a golden node has no server

        return self._api.post(f"{self._base}/turn", RelayOrders, turn, within_s=HELD_S + _ANSWER_S)

    def pack_map(self, name: bytes) -> bytes:
        """Return an encoded pack map."""
        return self._get(f"maps/{name.hex()}")

    def parcels(self, name: bytes) -> ParcelList:
        """Return the list of the parcels of a map."""
        data = self._get(f"maps/{name.hex()}/parcels")
        try:
            return msgspec.json.decode(data, type=ParcelList)
        except msgspec.MsgspecError as fault:
            raise IntegrityError(f"the list of parcels cannot be read: {fault}") from fault

    def parcel(self, name: bytes, ordinal: int) -> bytes:
        """Return a parcel: placement record and pack."""
        return self._get(f"maps/{name.hex()}/parcels/{ordinal}")

    def placement(self, name: bytes, ordinal: int) -> bytes:
        """Return the placement record of a pack."""
        return self._get(f"maps/{name.hex()}/placements/{ordinal}")

    def _get(self, path: str) -> bytes:
        return self._api.get_bytes(f"{self._base}/{path}", within_s=_PART_S)


def open_head(server: str, name: str, token: str, fingerprint: str) -> HttpHead:
    """Return the way to a head that has the CA of this fingerprint.

    Raises UnreachableError while it does not answer, IntegrityError when it has another CA.
    """
    host, port = parse_server(server, "--server")
    ca = fetch_ca(host, port, parse_fingerprint(fingerprint))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca.decode("ascii"))
    return HttpHead(pinned_client(host, port, context, token), f"{host}:{port}", name)


def parse_fingerprint(text: str) -> str:
    """Return the SHA-256 that 64 hexadecimal digits are, with colons or without; raises InvalidError."""
    digits = text.replace(":", "").lower()
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise InvalidError(
            f"--fingerprint: '{text}' is not the SHA-256 of a CA",
            hint="cloner token create --relay NAME, on the server, prints it",
        )
    return digits


def fetch_ca(host: str, port: int, fingerprint: str) -> bytes:
    """Return the CA that a server shows, if it is the one of this fingerprint.

    Nothing else is believed of this answer, and nothing secret is sent with the question.
    """
    import httpx2

    unproven = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unproven.check_hostname, unproven.verify_mode = False, ssl.CERT_NONE
    address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        with (
            httpx2.Client(
                transport=httpx2.HTTPTransport(verify=unproven),
                event_hooks={"request": [name_server]},
                base_url=address,
                timeout=10.0,
            ) as client,
            client.stream("GET", "/v1/ca.pem") as answer,
        ):
            ca = b""
            for piece in answer.iter_bytes():
                ca += piece
                if len(ca) > _CA_BYTES:
                    break
    except httpx2.HTTPError as fault:
        raise UnreachableError(f"the server at {host}:{port} does not answer: {fault}") from fault
    seen = hashlib.sha256(ca).hexdigest()
    if seen != fingerprint:
        raise IntegrityError(
            f"the server at {host}:{port} shows a CA with SHA-256 {seen}, and --fingerprint is {fingerprint}",
            hint="is it this server? 'cloner token create --relay NAME' there prints its fingerprint",
        )
    return ca


def read_token(path: Path) -> str:
    """Return the token in a file; raises NotFoundError, InvalidError, or RefusedError for one that others can read."""
    try:
        if path.stat().st_mode & 0o077:
            raise RefusedError(f"{path} holds a token and can be read by others", hint=f"chmod 600 {path}")
        token = path.read_text().strip()
    except FileNotFoundError as fault:
        raise NotFoundError(f"{path} is not there", hint="on the server: cloner token create --relay NAME") from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise ClonerError(f"{path} cannot be read: {fault}") from fault
    if not token or not token.isascii() or any(letter.isspace() for letter in token):
        raise InvalidError(f"{path} holds no token", hint="on the server: cloner token create --relay NAME")
    return token
