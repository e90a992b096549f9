"""Where the server is for a command on another machine: `/etc/cloner/node.toml`, and the way to it over TLS."""

from __future__ import annotations

import os
import socket
import ssl
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError, NotFoundError, RefusedError

if TYPE_CHECKING:
    import httpx2

NODE_FILE = Path("/etc/cloner/node.toml")
DEFAULT_PORT = 8443
_SERVER_NAME = "cloner-server"  # in the certificate, whatever the address
_KEEP_ALIVE = (  # some answers are waited for without end: probes find a server that vanished without a word
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
)
_HINT = "on the server: cloner token create --capture IMAGE"


class NodeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says; the token in it is why root alone may read it."""

    server: str = ""  # HOST or HOST:PORT
    ca: str = "ca.pem"  # relative to the file
    token: str = ""


def node_file() -> Path:
    """Return the file that commands of this machine go by: $CLONER_NODE_FILE, or the usual one."""
    return Path(os.environ.get("CLONER_NODE_FILE") or NODE_FILE)


def read_node_file(path: Path, server: str = "") -> tuple[str, int, NodeFile]:
    """Return host and port of the server, `server` before what the file at `path` says, and the rest of the file.

    Raises NotFoundError without a file, RefusedError for one that others can read, InvalidError naming what is wrong.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise RefusedError(f"{path} holds a token and can be read by others", hint=f"chmod 600 {path}")
        said = msgspec.convert(tomllib.loads(path.read_text()), NodeFile)
    except FileNotFoundError as fault:
        raise NotFoundError(f"{path} is not there: this machine has no token", hint=_HINT) from fault
    except PermissionError as fault:
        raise RefusedError(f"{path} is for root alone", hint="run the command as root") from fault
    except (tomllib.TOMLDecodeError, *UNREADABLE) as fault:
        raise InvalidError(f"{path}: {fault}", hint=_HINT) from fault
    host, port = parse_server(server or said.server, "--server" if server else f"{path}: server")
    if not said.token:
        raise InvalidError(f"{path}: token: it is missing", hint=_HINT)
    return host, port, said


def open_node(path: Path, server: str) -> tuple[httpx2.Client, str]:
    """Return a client that trusts our CA alone and carries the token, and the server's name for a person."""
    host, port, said = read_node_file(path, server)
    ca = path.parent / said.ca
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as fault:
        raise InvalidError(f"{ca} is no certificate of a CA: {fault}", hint=_HINT) from fault
    return pinned_client(host, port, context, said.token), f"{host}:{port}"


def pinned_client(host: str, port: int, context: ssl.SSLContext, token: str) -> httpx2.Client:
    """Return a client that shows the token to whoever satisfies `context` under our server's fixed name."""
    import httpx2

    return httpx2.Client(
        transport=httpx2.HTTPTransport(verify=context, socket_options=_KEEP_ALIVE),
        event_hooks={"request": [name_server]},
        base_url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        headers={"authorization": f"Bearer {token}"},
    )


def name_server(request: httpx2.Request) -> None:
    """Have the certificate checked for its fixed name, not for the address."""
    request.extensions = {**request.extensions, "sni_hostname": _SERVER_NAME}


def parse_server(text: str, what: str) -> tuple[str, int]:
    """Return host and port of HOST or HOST:PORT; raises InvalidError, in which `what` names where it stands."""
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon or (":" in host and not host.startswith("[")):  # a name, or a bare IPv6 address
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or any(letter in host for letter in "/@ ?#") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidError(f"{what}: '{text}' is not HOST or HOST:PORT", hint=f"10.0.0.1, head:{DEFAULT_PORT}")
    return host, int(port)
