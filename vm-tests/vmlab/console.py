"""Looks at the console of a machine of the lab as a person does: `cloner console NODE`, which runs OpenSSH."""

from __future__ import annotations

import time
from typing import Any

from cloner_core.passwords import DEFAULT_PASSWORD
from vmlab.errors import LabError
from vmlab.head import Head


def wait_open(head: Head, node: str, deadline_s: float) -> dict[str, Any]:
    """Wait until the agent takes connections and return how; raises LabError when it does not in time."""
    end = time.monotonic() + deadline_s
    while True:
        said = head.cloner("--json", "console", node, check=False)
        if said.status == 0 and said.json["is_open"]:
            return dict(said.json)
        if time.monotonic() > end:
            raise LabError(f"the console of {node} did not open within {deadline_s:.0f} s: {said.out}{said.err}")
        time.sleep(1)


def look(head: Head, node: str, password: str = DEFAULT_PASSWORD, *, check: bool = True) -> str:
    """Return the screen of a node as it is now; with `check` raises LabError when it is not shown."""
    askpass = head.lab.directory / "askpass"
    askpass.write_text(f"#!/bin/sh\necho '{password}'\n")
    askpass.chmod(0o755)
    asking = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    return head.cloner("console", node, check=check, more_environment=asking).out
