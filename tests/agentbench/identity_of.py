"""What a clone tells of itself that no other machine may tell: the regeneration list, read off a simulated disk."""

from __future__ import annotations

from pathlib import Path

from agentbench.simulated import SimulatedMachine
from cloner_core.identity.regeneration import REMOVALS

KEPT = (
    "etc/machine-id",
    "etc/hostid",
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    "etc/iscsi/initiatorname.iscsi",
    *(f"etc/ssh/ssh_host_{kind}_key{half}" for kind in ("ed25519", "ecdsa", "rsa") for half in ("", ".pub")),
)
"""Unlike those of any other machine, and the same when a node is cloned again."""

RENEWED = (
    "var/lib/systemd/random-seed",
    *(f"etc/ssh/ssh_host_{kind}_key-cert.pub" for kind in ("ed25519", "ecdsa", "rsa")),
)
"""Unlike those of any other machine, and new each time."""


def files_of(machine: SimulatedMachine, paths: tuple[str, ...]) -> dict[str, bytes]:
    """Return the contents of `paths` in the clone."""
    root = machine.disk.filesystem("ext4")
    assert root is not None
    return {path: (root / path).read_bytes() for path in paths}


def names_of(machine: SimulatedMachine) -> dict[str, str]:
    """Return every identifier of table, partitions and filesystems."""
    table = machine.disk.table()
    found = {"table": table.guid}
    for one in table.partitions:
        found |= {f"partition {one.number}": one.part_uuid, f"filesystem {one.number}": one.uuid}
    return found


def left_of_golden(machine: SimulatedMachine, golden: Path) -> list[str]:
    """Return which files on the regeneration list are still the golden machine's."""
    root = machine.disk.filesystem("ext4")
    assert root is not None
    # Path.glob() takes "**" for directories alone
    patterns = [removal.path.lstrip("/") + ("/*" if removal.path.endswith("**") else "") for removal in REMOVALS]
    listed = [path for pattern in patterns for path in golden.glob(pattern) if path.is_file()]
    assert len(listed) > 10, "the golden tree has little to lose"
    names = [str(path.relative_to(golden)) for path in listed]
    return [
        name for name in names if (root / name).is_file() and (root / name).read_bytes() == (golden / name).read_bytes()
    ]
