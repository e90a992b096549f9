"""Reaches a machine of the lab over SSH, from inside its namespace, with a key made for the run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from vmlab import host
from vmlab.errors import LabError
from vmlab.lab import Lab

# Host keys are what tests compare; ssh itself must not stop at one it has not seen.
OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "ConnectTimeout=10",
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair for the run."""

    path: Path  # of the private key
    public: str  # one line, as in authorized_keys


def make_key(folder: Path) -> Key:
    """Make an Ed25519 key pair in a folder."""
    path = folder / "ssh-key"
    host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vmlab", "-f", path])
    return Key(path, path.with_suffix(".pub").read_text().strip())


def ssh(lab: Lab, address: str, key: Key, command: str, *, timeout_s: float = 60) -> str:
    """Run a command line as root on a machine and return its stdout; raises LabError when it fails."""
    options = [word for option in OPTIONS for word in ("-o", option)]
    return lab.run(["ssh", "-i", key.path, *options, f"root@{address}", command], timeout_s=timeout_s)


def wait_for_ssh(lab: Lab, address: str, key: Key, *, deadline_s: float) -> None:
    """Wait until the machine lets the key in; raises LabError when it does not within `deadline_s`."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            ssh(lab, address, key, "true")
        except LabError:
            if time.monotonic() > end:
                raise
            time.sleep(1)
        else:
            return


def host_key(lab: Lab, address: str, kind: str = "ed25519") -> str:
    """Return the host key a machine presents, as "ssh-ed25519 AAAA..."; raises LabError when it presents none."""
    lines = lab.run(["ssh-keyscan", "-t", kind, "-T", "20", address], timeout_s=30).splitlines()
    keys = [line.split(" ", 1)[1] for line in lines if line and not line.startswith("#")]
    if not keys:
        raise LabError(f"{address} presents no {kind} host key")
    return keys[0]
