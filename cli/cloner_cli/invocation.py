"""One run of the command line: its settings, its way to the server, and what it may touch.

What reaches outside (connection, clock, terminal) is a field of `World`, so that tests give their own.
"""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
import msgspec

from cloner_cli.nodefile import node_file, open_node
from cloner_cli.reporting import give, tell
from cloner_core.errors import RefusedError

if TYPE_CHECKING:
    import httpx2

    from cloner_cli.api import Api
    from cloner_core.detection import Detected
    from cloner_initramfs.nodekernel import NodeKernel

DEFAULT_SOCKET = Path("/run/cloner/cloner.sock")
INDEX_DIRECTORY = "/var/lib/cloner-node"  # never captured: capture/rules.py


def open_socket(path: Path) -> httpx2.Client:
    """Return a client over the Unix socket at `path`; connects at the first request."""
    import httpx2

    # No TLS here: a machine may have no CA certificates that could be loaded.
    return httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path), verify=False), base_url="http://cloner")


def who_asks() -> str:
    """Return who runs the command, for the audit: the person behind sudo where there is one."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return f"uid{os.getuid()}"


def run_program(argv: Sequence[str]) -> int:
    """Run a program on this terminal and return its exit status; raises FileNotFoundError when there is none."""
    import subprocess

    with subprocess.Popen(argv) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # Ctrl-C was for the program, which is on the same terminal


def detect_here(name: str, excludes: Sequence[str]) -> Detected:
    """Return the layout of this machine, called `name`; raises InvalidError that names what no layout describes."""
    from cloner_agent import detecting
    from cloner_agent.host import run
    from cloner_core.detection import detect, parse_excluded

    excluded = parse_excluded(excludes, os.path.realpath)
    if os.geteuid() != 0:
        raise RefusedError("only root can read what is on the disks of this machine", hint="sudo")
    return detect(detecting.ask(run), name, excluded)


def kernel_here(root: Path, release: str, modaliases: Sequence[str]) -> NodeKernel:
    """Return a kernel of the system at `root` with its modules; "" is the running one, or elsewhere the only one.

    Raises as `nodekernel.collect` and `only_release` do.
    """
    from cloner_initramfs.nodekernel import collect, only_release

    if root.resolve() != Path("/"):
        return collect(root, release or only_release(root), (), modaliases)
    listed = Path("/proc/modules")  # not there when this kernel takes no modules
    loaded = [line.split(" ", 1)[0] for line in listed.read_text().splitlines()] if listed.exists() else []
    return collect(root, release or os.uname().release, loaded, modaliases)


def origin_here() -> bytes | None:
    """Return what this machine says of the image it was cloned from; None when it says nothing."""
    from cloner_core.identity import ORIGIN_PATH

    try:
        return Path(ORIGIN_PATH).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def index_directory() -> Path:
    """Return where the capture indexes of this machine are: $CLONER_INDEXES, or the usual place."""
    return Path(os.environ.get("CLONER_INDEXES") or INDEX_DIRECTORY)


def macs_here() -> tuple[str, ...]:
    """Return the MAC addresses of this machine's network cards."""
    from cloner_agent.addresses import read_macs

    return read_macs()


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None: the shell closed it, `<&-`


@dataclass(frozen=True, slots=True)
class World:
    """What the command line touches beside its arguments."""

    open_client: Callable[[Path], httpx2.Client] = open_socket
    open_node: Callable[[Path, str], tuple[httpx2.Client, str]] = open_node
    node_file: Path = field(default_factory=node_file)
    author: Callable[[], str] = who_asks
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    can_ask: Callable[[], bool] = lambda: _is_terminal(sys.stdin) and _is_terminal(sys.stderr)
    is_live: Callable[[], bool] = lambda: _is_terminal(sys.stderr)
    is_root: Callable[[], bool] = lambda: os.geteuid() == 0
    run_program: Callable[[Sequence[str]], int] = run_program  # on this terminal, to its end; the exit status
    detect: Callable[[str, Sequence[str]], Detected] = detect_here
    kernel: Callable[[Path, str, Sequence[str]], NodeKernel] = kernel_here
    origin: Callable[[], bytes | None] = origin_here
    macs: Callable[[], Sequence[str]] = macs_here
    host_name: Callable[[], str] = lambda: os.uname().nodename
    indexes: Path = field(default_factory=index_directory)
    scrypt_log_n: int = 17  # what a guess at the passphrase of an export costs


@dataclass
class Invocation:
    """Settings of one run; click's context object. The options of any level fill it in."""

    world: World = field(default_factory=World)
    socket: Path = DEFAULT_SOCKET
    is_json: bool = False
    is_socket_given: bool = False
    server: str = ""  # HOST[:PORT] of a server on another machine; "" nothing was said

    def use_socket(self, path: Path) -> None:
        """Reach the server at `path`."""
        self.socket, self.is_socket_given = path, True

    @property
    def is_remote(self) -> bool:
        """Whether the server is on another machine: one was named, or this one has no server and was told of one."""
        if self.server or self.is_socket_given:
            return bool(self.server)
        return not self.socket.exists() and self.world.node_file.exists()

    @cached_property
    def api(self) -> Api:
        """The server; closed with the context of the command."""
        api, close = self._open()
        click.get_current_context().find_root().call_on_close(close)
        return api

    def another_api(self) -> Api:
        """Return the server over a connection of its own: for a process or thread that asks beside this one."""
        return self._open()[0]

    def _open(self) -> tuple[Api, Callable[[], None]]:
        """Return a new connection, and what closes it."""
        from cloner_cli.api import AWAY_HERE, AWAY_THERE, Api

        if self.is_remote:
            client, where = self.world.open_node(self.world.node_file, self.server)
            hint = AWAY_THERE
        else:
            client, where, hint = self.world.open_client(self.socket), str(self.socket), AWAY_HERE
        return Api(client, where, self.world.author(), away_hint=hint), client.close

    def result(self, value: object, text: Callable[[], str]) -> None:
        """Print the result: `value` as JSON with --json, else what `text` returns. Nothing else goes to stdout."""
        if self.is_json:
            give(msgspec.json.format(msgspec.json.encode(value), indent=2))
        elif shown := text():
            give(shown)

    def result_line(self, value: object, text: Callable[[], str]) -> None:
        """Print one of a stream of results: one line, of JSON with --json.

        Raises BrokenPipeError when nobody reads it: the stream ends.
        """
        click.echo(msgspec.json.encode(value) if self.is_json else text())

    def say(self, text: str) -> None:
        """Tell the person something that is not the result."""
        tell(text)
