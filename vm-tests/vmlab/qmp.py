"""Talks to a running QEMU over its control socket (QMP): power button, reset, status."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from vmlab.errors import LabError

TIMEOUT_S = 10.0


def command(path: Path, name: str, /, **arguments: Any) -> Any:
    """Send one command and return what it answers.

    Raises LabError when QEMU does not listen or refuses. Source: QEMU, docs/interop/qmp-spec.txt.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(TIMEOUT_S)
            link.connect(str(path))
            with link.makefile("rwb") as stream:
                stream.readline()  # the greeting
                _ask(stream, "qmp_capabilities", {})
                return _ask(stream, name, arguments)
    except OSError as error:
        raise LabError(f"QEMU does not answer at {path}: {error}") from error


def _ask(stream: Any, name: str, arguments: dict[str, Any]) -> Any:
    stream.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
    stream.flush()
    while line := stream.readline():
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise LabError(f"QEMU refuses {name}: {answer['error'].get('desc')}")
    raise LabError(f"QEMU hung up at {name}")
