"""The console before OpenSSH, and before clients that keep to no rule: the view, and nothing but the view."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cloner_core.messages import ConsoleAccess, ConsoleReport, Secret
from cloner_core.passwords import DEFAULT_PASSWORD, hash_password
from netns.netboot_lab import inside
from vmlab.lab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces")]
T = TypeVar("T")
PORT = 22
STAGE = Path(__file__).parent / "console_stage.py"
PATHS = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("agent", "tests"))
# What the screen may send to a terminal: cursor home, clear to the end of line or screen, cursor hidden or shown.
DRAWING = re.compile(rb"\x1b\[(?:H|K|J|2J|\?25[lh])|\r\n")
WAIT_S = 30


@dataclass
class Node:
    """A console in a namespace, and the client's side of it."""

    lab: Lab
    child: subprocess.Popen[bytes]
    log: Path
    folder: Path

    def report(self) -> ConsoleReport:
        """Return what the console has told last."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return msgspec.json.decode(lines[-1], type=ConsoleReport) if lines else ConsoleReport()

    def wait(self, is_so: Callable[[ConsoleReport], bool]) -> ConsoleReport:
        """Wait until the console reports what is wanted."""
        end = time.monotonic() + WAIT_S
        while not is_so(report := self.report()):
            assert time.monotonic() < end, f"{report}\n{self.log.read_text()}"
            time.sleep(0.1)
        return report

    def ssh(
        self,
        *words: str,
        source: str = "127.0.0.1",
        user: str = "ssh",
        password: str = DEFAULT_PASSWORD,
        typed: bytes = b"",
        limit_s: float = 15,
        program: Sequence[str] = ("ssh",),
        environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run OpenSSH's client; a run that does not end within `limit_s` is ended and gives what it showed."""
        options = ["-F", "none", "-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", "LogLevel=ERROR"]
        options += ["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]
        options += ["-o", "NumberOfPasswordPrompts=1", "-o", f"BindAddress={source}", "-o", f"User={user}"]
        argv = ["timeout", "-k", "2", str(limit_s), *program, *options, *words]
        (self.folder / "password").write_text(password)
        more = {"SSH_ASKPASS": f"{self.folder}/askpass", "SSH_ASKPASS_REQUIRE": "force", "PATH": os.environ["PATH"]}
        return subprocess.run(
            self.lab.inside(argv),
            input=typed,
            capture_output=True,
            env=more | (environment or {}),
            start_new_session=True,
            check=False,
        )

    def processes(self) -> dict[int, str]:
        """Return what the kernel says of every process of the stage."""
        found = {}
        for pid in self.lab.run(["ip", "netns", "pids", self.lab.name]).split():
            with contextlib.suppress(OSError):
                if str(STAGE).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found[int(pid)] = Path(f"/proc/{pid}/status").read_text()
        return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("console")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    (folder / "known_hosts").write_text(f"* {public}\n")
    (folder / "askpass").write_text(f"#!/bin/sh\ncat {folder}/password\n")
    (folder / "askpass").chmod(0o755)
    access = ConsoleAccess(Secret(pem), hash_password(DEFAULT_PASSWORD, secrets.token_bytes(16)))
    with Lab(title="console") as lab, (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            lab.inside([sys.executable, str(STAGE)]),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={"PYTHONPATH": PATHS, "PATH": os.environ["PATH"]},
        )
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps({"access": msgspec.to_builtins(access), "port": PORT}).encode() + b"\n")
            child.stdin.flush()
            made = Node(lab, child, folder / "log", folder)
            made.wait(lambda report: report.is_open)
            yield made
        finally:
            child.terminate()
            child.wait()


