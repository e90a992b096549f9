"""The machine's own screen: a virtual terminal for the screen alone, beside the one that has kernel and log lines.

Nothing here waits: a terminal that takes no output is left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Sequence

from cloner_core.screen import redrawn

_NUMBER = 2  # tty1 is /dev/console's when the last console= is tty0: the agent's lines go there
_VT_ACTIVATE = 0x5606  # include/uapi/linux/vt.h
_TIOCLINUX, _TIOCL_SETKMSGREDIRECT = 0x541C, 11  # include/uapi/linux/tiocl.h
_HIDE_CURSOR_AND_CLEAR = b"\x1b[?25l\x1b[2J"
_SIZE = (80, 25)


class VirtualTerminal:
    """Draws on /dev/tty2 and brings it to the front; raises OSError when the machine has no such thing."""

    def __init__(self, path: str = f"/dev/tty{_NUMBER}") -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._shown = b""
        self._prepare()

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        try:
            rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._fd, termios.TIOCGWINSZ, bytes(8)))
        except OSError:
            return _SIZE
        return columns or _SIZE[0], rows or _SIZE[1]

    def draw(self, lines: Sequence[str]) -> None:
        """Show `lines`, unless that is what is shown."""
        frame = redrawn(lines)
        if frame == self._shown:
            return
        with contextlib.suppress(OSError):
            # One write: a screen is smaller than what the kernel takes at once.
            self._shown = frame if os.write(self._fd, frame) == len(frame) else b""

    def close(self) -> None:
        """Draw no more."""
        os.close(self._fd)

    def _prepare(self) -> None:
        with contextlib.suppress(OSError, termios.error):
            # No echo, and no Ctrl-S that would stop the drawing.
            mode = termios.tcgetattr(self._fd)
            mode[0] &= ~(termios.IXON | termios.IXOFF)
            mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        with contextlib.suppress(OSError):
            # Else the kernel writes onto whatever is in front.
            fcntl.ioctl(self._fd, _TIOCLINUX, bytes((_TIOCL_SETKMSGREDIRECT, 1)))
            fcntl.ioctl(self._fd, _VT_ACTIVATE, _NUMBER)
        with contextlib.suppress(OSError):
            os.write(self._fd, _HIDE_CURSOR_AND_CLEAR)
