"""What happens to a machine at a stage: its agent dies, its power goes, another machine comes with its claim.

What is wrong with the machine itself is in `faults`.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentbench.ground import Ground
from agentbench.yard import Running
from cloner_agent.client import Endpoint
from cloner_agent.protocol import ServerFault
from cloner_agent.session import HttpsServer
from cloner_core.errors import UnreachableError
from cloner_core.facts import Facts
from cloner_core.messages import PROTOCOL, Hello

LOST_S = 8.0
"""After so much silence the server takes an attempt for lost, in the table."""
_STEALTH_S = LOST_S + 4


def kill_agent(_ground: Ground, one: Running) -> None:
    """Kill the process of the agent alone."""
    one.kill_agent()


def cut_power(_ground: Ground, one: Running) -> None:
    """End everything that runs on the machine."""
    one.signal_all(signal.SIGKILL)


def abort(ground: Ground, one: Running) -> float:
    """Abort the task, as an admin does."""
    ground.served.admin("POST", f"/tasks/{ground.task(one)['id']}/abort")
    return 3.0  # longer than between two beats: the order is there before the stage goes on


def silence_heartbeat(ground: Ground, one: Running) -> float:
    """Stop the heartbeat, and let it go on only after the server has missed it."""
    pid = one.heartbeat()
    os.kill(pid, signal.SIGSTOP)
    ground.yard.later(_STEALTH_S - 1, lambda: os.kill(pid, signal.SIGCONT))
    return _STEALTH_S


def expire_claims(ground: Ground, one: Running) -> None:
    """Let the hour of a claim pass: the clock of the server cannot be moved for one node alone."""
    with sqlite3.connect(ground.served.state / "cloner.db", timeout=30) as database:
        database.execute("update claims set expires_s = 0 where node = ?", (one.machine.name,))


def _hello(ground: Ground, claim: str, facts: Facts) -> int:
    """Say hello from another machine; return the status of the refusal."""
    key = Ed25519PrivateKey.generate()
    where = ground.yard.where
    server = HttpsServer(Endpoint(where.address, where.tls, ground.yard.trust.ca_pem), key, patience_s=0)
    public = key.public_key().public_bytes_raw().hex()
    try:
        server.hello(Hello(protocol=PROTOCOL, agent_version="x", claim=claim, public_key=public, facts=facts))
    except ServerFault as fault:
        return fault.http_status
    except UnreachableError:
        return 503
    return 200


def _claim_of(text: str) -> str:
    found: list[str] = re.findall(r"cloner\.claim=(\S+)", text)
    return found[-1]


def replay(ground: Ground, one: Running) -> float:
    """A stranger read the claim off the machine's screen."""
    stranger = replace(one.machine, mac="52:54:99:00:00:01", serial="stranger").facts()
    status = _hello(ground, _claim_of((one.machine.directory / "cmdline").read_text()), stranger)
    assert status == 409, f"a replayed claim got {status}"
    return 3.0


def second(ground: Ground, one: Running) -> float:
    """A second machine of the very same identity netboots while the first works."""
    claim = _claim_of(ground.yard.where.boot_script(one.machine.mac))
    status = _hello(ground, claim, one.machine.facts(one.machine.mac))
    assert status == 503, f"a second claimant got {status}"
    return 3.0


def exchange_board(_ground: Ground, one: Running) -> None:
    """Cut the power; the machine that comes back is another one with the same network card."""
    one.machine.serial = "another board"
    one.signal_all(signal.SIGKILL)


def kill_server(ground: Ground, _one: Running) -> None:
    """Kill the server and start it again."""
    ground.served.kill()
    ground.served.start()
