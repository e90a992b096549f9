"""The processes that send: one for each epoch, started, spoken to and heard here; none of them outlives the server.

Each has a thread that starts it and listens to it until its end. Nothing but `join` and `close` waits for a sender, so
all else may be called from the event loop.
"""

from __future__ import annotations

import math
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import msgspec

from cloner_core.errors import ConflictError
from cloner_core.multicast.session import Leaving
from cloner_server.multicast.orders import (
    Admit,
    Begin,
    Command,
    Dismiss,
    Limit,
    SenderNews,
    SenderOrder,
    SenderPhase,
    Settle,
    Stop,
)

Changed = Callable[["Running"], None]
"""Told, in a thread of its own, that the news of a sender are others; must not wait."""

_ENDS_S = 2.0  # that a sender has to say good-bye, before it is killed
_WORDS_BYTES = 8192
_READ_BYTES = 1 << 16


def _ignore(_: Running) -> None:
    pass


class Running:
    """One sender. What it is told is passed on in order; after its end nothing is."""

    def __init__(self, order: SenderOrder, changed: Changed) -> None:
        self.order = order
        self._changed = changed
        self._news = SenderNews()
        self._lock = threading.Lock()
        self._unsaid = deque[bytes]((msgspec.json.encode(order) + b"\n",))
        self._wake_in, self._wake_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._kill_s: float | None = None  # by time.monotonic(); None: it was not told to stop
        self._thread = threading.Thread(target=self._run, name=f"sender of {order.session}", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int] | None:
        """Where receivers send their reports; None until the sender has its socket."""
        news = self._news
        return (news.address, news.port) if news.address else None

    def news(self) -> SenderNews:
        """Return what was heard last."""
        return self._news

    def admit(self, number: int) -> None:
        """Have a receiver served whose keys were made of this number."""
        self._say(Admit(number))

    def begin(self) -> None:
        """Have the data sent: enough receivers hear."""
        self._say(Begin())

    def dismiss(self, number: int, reason: Leaving) -> None:
        """Have a receiver served no more, and told so."""
        self._say(Dismiss(number, reason))

    def settle(self, number: int) -> None:
        """Have it known that a receiver has everything."""
        self._say(Settle(number))

    def limit(self, rate_bps: float, floor_bps: float) -> None:
        """Have it send at another rate."""
        self._say(Limit(rate_bps, floor_bps))

    def stop(self) -> None:
        """Have it tell all receivers that the session is over, and end; it is killed when it does not."""
        with self._lock:
            if self._kill_s is not None:
                return
            self._kill_s = time.monotonic() + _ENDS_S
        self._say(Stop())

    def abandon(self) -> None:
        """End it at once and without a word: receivers keep what they have, and wait for another epoch."""
        with self._lock:
            self._kill_s = -math.inf
        self._wake()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the process has ended; return whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _say(self, command: Command) -> None:
        with self._lock:
            if self._wake_out < 0:
                return
            self._unsaid.append(msgspec.json.encode(command) + b"\n")
        self._wake()

    def _wake(self) -> None:
        with self._lock, suppress(BlockingIOError):  # it is awake, and has more to read than it can hold
            if self._wake_out >= 0:
                os.write(self._wake_out, b"\0")

    # In the thread

    def _run(self) -> None:
        words, status = "", None
        try:
            with _start() as process:
                words = self._attend(process)
            status = process.returncode
        except OSError as error:
            words = f"the process cannot be started: {error}"
        except msgspec.MsgspecError as error:
            words = f"what the process says cannot be read: {error}"
        finally:
            with self._lock:
                os.close(self._wake_in)
                os.close(self._wake_out)
                self._wake_out = -1
        is_stopped = self._kill_s is not None
        if status is not None and not words and not is_stopped:
            words = f"the process ended with status {status}" if status >= 0 else f"it was ended by signal {-status}"
        phase = SenderPhase.OVER if is_stopped else SenderPhase.DEAD
        self._take(msgspec.structs.replace(self._news, phase=phase, last_words=words, exit_status=status))

    def _attend(self, process: subprocess.Popen[bytes]) -> str:
        """Pass on what is said on both sides until the process has ended; return its last words."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        heard = words = unsaid = b""
        hearing = {process.stdout.fileno(), process.stderr.fileno()}
        os.set_blocking(process.stdin.fileno(), False)
        with selectors.DefaultSelector() as selector:
            for fd in (*hearing, self._wake_in):
                selector.register(fd, selectors.EVENT_READ)
            while hearing:
                unsaid = self._pass_on(process.stdin, unsaid)
                _await_room(selector, process.stdin, is_wanted=bool(unsaid))
                if self._kill_s is not None and time.monotonic() > self._kill_s:
                    process.kill()
                for key, _ in selector.select(_ENDS_S / 4 if self._kill_s is not None else None):
                    if key.fileobj is process.stdin:
                        continue
                    data = os.read(key.fd, _READ_BYTES)
                    if key.fd == process.stdout.fileno():
                        heard = self._listen(heard + data)
                    elif key.fd == process.stderr.fileno():
                        words = (words + data)[-_WORDS_BYTES:]
                    if not data:
                        selector.unregister(key.fd)
                        hearing.discard(key.fd)
        return words.decode(errors="replace").strip()

    def _pass_on(self, stdin: IO[bytes], unsaid: bytes) -> bytes:
        """Say what is to be said; return what does not go into the pipe yet."""
        with self._lock:
            unsaid += b"".join(self._unsaid)
            self._unsaid.clear()
        try:
            while unsaid:
                unsaid = unsaid[os.write(stdin.fileno(), unsaid) :]
        except BlockingIOError:
            return unsaid
        except BrokenPipeError:
            return b""
        return b""

    def _listen(self, heard: bytes) -> bytes:
        *lines, rest = heard.split(b"\n")
        if lines:
            self._take(msgspec.json.decode(lines[-1], type=SenderNews))
        return rest

    def _take(self, news: SenderNews) -> None:
        self._news = news
        self._changed(self)


class Supervisor:
    """All senders of this server."""

    def __init__(self, changed: Changed = _ignore, most: int = 64) -> None:
        """`changed` is told of every change; at most `most` senders run at once."""
        self._changed = changed
        self._most = most
        self._running: list[Running] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def start(self, order: SenderOrder) -> Running:
        """Start the sender of an epoch; what becomes of it, its news tell.

        Raises ConflictError when the server stops, or has as many senders as it may.
        """
        with self._lock:
            self._require_room()
            running = Running(order, self._changed)
            self._running.append(running)
            return running

    def require_room(self) -> None:
        """Raise the ConflictError that `start` would raise now."""
        with self._lock:
            self._require_room()

    def _require_room(self) -> None:
        self._running = [one for one in self._running if not one.join(0)]
        if self._is_closed:
            raise ConflictError("the server stops: it starts no sender any more")
        if len(self._running) >= self._most:
            raise ConflictError(f"{len(self._running)} senders run already", hint="wait until a session has ended")

    def close(self) -> None:
        """End every sender, and start none any more; sessions can go on with another epoch when the server is back."""
        with self._lock:
            self._is_closed = True
        for running in self._running:
            running.abandon()
        for running in self._running:
            running.join()


def _start() -> subprocess.Popen[bytes]:
    # Started by the thread that stays until its end: the kernel tells a child of its parent's death when the thread
    # is gone that made it (prctl(2), PR_SET_PDEATHSIG).
    path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    return subprocess.Popen(
        (sys.executable, "-P", "-m", "cloner_server.multicast.process"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **path},
        start_new_session=True,  # Ctrl-C is for the server, which stops its sessions
    )


def _await_room(selector: selectors.BaseSelector, pipe: IO[bytes], *, is_wanted: bool) -> None:
    is_awaited = pipe in selector.get_map()
    if is_wanted and not is_awaited:
        selector.register(pipe, selectors.EVENT_WRITE)
    elif is_awaited and not is_wanted:
        selector.unregister(pipe)