def in_namespace(node: Node, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with inside(node.lab.name):
        return asyncio.run(asyncio.wait_for(ask(), WAIT_S))


def is_harmless(shown: bytes) -> bool:
    text = DRAWING.sub(b"", shown).decode()
    return all(character.isprintable() or character == "\n" for character in text)


def test_without_a_terminal_the_screen_is_shown_once_and_moves_from_time_to_time(node: Node) -> None:
    first = node.ssh("-T", "127.0.0.1")
    deadline_s = time.monotonic() + WAIT_S
    while True:
        second = node.ssh("-T", "127.0.0.1")
        assert (first.returncode, second.returncode) == (0, 0), first.stderr
        if second.stdout != first.stdout:
            break
        assert time.monotonic() < deadline_s, f"the screen stands still: {first.stdout!r}"
    assert b"> restore" in first.stdout
    assert is_harmless(first.stdout)


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x04"])
def test_on_a_terminal_the_screen_is_drawn_until_a_key_ends_it(node: Node, key: bytes) -> None:
    typed = b"\x1b[A\x1b]0;x\x07reboot\r\n:!sh\r\n~C\r\n\x1a\x1c" + key
    shown = node.ssh("-tt", "-e", "none", "127.0.0.1", typed=typed)
    assert shown.returncode == 0, shown.stderr
    assert b"\x1b[H" in shown.stdout
    assert b"a line of the log" in shown.stdout
    assert is_harmless(shown.stdout)
    assert b"reboot\r" not in shown.stdout, "what is typed comes back"


REFUSED: dict[str, list[str]] = {
    "a command": ["127.0.0.1", "id"],
    "a command on a terminal": ["-tt", "127.0.0.1", "/bin/sh"],
    "a subsystem": ["-s", "127.0.0.1", "sftp"],
    "another subsystem": ["-s", "127.0.0.1", "netconf"],
    "a connection through it": ["-W", "127.0.0.1:22", "127.0.0.1"],
    "a port of it": ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "2223:127.0.0.1:22", "127.0.0.1"],
    "a port of its choice": ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", "127.0.0.1"],
    "a SOCKS port of it": ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "2224", "127.0.0.1"],
    "a socket of it": ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "/tmp/owned.sock:127.0.0.1:22", "127.0.0.1"],
    "a tunnel": ["-N", "-o", "ExitOnForwardFailure=yes", "-w", "5:5", "127.0.0.1"],
    "a public key alone": ["-o", "PasswordAuthentication=no", "-i", "{key}", "127.0.0.1"],
    "keyboard-interactive": ["-o", "PreferredAuthentications=keyboard-interactive", "127.0.0.1"],
    "host-based": ["-o", "PreferredAuthentications=hostbased", "-o", "HostbasedAuthentication=yes", "127.0.0.1"],
    "nothing at all": ["-o", "PreferredAuthentications=none", "127.0.0.1"],
}


@pytest.fixture(scope="module")
def key(node: Node) -> Path:
    path = node.folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.mark.parametrize("way", REFUSED)
def test_openssh_gets_nothing_but_the_view(node: Node, key: Path, way: str) -> None:
    words = [word.replace("{key}", str(key)) for word in REFUSED[way]]
    done = node.ssh(*words)
    assert done.returncode == 255, (done.stdout, done.stderr)
    assert b"uid=" not in done.stdout
    assert not Path("/tmp/owned.sock").exists()


@pytest.mark.parametrize(
    "program", [("sftp", "-b", "-"), ("scp", "-O"), ("scp", "-s")], ids=["sftp", "scp -O", "scp -s"]
)
def test_no_file_comes_or_goes(node: Node, program: tuple[str, ...]) -> None:
    mine = node.folder / "mine"
    mine.write_text("x")
    words = ["127.0.0.1"] if program[0] == "sftp" else [str(mine), "127.0.0.1:/tmp/owned"]
    done = node.ssh(*words, program=program, typed=b"put /etc/hostname /tmp/owned\nget /etc/passwd\n")
    assert done.returncode != 0
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("root", DEFAULT_PASSWORD),
        ("", DEFAULT_PASSWORD),
        ("SSH", DEFAULT_PASSWORD),
        ("ssh\x00root", DEFAULT_PASSWORD),
        ("s" * 5000, DEFAULT_PASSWORD),
        ("ssh", ""),
        ("ssh", "Breakin"),
        ("ssh", "breakin "),
        ("ssh", "b" * 900),
    ],
    ids=["root", "no name", "upper case", "a zero in it", "a long name", "no password", "wrong", "a blank", "long"],
)
def test_nobody_else_and_no_other_password(node: Node, user: str, password: str) -> None:
    source = f"127.0.1.{1 + secrets.randbelow(250)}"  # not the address of the other tests: it is slowed

    async def log_in() -> None:
        async with connected(node, source=source, user=user, password=password):
            pytest.fail("came in")

    with pytest.raises((asyncssh.Error, OSError, ValueError)):
        in_namespace(node, log_in)


