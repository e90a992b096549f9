"""Whether the server's ports can be had, and who has them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloner_pxe.dhcp_packet import PXE_PORT, SERVER_PORT
from cloner_server.config import ServerConfig


@dataclass(frozen=True, slots=True)
class Port:
    """One port the server listens on."""

    protocol: str  # "tcp" or "udp"
    number: int
    what: str
    is_of_interface: bool = False  # bound to the interface, whatever its address

    def __str__(self) -> str:
        return f"{self.protocol} port {self.number} ({self.what})"


def needed_ports(config: ServerConfig) -> tuple[Port, ...]:
    """Return the ports that `cloner serve` opens with these settings."""
    ports = [Port("tcp", config.tls_port, "API of nodes"), Port("tcp", config.http_port, "boot files")]
    if config.tftp_port:
        ports.append(Port("udp", config.tftp_port, "TFTP"))
    if config.dhcp != "none":
        ports += [Port("udp", SERVER_PORT, "DHCP", True), Port("udp", PXE_PORT, "PXE", True)]
    return tuple(ports)


def port_faults(ports: Iterable[Port], address: str, interface: str, proc: Path = Path("/proc")) -> list[str]:
    """Return why each port cannot be had now, naming the program that has it."""
    faults = []
    for port in ports:
        kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(
                        socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                    )  # as our listeners: TIME_WAIT is no owner
                if port.is_of_interface:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                probe.bind(("" if port.is_of_interface else address, port.number))
                if kind == socket.SOCK_STREAM:
                    probe.listen(1)  # with SO_REUSEADDR only this fails beside a listener
            except OSError as fault:
                taken = fault.errno == errno.EADDRINUSE
                who = holders(port.protocol, port.number, proc) if taken else ()
                by = f"taken by {', '.join(who)}" if who else (os.strerror(fault.errno or 0)).lower()
                faults.append(f"{port}: {by}")
    return faults


def holders(protocol: str, number: int, proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Return the programs that have a socket on a port, as "dnsmasq (pid 812)"; none when they cannot be seen.

    Source: kernel, Documentation/networking/proc_net_tcp.rst.
    """
    inodes = set()
    for table in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                words = line.split()
                if len(words) > 9 and words[1].rpartition(":")[2] == f"{number:04X}":
                    inodes.add(f"socket:[{words[9]}]")
    found = {}
    for directory in proc.glob("[0-9]*") if inodes else ():
        with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to see
            if any(os.readlink(entry) in inodes for entry in (directory / "fd").iterdir()):
                found[int(directory.name)] = (directory / "comm").read_text().strip()
    return tuple(f"{name} (pid {pid})" for pid, name in sorted(found.items()))
