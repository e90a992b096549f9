"""The command line before a whole server in the same process: what is typed, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx2
import msgspec
from click.testing import CliRunner, Result

from cloner_cli.invocation import Invocation, World
from cloner_cli.main import cli
from cloner_core.detection import Detected
from cloner_initramfs.nodekernel import NodeKernel
from serverbench.scene import Scene


class InProcess(httpx2.BaseTransport):
    """Hands each request to the server's application.

    `is_away` stands for a server that does not run, `is_wedged` for one that takes requests and never answers,
    `is_forbidden` for a caller who is not root.
    """

    def __init__(self, scene: Scene, pass_time: Callable[[float], None]) -> None:
        self.scene = scene
        self.pass_time = pass_time
        self.is_wedged = False
        self.is_away = False
        self.is_forbidden = False
        self.seen: list[tuple[str, str]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.is_away:
            raise httpx2.ConnectError("nobody listens")
        if self.is_forbidden:
            raise httpx2.ConnectError("[Errno 13] Permission denied") from PermissionError(13, "Permission denied")
        if self.is_wedged:
            self.pass_time(request.extensions["timeout"]["read"])
            raise httpx2.ReadTimeout("nothing came")
        self.seen.append((request.method, request.url.path))
        answer = self.scene.admins.request(
            request.method,
            request.url.raw_path.decode(),
            content=request.read(),
            headers=dict(request.headers),
        )
        return httpx2.Response(answer.status_code, content=answer.content, headers=dict(answer.headers))


def undetected(*_: object) -> Any:
    """Stand for the disks of this machine where a test says nothing of them."""
    raise AssertionError("the disks of this machine are looked at")


@dataclass
class Desk:
    """Runs command lines; `on_sleep` and `on_ask` are what happens in the world while a command waits, or asks."""

    scene: Scene
    has_terminal: bool = False
    is_root: bool = True
    origin: bytes | None = None  # of the machine the command runs on
    macs: Sequence[str] = ()
    host_name: str = "desk"
    on_sleep: Callable[[int], None] = lambda _: None
    on_ask: Callable[[], None] = lambda: None
    transport: InProcess = field(init=False)
    run_program: Callable[[Sequence[str]], int] = lambda _: 0
    kernel: Callable[[Path, str, Sequence[str]], NodeKernel] = field(default=undetected)
    detect: Callable[[str, Sequence[str]], Detected] = field(default=undetected)
    servers: list[str] = field(default_factory=list)  # named on command lines
    now_s: float = 0.0
    sleeps: int = 0

    def __post_init__(self) -> None:
        self.transport = InProcess(self.scene, self._pass_time)

    def run(self, *words: str, typed: str | bytes = "", program: click.Command = cli) -> Result:
        """Run one command line with `typed` at its terminal."""
        result = CliRunner().invoke(program, list(words), input=typed, obj=self.invocation())
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "Traceback" not in result.output
        return result

    def invocation(self) -> Invocation:
        """Return what a command line runs with here."""
        world = World(
            open_client=lambda _: httpx2.Client(transport=self.transport, base_url="http://cloner"),
            open_node=self._open_node,
            author=lambda: "tester",
            monotonic=lambda: self.now_s,
            sleep=self._sleep,
            can_ask=self._can_ask,
            is_live=lambda: False,
            is_root=lambda: self.is_root,
            origin=lambda: self.origin,
            macs=lambda: self.macs,
            host_name=lambda: self.host_name,
            run_program=self.run_program,
            detect=self.detect,
            indexes=self.indexes,
            kernel=self.kernel,
            scrypt_log_n=4,
        )
        return Invocation(world=world)

    def json(self, *words: str) -> Any:
        """Run a command line that must succeed, and return its result."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return msgspec.json.decode(result.stdout)

    def refused(self, *words: str, typed: str | bytes = "") -> Result:
        """Run a command line that must fail and change nothing in the database or the store."""
        before, stored = self.scene.state_dump(), self.stored()
        result = self.run(*words, typed=typed)
        assert result.exit_code != 0, result.output
        assert result.stdout == ""
        assert self.scene.state_dump() == before
        assert self.stored() == stored
        return result

    def stored(self) -> list[str]:
        """Return every file of the image store."""
        return sorted(str(path) for path in Path(self.scene.core.state_directory, "store").rglob("*"))

    @property
    def indexes(self) -> Path:
        """Where the captures of this desk have their indexes."""
        return Path(self.scene.core.state_directory).parent / "indexes"

    def _open_node(self, _: Path, server: str) -> tuple[httpx2.Client, str]:
        self.servers.append(server)
        return httpx2.Client(transport=self.transport, base_url="http://cloner"), server

    def _can_ask(self) -> bool:
        self.on_ask()
        return self.has_terminal

    def _pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.scene.clock.now_s += seconds

    def _sleep(self, seconds: float) -> None:
        self._pass_time(seconds)
        self.sleeps += 1
        assert self.sleeps < 1000, "the command waits for ever"
        self.on_sleep(self.sleeps)