async def second_session(connection: asyncssh.SSHClientConnection) -> None:
    await connection.create_session(asyncssh.SSHClientSession, term_type="xterm")
    for _ in range(20):
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_session(asyncssh.SSHClientSession, term_type="xterm")
    raise asyncssh.ChannelOpenError(1, "all refused")


async def agent(connection: asyncssh.SSHClientConnection) -> None:
    chan, _ = await connection.create_session(asyncssh.SSHClientSession, term_type="xterm")
    for request in (b"auth-agent-req@openssh.com", b"x11-req", b"signal-me", b"exec", b"subsystem", b"shell"):
        more: tuple[bytes, ...] = (asyncssh.packet.String("id"),) if request in (b"exec", b"subsystem") else ()
        if request == b"x11-req":
            more = (b"\0", asyncssh.packet.String("MIT"), asyncssh.packet.String("00"), asyncssh.packet.UInt32(0))
        assert not await chan._make_request(request, *more), request
    raise asyncssh.ChannelOpenError(1, "all refused")


ASKED: dict[str, Callable[[asyncssh.SSHClientConnection], Awaitable[Any]]] = {
    "a command": lambda c: c.run("id", check=True),
    "sftp": lambda c: c.start_sftp_client(),
    "a connection": lambda c: c.open_connection("127.0.0.1", 22),
    "a socket": lambda c: c.open_unix_connection("/run/cloner/x"),
    "a tunnel": lambda c: c.create_tun(asyncssh.SSHTunTapSession),
    "a bridge": lambda c: c.create_tap(asyncssh.SSHTunTapSession),
    "a listener": lambda c: c.forward_remote_port("", 0, "127.0.0.1", 22),
    "a listening socket": lambda c: c.forward_remote_path("/tmp/owned.sock", "/tmp/x"),
    "twenty sessions on one connection": second_session,
    "agent, X11, and a second start": agent,
}


@pytest.mark.parametrize("way", ASKED)
def test_a_client_without_manners_gets_nothing_but_the_view(node: Node, way: str) -> None:
    async def ask() -> None:
        async with connected(node) as connection:
            await ASKED[way](connection)

    with pytest.raises((asyncssh.ChannelOpenError, asyncssh.ChannelListenError, asyncssh.SFTPError)):
        in_namespace(node, ask)


def test_environment_sizes_and_names_of_terminals_change_nothing(node: Node) -> None:
    async def view() -> tuple[bytes, bytes]:
        async with connected(node) as connection:
            nasty: dict[bytes | str, bytes | str] = {
                "LD_PRELOAD": "/tmp/x.so",
                "PYTHONSTARTUP": "/tmp/x.py",
                "TERM": "xterm",
                "LANG": "\x1b[2J",
            }
            chan, session = await connection.create_session(
                Collect, env=nasty, term_type="x" * 9000, term_size=(2**32 - 1, 2**32 - 1, 2**31, 2**31), encoding=None
            )
            await asyncio.sleep(0.5)
            assert isinstance(session, Collect)
            huge = bytes(session.seen)
            session.seen.clear()
            chan.change_terminal_size(0, 0)
            chan.change_terminal_size(1, 1)
            chan.change_terminal_size(40, 10)
            await asyncio.sleep(1.5)
            return huge, bytes(session.seen)

    huge, small = in_namespace(node, view)
    assert is_harmless(huge + small)
    assert 0 < len(huge) < 300 * 100 + 2000
    assert max(len(line) for line in re.sub(rb"\x1b\[\??\d*[A-Za-z]", b"", small).decode().split("\r\n")) <= 40


