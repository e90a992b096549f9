"""The console over SSH: one user, a password, and the screen. There is nothing else to be had here.

No command, no subsystem, no forwarding of anything, no shell anywhere behind it: what a client sends is only looked
at for "q", Ctrl-C and Ctrl-D. Imports asyncssh, which takes a second and 20 MB, so it is imported late and only in a
process of its own (`screens`), which has no privileges left when it hears its first stranger.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncssh

from cloner_agent.board import Board
from cloner_core.messages import ConsoleAccess, ConsoleReport
from cloner_core.passwords import USER, is_password
from cloner_core.screen import redrawn, render
from cloner_core.throttle import TRIES_OF_CONNECTION, Budget, Throttle

log = logging.getLogger(__name__)

_FOOT = "q or Ctrl-C ends this view; nothing else that is typed goes anywhere"
_ENDS = b"qQ\x03\x04"
_EVERY_S = 1.0
_LOGIN_S = 60.0
_ALIVE_S = 20.0
_LONGEST_S = 12 * 3600.0  # a view that somebody forgot does not keep its place for ever
_WINDOW_BYTES = 16 << 10
_PLAIN_SIZE = (100, 40)  # of the one screen a client without a terminal gets
_ENTER, _LEAVE = b"\x1b[?25l\x1b[2J", b"\x1b[?25h\r\n"


@dataclass
class Door:
    """What all connections of one console share."""

    board: Board
    access: ConsoleAccess
    report: Callable[[ConsoleReport], object]
    clock: Callable[[], float] = time.monotonic
    throttle: Throttle = field(default_factory=Throttle)
    views: int = 0

    def tell(self) -> None:
        """Give out what was seen so far."""
        seen = ConsoleReport(
            is_open=True, views=self.views, guesses=self.throttle.guesses, last_from=self.throttle.last_from
        )
        self.report(seen)


class _Guard(asyncssh.SSHServer):
    """Lets in whoever knows the password, slowly; everything a client may ask for beside a session is refused."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._connection: asyncssh.SSHServerConnection | None = None
        self._address = ""
        self._tries = 0
        self._has_session = False
        self.is_waiting = True

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember who it is."""
        self._connection = conn
        self._address = str(conn.get_extra_info("peername", ("",))[0])

    def begin_auth(self, username: str) -> bool:
        """Nobody comes in without authentication, whatever the name."""
        return True

    def password_auth_supported(self) -> bool:
        """A password is the only way."""
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        """Wait as long as this address has to, then look; another user's password is never right."""
        delay_s = self._door.throttle.delay_s(self._address, self._door.clock())
        if delay_s is None:
            raise asyncssh.DisconnectError(asyncssh.DISC_TOO_MANY_CONNECTIONS, "too many passwords were tried")
        await asyncio.sleep(delay_s)
        is_right = is_password(password, self._door.access.password)
        if is_right and username == USER:
            self.is_waiting = False
            self._door.throttle.right(self._address, self._door.clock())
            return True
        self._wrong()
        return False

    async def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        """Refuse; the guess in it counts as one."""
        self._wrong()
        return False

    def session_requested(self) -> asyncssh.SSHServerSession[bytes] | bool:
        """Give one view a connection."""
        if self._has_session:
            return False
        self._has_session = True
        self._door.views += 1
        self._door.tell()
        return _View(self._door.board)

    def _wrong(self) -> None:
        self._tries += 1
        self._door.throttle.wrong(self._address, self._door.clock())
        self._door.tell()
        if self._tries >= TRIES_OF_CONNECTION:
            raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many wrong passwords")


