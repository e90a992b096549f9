"""The processes that show the screen: one draws it on the machine's own terminal and keeps the SSH console up.

Both are made before the attempt's key exists and before anything is known of the task, so neither ever holds a
credential; the SSH console is a child of its own without privileges, started again when it dies. Nothing they do, or
fail to do, makes the work or the heartbeat wait.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

import msgspec

from cloner_agent.board import Board
from cloner_agent.confinement import confine
from cloner_agent.terminal import VirtualTerminal
from cloner_core.mailbox import Mailbox
from cloner_core.messages import ConsoleAccess, ConsoleReport, Stage, Strict
from cloner_core.passwords import PORT
from cloner_core.screen import Screen, render

log = logging.getLogger(__name__)

SMALL_BYTES = 768 << 20
"""A machine with less memory gets its SSH console when the restore, which needs most, is over; or when it failed."""
_EVERY_S = 1.0
_AGAIN_S = (2.0, 5.0, 15.0, 60.0)
_SETTLED_S = 120.0  # a console that lived so long died of something new
_MORE_BYTES = 256 << 20  # address space, not memory
_AFTER_RESTORE = frozenset(list(Stage)[list(Stage).index(Stage.READBACK) :])


def own_terminal() -> VirtualTerminal | None:
    """Return the machine's own screen; None for a machine with a serial line alone."""
    try:
        return VirtualTerminal()
    except OSError:
        return None


class _Given(Strict, frozen=True):
    access: ConsoleAccess | None = None


class Screens:
    """Shows a board until the block ends."""

    def __init__(
        self,
        board: Board,
        *,
        port: int = PORT,
        memory_bytes: int | None = None,
        terminal: Callable[[], VirtualTerminal | None] = own_terminal,
    ) -> None:
        self._board = board
        self._terminal = terminal
        self._port = port
        self._memory_bytes = total_memory_bytes() if memory_bytes is None else memory_bytes
        self._given = Mailbox(_Given, _Given())
        self._report = Mailbox(ConsoleReport, ConsoleReport())
        self._process: BaseProcess | None = None
        self._process_fd: int | None = None  # a pidfd, readable in any process once that has ended

    def __enter__(self) -> Self:
        """Start to draw; call it while this process has one thread and no secret."""
        # fork: the board is shared memory without a name.
        self._process = multiprocessing.get_context("fork").Process(
            target=self._live, args=(os.getpid(),), name="cloner-screens"
        )
        self._process.start()
        assert self._process.pid is not None
        self._process_fd = os.pidfd_open(self._process.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End both processes."""
        if self._process is not None:
            self._process.terminate()
            self._process.join()
            self._process = None
        if self._process_fd is not None:
            os.close(self._process_fd)
            self._process_fd = None

    def open_console(self, access: ConsoleAccess) -> None:
        """Have the SSH console opened with this key and password, now or when the machine has memory for it."""
        self._given.put(_Given(access))

    def report(self) -> ConsoleReport:
        """Return what the SSH console has seen; from any process."""
        report = self._report.get()
        # it ends with the process that keeps it, and neither is there to take its word back
        return msgspec.structs.replace(report, is_open=report.is_open and self._is_alive())

    def _is_alive(self) -> bool:
        if self._process_fd is None:
            return False
        ended = select.poll()
        ended.register(self._process_fd, select.POLLIN)
        return not ended.poll(0)

    def _live(self, parent: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        logging.getLogger().handlers.clear()  # they write where the parent writes
        terminal = self._terminal()
        keeper = _Keeper(self._serve, self._port, self._closed)
        try:
            while os.getppid() == parent:
                screen = self._board.get()
                if terminal is not None:
                    width, height = terminal.size()
                    links = self._board.links()
                    terminal.draw(render(screen, links, now_s=time.monotonic(), width=width, height=height))
                access = self._given.get().access
                if access is not None and may_open(screen, self._memory_bytes):
                    keeper.keep(access)
                time.sleep(_EVERY_S)
        finally:
            keeper.end()

    def _closed(self) -> None:
        self._report.put(msgspec.structs.replace(self._report.get(), is_open=False))

    def _serve(self, access: ConsoleAccess, listening: socket.socket) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _silence()
        from cloner_agent.sshconsole import Door, serve_forever

        confine(_MORE_BYTES)
        before = self._report.get()
        door = Door(self._board, access, self._report.put, views=before.views)
        door.throttle.guesses, door.throttle.last_from = before.guesses, before.last_from
        serve_forever(door, listening)


class _Keeper:
    """Keeps one child alive, with longer and longer pauses between its deaths; the port stays bound."""

    def __init__(
        self, serve: Callable[[ConsoleAccess, socket.socket], None], port: int, closed: Callable[[], None]
    ) -> None:
        """`closed` is told of each death."""
        self._serve = serve
        self._port = port
        self._closed = closed
        self._listening: socket.socket | None = None
        self._child: BaseProcess | None = None
        self._deaths = 0
        self._started_s = 0.0
        self._next_s = 0.0

    def keep(self, access: ConsoleAccess) -> None:
        """Start the child unless it lives, or died a moment ago."""
        now = time.monotonic()
        if self._child is not None:
            if self._child.is_alive():
                return
            self._child.join()
            self._child = None
            self._closed()
            self._deaths = 1 if now - self._started_s > _SETTLED_S else self._deaths + 1
            self._next_s = now + _AGAIN_S[min(self._deaths, len(_AGAIN_S)) - 1]
        if now < self._next_s:
            return
        try:
            self._listening = self._listening or listen(self._port)
        except OSError:
            self._next_s = now + _AGAIN_S[-1]
            return
        self._started_s = now
        self._child = multiprocessing.get_context("fork").Process(
            target=self._serve, args=(access, self._listening), name="cloner-console"
        )
        self._child.start()

    def end(self) -> None:
        """Kill the child."""
        if self._child is not None:
            self._child.kill()
            self._child.join()


def may_open(screen: Screen, memory_bytes: int) -> bool:
    """Tell whether the machine has memory for the SSH console now."""
    return memory_bytes >= SMALL_BYTES or screen.failure is not None or screen.stage in _AFTER_RESTORE


def total_memory_bytes() -> int:
    """Return what the kernel has to give out (MemTotal)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def listen(port: int) -> socket.socket:
    """Return a socket that listens on all addresses, of both families where the kernel has two."""
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        return socket.create_server(("", port))


def _silence() -> None:
    """Have nothing that a stranger causes reach the serial line."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
