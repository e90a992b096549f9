"""The machine's own screen, on a pseudo-terminal in place of /dev/tty2: drawn when it changed, and never waited for."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
from collections.abc import Iterator

import pytest

from cloner_agent.terminal import VirtualTerminal
from cloner_core.screen import redrawn


@pytest.fixture
def pair() -> Iterator[tuple[int, VirtualTerminal]]:
    """Return the end a person looks at, and the terminal that is drawn on."""
    person, machine = os.openpty()
    os.set_blocking(person, False)
    fcntl.ioctl(machine, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    terminal = VirtualTerminal(os.ttyname(machine))
    yield person, terminal
    terminal.close()
    os.close(machine)
    os.close(person)


def seen(person: int, end: bytes = b"") -> bytes:
    """Return what came; with `end`, all until that: the kernel carries the bytes over in its own time, in parts."""
    got = b""
    while not got.endswith(end) or not end:
        if not select.select([person], [], [], 30.0 if end else 0.05)[0]:
            break
        got += os.read(person, 1 << 16)
    return got


def test_a_screen_is_drawn_when_it_changed(pair: tuple[int, VirtualTerminal]) -> None:
    person, terminal = pair
    assert terminal.size() == (90, 30)
    assert seen(person, b"\x1b[2J") == b"\x1b[?25l\x1b[2J"
    terminal.draw(("one", "two"))
    # The line discipline of a pseudo-terminal makes \r\n of \n.
    assert seen(person, b"\x1b[J").replace(b"\r\r\n", b"\r\n") == redrawn(("one", "two"))
    terminal.draw(("one", "two"))
    assert seen(person) == b""
    terminal.draw(("one", "three"))
    assert b"three" in seen(person, b"\x1b[J")


def test_what_is_typed_does_not_show(pair: tuple[int, VirtualTerminal]) -> None:
    person, _ = pair
    seen(person)
    os.write(person, b"reboot\r\x13")
    assert seen(person) == b""


def test_a_terminal_that_takes_nothing_stops_nothing(pair: tuple[int, VirtualTerminal]) -> None:
    person, terminal = pair
    for number in range(5000):
        terminal.draw((f"{number} " + "x" * 80,) * 30)
    assert seen(person)


def test_a_machine_without_such_a_terminal_says_so() -> None:
    with pytest.raises(OSError):
        VirtualTerminal("/dev/no-such-tty")