class _View(asyncssh.SSHServerSession[bytes]):
    """One view of the screen: drawn anew every second on a terminal, once without one."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._size = _PLAIN_SIZE
        self._has_terminal = False
        self._is_paused = False
        self._shown = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Remember where to write."""
        self._channel = chan

    def connection_lost(self, exc: Exception | None) -> None:
        """Draw no more."""
        self._channel = None
        if self._timer is not None:
            self._timer.cancel()

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: object) -> bool:
        """Take any terminal; its name is not used for anything."""
        self._has_terminal = True
        self._size = _size(*term_size[:2])
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Draw for the new size from the next second on."""
        self._size, self._shown = _size(width, height), b""

    def shell_requested(self) -> bool:
        """What clients ask for when they give no command."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Refuse."""
        return False

    def subsystem_requested(self, subsystem: str) -> bool:
        """Refuse."""
        return False

    def session_started(self) -> None:
        """Draw."""
        if self._channel is None:
            return
        if not self._has_terminal:
            self._channel.write("\n".join(self._lines("")).encode() + b"\n")
            self._channel.exit(0)
            return
        self._channel.write(_ENTER)
        self._draw()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """End the view on q, Ctrl-C or Ctrl-D; drop everything else."""
        if any(key in _ENDS for key in data):
            self._end()

    def eof_received(self) -> bool:
        """A client that sends nothing more may look on."""
        return True

    def pause_writing(self) -> None:
        """The client does not read: screens are left out, not kept."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_paused = False

    def _lines(self, foot: str) -> tuple[str, ...]:
        width, height = self._size
        board = self._board
        return render(board.get(), board.links(), now_s=time.monotonic(), width=width, height=height, foot=foot)

    def _draw(self) -> None:
        if self._channel is None:
            return
        frame = redrawn(self._lines(_FOOT))
        if frame != self._shown and not self._is_paused:
            self._shown = frame
            self._channel.write(frame)
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._draw)

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.write(_LEAVE if self._has_terminal else b"")
            self._channel.exit(0)


class _Connection(asyncssh.SSHServerConnection):
    """A connection that may send only so much: asyncssh keeps what comes while it waits, without a bound."""

    _budget: Budget | None = None

    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        """Pass on what the budget allows, else hang up."""
        now = time.monotonic()
        self._budget = self._budget or Budget(now)
        if self._budget.take(len(data), now):
            super().data_received(data, datatype)
        else:
            self.abort()


async def serve(door: Door, listening: socket.socket) -> None:
    """Serve views to whoever connects to `listening`, for ever."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: log.debug("console: %s", context.get("message")))
    key = asyncssh.import_private_key(door.access.host_key.value)
    listening.setblocking(False)
    listening.listen(16)
    door.tell()
    ongoing: set[asyncio.Task[None]] = set()
    while True:
        try:
            accepted, peer = await loop.sock_accept(listening)
        except OSError as error:  # a connection that was gone again, or no descriptor left
            log.debug("console: %s", error)
            await asyncio.sleep(_EVERY_S)
            continue
        if not door.throttle.admit(peer[0], door.clock()):
            accepted.close()
            door.tell()
            continue
        task = asyncio.create_task(_serve_one(door, key, accepted, peer[0]))
        ongoing.add(task)
        task.add_done_callback(ongoing.discard)


async def _serve_one(door: Door, key: asyncssh.SSHKey, accepted: socket.socket, address: str) -> None:
    loop = asyncio.get_running_loop()
    guard = _Guard(door)
    try:
        options = _options(key, guard)
        _, connection = await loop.connect_accepted_socket(lambda: _Connection(loop, options), accepted)
        try:
            await asyncio.wait_for(connection.wait_closed(), _LONGEST_S)
        finally:
            connection.abort()
    except (OSError, TimeoutError, asyncssh.Error, ValueError) as error:
        log.debug("console: %s", error)
    finally:
        accepted.close()
        door.throttle.leave(address, is_waiting=guard.is_waiting)


def _options(key: asyncssh.SSHKey, guard: _Guard) -> asyncssh.SSHServerConnectionOptions:
    return asyncssh.SSHServerConnectionOptions(
        server_factory=lambda: guard,
        server_host_keys=[key],
        server_version="Cloner",
        password_auth=True,
        public_key_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        agent_forwarding=False,
        x11_forwarding=False,
        allow_scp=False,
        sftp_factory=None,
        line_editor=False,
        compression_algs=None,
        encoding=None,
        window=_WINDOW_BYTES,
        login_timeout=_LOGIN_S,
        keepalive_interval=_ALIVE_S,
    )


def serve_forever(door: Door, listening: socket.socket) -> None:
    """Serve until this process is killed."""
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)  # it would tell what strangers send
    asyncio.run(serve(door, listening))


def _size(width: int, height: int) -> tuple[int, int]:
    """Return a terminal's size; 0 means that the client does not know."""
    return width or 80, height or 24
