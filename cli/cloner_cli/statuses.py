"""The exit statuses as they are told to people: in `cloner --help` and on every manual page."""

from __future__ import annotations

from cloner_core.errors import FAILED_BASE, FAILED_MOST, ExitStatus, failed_status

MEANINGS = {
    ExitStatus.OK: "done",
    ExitStatus.FAILED: "the work was tried and failed",
    ExitStatus.USAGE: "the command line or a document is wrong; nothing was changed",
    ExitStatus.NOT_FOUND: "a named node, image, layout or task does not exist; nothing was changed",
    ExitStatus.REFUSED: "understood, and not allowed now; nothing was changed",
    ExitStatus.CONFLICT: "somebody else changed it first; read it again",
    ExitStatus.UNREACHABLE: "the server does not answer",
    ExitStatus.INTEGRITY: "bytes do not match their digest or signature",
    ExitStatus.INEXACT: "the capture is complete and lists files that kept changing",
    ExitStatus.TIMEOUT: "waited as long as asked; the work goes on",
    ExitStatus.INTERRUPTED: "interrupted (Ctrl-C); what the server has accepted goes on",
}


def exit_statuses() -> list[tuple[str, str]]:
    """Return every status with its meaning, those that count nodes last."""
    counted = f"{failed_status(1)}-{failed_status(FAILED_MOST)}"
    return [
        *((str(int(status)), meaning) for status, meaning in MEANINGS.items()),
        (counted, f"nodes failed: {FAILED_BASE} plus their number, at most {FAILED_MOST}"),
    ]