async def paste(chan: Any, _: Any) -> None:
    chan.write(b"x" * 8192)


async def rekey(chan: Any, _: Any) -> None:
    chan.write(b"x" * 200)  # more than the client below sends with one key


async def set_environment(chan: Any, _: Any) -> None:
    for number in range(100):
        chan._send_request(b"env", asyncssh.packet.String(f"N{number}"), asyncssh.packet.String("x" * 100))


@pytest.mark.parametrize("flood", [paste, rekey, set_environment])
def test_who_sends_more_than_a_viewer_can_type_is_cut_off(
    node: Node, flood: Callable[[Any, Any], Awaitable[None]]
) -> None:
    async def send() -> int:
        async with connected(node, rekey_bytes=100 if flood is rekey else 1 << 30) as connection:
            chan, _ = await connection.create_session(Collect, term_type="xterm", encoding=None)
            for turn in range(1000):
                try:
                    await flood(chan, connection)
                except (asyncssh.Error, OSError):
                    assert turn > 0
                    return turn
                await asyncio.sleep(0.02)
                if connection.is_closed():
                    return turn
        pytest.fail("nobody hung up")

    assert in_namespace(node, send) > 0
    assert node.ssh("-T", "127.0.0.1").returncode == 0


def test_guesses_are_slowed_counted_and_end_in_a_closed_door(node: Node) -> None:
    source, before = "127.0.2.1", node.report().guesses
    started = time.monotonic()
    for _ in range(3):
        assert node.ssh("-T", "127.0.0.1", source=source, password="wrong").returncode == 255
    assert time.monotonic() - started > 3, "1 s after the first, 2 s after the second"
    closed = node.ssh("-T", "127.0.0.1", source=source)
    assert closed.returncode == 255, "the right password is not heard so soon"
    report = node.wait(lambda seen: seen.guesses >= before + 3)
    assert report.last_from.endswith(source)
    assert node.ssh("-T", "127.0.0.1").returncode == 0, "others are not kept out"


def test_a_host_key_that_is_not_the_servers_is_refused_by_the_client(node: Node) -> None:
    known = node.folder / "known_hosts"
    right = known.read_text()
    other = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    try:
        known.write_text(f"* {other}\n")
        done = node.ssh("-T", "127.0.0.1")
    finally:
        known.write_text(right)
    assert done.returncode == 255
    assert b"IDENTIFICATION HAS CHANGED" in done.stderr or b"verification failed" in done.stderr


def test_the_process_that_listens_is_nobody_starts_nothing_and_comes_back(node: Node) -> None:
    processes = node.processes()
    assert len(processes) == 3, "the agent, who draws, who listens"
    ((listener, status),) = [(pid, text) for pid, text in processes.items() if "\nUid:\t65534\t65534" in text]
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert Path(f"/proc/{listener}/oom_score_adj").read_text().strip() == "1000"
    os.kill(listener, 9)
    node.wait(lambda report: not report.is_open)
    end = time.monotonic() + WAIT_S
    while node.ssh("-T", "127.0.0.1", limit_s=5).returncode != 0:
        assert time.monotonic() < end
    node.wait(lambda report: report.is_open)


class Collect(asyncssh.SSHClientSession[bytes]):
    """Keeps what the console sends."""

    def __init__(self) -> None:
        self.seen = bytearray()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self.seen += data


@contextlib.asynccontextmanager
async def connected(
    node: Node,
    *,
    source: str = "127.0.0.1",
    user: str = "ssh",
    password: str = DEFAULT_PASSWORD,
    rekey_bytes: int = 1 << 30,
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with asyncssh.connect(
        "127.0.0.1",
        PORT,
        username=user,
        password=password,
        known_hosts=str(node.folder / "known_hosts"),
        local_addr=(source, 0),
        client_keys=None,
        agent_path=None,
        config=None,
        preferred_auth="password",
        rekey_bytes=rekey_bytes,
    ) as connection:
        yield connection
