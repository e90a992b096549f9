"""What no failure may break: no flip, no bootable half image, no silent success."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentbench.ground import Ground
from agentbench.simulated import SimulatedDisk
from agentbench.yard import Running

_SUCCESS = ("unconfirmed", "done")
_CHANGED = ("etc", "var/lib", "boot/efi", "boot/grub")
"""Where a clone may differ from the golden tree: identity, rewritten references, boot files."""


def require_honest(ground: Ground, one: Running, *, former: str) -> None:
    """Raise AssertionError when server, disk and netboot do not tell one and the same true story of a machine.

    `former` is the digest of its disk before the deploy.
    """
    task, name, disk = ground.task(one), one.machine.name, one.machine.disk
    netboot = ground.served.admin("GET", f"/nodes/{name}")["netboot"]
    is_success = task["state"] in _SUCCESS
    if is_success:
        assert disk.is_bootable(), f"{name}: {task['state']}, and nothing to boot: a silent success"
        assert netboot == "local", f"{name}: {task['state']}, and netboot is {netboot}"
    else:
        assert is_told(task), f"{name}: {task['state']} without stage, cause and hint: {task['failure']}"
        if netboot == "local":
            assert disk.digest() == former, f"{name}: sent to a disk that is not its former one any more: a flip"
    if disk.is_bootable():
        faults = clone_faults(ground.golden, disk)
        assert not faults, f"{name}: a half image that boots: {faults[:5]}"


def is_told(task: dict[str, Any]) -> bool:
    """Say whether a task that did not succeed says why; one that goes on, or was aborted or frozen, has no failure."""
    failure = task["failure"]
    return task["state"] != "failed" or bool(failure and failure["stage"] and failure["message"] and failure["hint"])


def clone_faults(golden: Path, disk: SimulatedDisk) -> list[str]:
    """Return in what a clone is not whole."""
    root, esp = disk.filesystem("ext4"), disk.filesystem("vfat")
    if root is None or esp is None:
        return ["a filesystem is missing"]
    faults = []
    for path in sorted(golden.rglob("*")):
        name = str(path.relative_to(golden))
        if path.is_symlink() or not path.is_file() or name.startswith(_CHANGED):
            continue
        if not (root / name).is_file() or (root / name).read_bytes() != path.read_bytes():
            faults.append(f"{name} is not as in the image")
    if _text(root / "etc/machine-id") in ("", _text(golden / "etc/machine-id")):
        faults.append("no machine-id of its own")
    if f"UUID={uuid_of(disk)}" not in _text(root / "etc/fstab"):
        faults.append("fstab does not name the root filesystem")
    faults += [f"{name} is missing on the ESP" for name in ("EFI/debian/shimx64.efi",) if not (esp / name).is_file()]
    return faults


def uuid_of(disk: SimulatedDisk) -> str:
    """Return the UUID of the root filesystem."""
    return next(one.uuid for one in disk.table().partitions if one.kind == "ext4")


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
