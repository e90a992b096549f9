"""The sockets of the server and the HTTP servers on them, with errors a person can act on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Any

import uvicorn

from cloner_core.errors import RefusedError
from cloner_server.site import Site

_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B  # linux/sockios.h; Python has no names for them
_BACKLOG = 1024
_GRACE_S = 3


class Listener(uvicorn.Server):
    """A uvicorn server that leaves signals to us: there are three of them in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install nothing."""
        yield


def listener(app: Any, site: Site | None = None) -> Listener:
    """Return an HTTP server for `app`, with TLS when the site's certificate is given."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        http="httptools",
        log_config=None,
        access_log=False,  # a request line holds a query string, and that may hold what nobody should read
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=str(site.certificate) if site else None,
        ssl_keyfile=str(site.certificate_key) if site else None,
    )
    return Listener(config)


def use_certificate(serving: Listener, site: Site) -> None:
    """Give connections to come the certificate that lies in the site now; those that are open keep theirs."""
    context = serving.config.ssl
    if context is not None:
        context.load_cert_chain(site.certificate, site.certificate_key)


def tcp_socket(address: str, port: int, what: str) -> socket.socket:
    """Return a listening socket; raises RefusedError when the port is taken or the address is not ours."""
    try:
        return socket.create_server((address, port), backlog=_BACKLOG)
    except OSError as fault:
        hints = {
            errno.EADDRINUSE: f"another program has the port: ss -ltnp sport = :{port}",
            errno.EADDRNOTAVAIL: "the address belongs to no interface of this machine: --address",
        }
        raise RefusedError(
            f"{what} cannot listen on {address}:{port}: {os.strerror(fault.errno or 0)}",
            hint=hints.get(fault.errno or 0, ""),
        ) from fault


def unix_socket(path: Path) -> socket.socket:
    """Return the listening socket of the command line, for root alone.

    Raises RefusedError when another server answers there; what a killed one left behind is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
            raise RefusedError(f"another server answers at {path}", hint="stop it, or choose another socket")
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            opened.bind(str(path))
        finally:
            os.umask(before)
        opened.listen(_BACKLOG)
    except OSError as fault:
        opened.close()
        raise RefusedError(f"the command line's socket {path} cannot be made: {fault}") from fault
    except RefusedError:
        opened.close()
        raise
    return opened


def own_macs() -> frozenset[str]:
    """Return the hardware addresses of this machine (kernel, Documentation/ABI/testing/sysfs-class-net)."""
    texts = (path.read_text().strip() for path in Path("/sys/class/net").glob("*/address"))
    return frozenset(text for text in texts if len(text) == 17 and text != "00:00:00:00:00:00")


def interface_network(name: str) -> ipaddress.IPv4Interface:
    """Return address and network of an interface; raises RefusedError when it has no IPv4 address."""
    request = struct.pack("256s", name.encode()[:15])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            parts = [
                str(ipaddress.IPv4Address(fcntl.ioctl(probe.fileno(), code, request)[20:24]))
                for code in (_SIOCGIFADDR, _SIOCGIFNETMASK)
            ]
    except OSError as fault:
        raise RefusedError(
            f"interface {name} has no IPv4 address: {os.strerror(fault.errno or 0)}",
            hint=f"ip address add ADDRESS/PREFIX dev {name}, or give --address",
        ) from fault
    return ipaddress.IPv4Interface("/".join(parts))
