"""Ways in which a simulated machine fails: spoilt hardware, and the law that no failure may break.

A spoil changes one seam of the hardware of a boot, so that what fails is the real stage that meets it.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentbench.simulated import SimulatedDisk, SimulatedMachine, Spoil, Table, old_disk
from cloner_agent.efivars import EfiVars, NvramFullError
from cloner_agent.hardware import Hardware
from cloner_agent.host import Completed, Runner, ToolError, run
from cloner_core.efi import build_order


@dataclass(frozen=True)
class _Programs:
    """Runs programs through `below`, but for those that `instead` has an answer to."""

    below: Runner
    instead: Callable[[tuple[str, ...], Runner], Completed | None]

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        done = self.instead(tuple(argv), self.below)
        return done or self.below(argv, stdin=stdin, timeout_s=timeout_s, accept=accept)


def program_fails(name: str, stderr: str, status: int = 1) -> Spoil:
    """Have a program end with a status and an error message, having done nothing."""

    def fail(argv: tuple[str, ...], _below: Runner) -> Completed | None:
        if argv[0] == name and "--dump" not in argv:
            raise ToolError(argv, status, stderr)
        return None

    return lambda machine, hardware: replace(hardware, run=_Programs(hardware.run, fail))


def program_says(name: str, stdout: str) -> Spoil:
    """Have a program end well and say something else than it should."""

    def say(argv: tuple[str, ...], _below: Runner) -> Completed | None:
        return Completed(argv, 0, stdout, "", 0.0) if argv[0] == name else None

    return lambda machine, hardware: replace(hardware, run=_Programs(hardware.run, say))


def root_is(*options: str) -> Spoil:
    """Mount something else as the root filesystem: `mount` with these words before the mount point."""

    def mount(argv: tuple[str, ...], below: Runner) -> Completed | None:
        if argv[:3] == ("mount", "-t", "ext4"):
            below(argv)
            return below(("mount", *options, argv[-1]))
        return None

    return lambda machine, hardware: replace(hardware, run=_Programs(hardware.run, mount))


def read_only_after_mount(machine: SimulatedMachine, hardware: Hardware) -> Hardware:
    """Turn the root filesystem read-only, as ext4 does after an error of its disk."""
    return root_is("-o", "remount,bind,ro")(machine, hardware)


def flips_a_byte(name: str = "usr/bin/big") -> Spoil:
    """Return other bytes than were written: a byte of the clone is another when caches were dropped."""

    def spoil(machine: SimulatedMachine, hardware: Hardware) -> Hardware:
        def drop_caches() -> None:
            path = machine.target / name
            if path.exists():
                flip(path)

        return replace(hardware, machine=replace(hardware.machine, drop_caches=drop_caches))

    return spoil


def flip(path: Path) -> None:
    """Change one byte in the middle of a file and leave its times as they are."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    os.chmod(path, 0o600)
    with path.open("r+b") as file:
        file.write(data)
    os.chmod(path, status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class FullVariables(EfiVars):
    """A variable store without room."""

    def write(self, name: str, value: bytes) -> None:
        raise NvramFullError(errno.ENOSPC, "the firmware's variable store is full", name)


class ForgetfulVariables(EfiVars):
    """A firmware that takes an order and keeps its own."""

    def write(self, name: str, value: bytes) -> None:
        super().write(name, build_order((4,)) if name == "BootOrder" else value)


class RefusingVariables(EfiVars):
    """A firmware that refuses to write."""

    def write(self, name: str, value: bytes) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)


def no_variables(machine: SimulatedMachine, hardware: Hardware) -> Hardware:
    """Show no firmware variables at all."""
    empty = machine.directory / "no-efivars"
    empty.mkdir(exist_ok=True)
    return replace(hardware, efivars=EfiVars(empty))


def tight_disk(machine: SimulatedMachine) -> None:
    """Give the machine a disk that the partitions of the layout do not fit on."""
    machine.disks[0] = replace(machine.disks[0], size_bytes=600 << 20)


def other_disk(machine: SimulatedMachine) -> None:
    """Give the machine a disk that the selector of the layout does not mean."""
    machine.disks[0] = replace(machine.disks[0], serial="OTHER")


def second_disk(machine: SimulatedMachine, number: int = 9000, table: Table | None = None) -> SimulatedDisk:
    """Put a second disk of the same kind into the machine."""
    place, bulk = machine.disk.directory.parent / "disk1", machine.disk.bulk.parent / f"{machine.name}-1"
    disk = old_disk(place, bulk, "simulated1", number + int(machine.name[1:]))
    if table is not None:
        disk.write(table)
    machine.disks.append(disk)
    return disk


def no_memory() -> None:
    """Leave this process no memory to speak of; what it has stays."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), used + (1 << 20)))


def locked(path: Path) -> Callable[[], None]:
    """Return what makes a directory take no new files, not even from root."""

    def lock() -> None:
        run(("chattr", "+i", str(path)))

    return lock
