"""The agent as a program: `python -m cloner_agent` does what the command line of the kernel says, a deploy, an
inventory or waiting; `python -m cloner_agent probe --json` shows the machine.

Exit status 0 means that a restart was asked for; anything else has the supervisor of the initramfs start it again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from cloner_agent.board import Board
from cloner_agent.console import Console, ConsoleHandler
from cloner_core.errors import ClonerError, ExitStatus

log = logging.getLogger("cloner_agent")

_USAGE = "usage: python -m cloner_agent [probe --json]"
_DIED_S = 10.0


def main(arguments: list[str]) -> int:
    """Run the agent; returns the exit status."""
    if arguments == ["probe", "--json"]:
        return _probe()
    if arguments:
        sys.stderr.write(f"{_USAGE}\n")
        return ExitStatus.USAGE
    console = Console(board=Board())
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().addHandler(ConsoleHandler(console))
    try:
        return _work(console)
    except ClonerError as error:
        console.marker(f"ERROR {error}")
        return error.exit_status


def _probe() -> int:
    import msgspec

    from cloner_agent.host import run
    from cloner_agent.probe import probe

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(probe(run)).decode()) + "\n")
    return ExitStatus.OK


def _work(console: Console) -> int:
    from cloner_agent.machine import reboot
    from cloner_agent.site import load_trust, parse_arguments

    arguments = parse_arguments(Path("/proc/cmdline").read_text(encoding="utf-8"))
    trust = load_trust()
    console.marker(f"AGENT {arguments!r}")
    if os.environ.get("CLONER_RESTARTS", "0") != "0":
        # The claim is spent and the attempt's key died with the process: only another network boot gives new ones.
        console.line("the agent died before; restarting the machine for a new attempt")
        time.sleep(_DIED_S)
        console.reboot("agent died")
        reboot()
        return ExitStatus.OK
    if arguments.is_discover:
        from cloner_agent.discover import Surroundings, discover

        discover(console, arguments, trust, Surroundings())
        return ExitStatus.OK
    if arguments.is_wait:
        from cloner_agent.discover import Surroundings
        from cloner_agent.waiting import wait_for_session

        claim = wait_for_session(console, arguments, trust, Surroundings())
        if not claim:
            return ExitStatus.OK
        arguments = replace(arguments, claim=claim, is_wait=False)
    from cloner_agent.hardware import Hardware
    from cloner_agent.runner import run_attempt
    from cloner_core.decoding import settle_types

    settle_types()
    run_attempt(console, arguments, trust, Hardware())
    return ExitStatus.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
