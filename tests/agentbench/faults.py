"""Ways in which a simulated machine fails: spoilt hardware, and a clone that is spoilt while it is made.

A spoil changes one seam of the hardware of a boot, so that what fails is the real stage that meets it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from agentbench.golden import GOLDEN_UUID
from agentbench.simulated import SimulatedDisk, SimulatedMachine, Spoil, Table, old_disk
from cloner_agent.efivars import EfiVars, NvramFullError
from cloner_agent.hardware import Hardware
from cloner_agent.host import Completed, Runner, ToolError, run
from cloner_core.efi import build_order


@dataclass(frozen=True)
class _Programs:
    """Runs programs through `below`, but for those that `instead` has an answer to; these it notes."""

    machine: SimulatedMachine
    below: Runner
    instead: Callable[[tuple[str, ...], Runner], Completed | None]

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        try:
            done = self.instead(tuple(argv), self.below)
        except ToolError:
            self._note(argv[0])
            raise
        if done is None:
            return self.below(argv, stdin=stdin, timeout_s=timeout_s, accept=accept)
        self._note(argv[0])
        return done

    def _note(self, program: str) -> None:
        with _notes(self.machine).open("a") as notes:
            notes.write(f"{program}\n")


def _notes(machine: SimulatedMachine) -> Path:
    return machine.directory / "programs-that-failed"


def programs_that_failed(machine: SimulatedMachine) -> list[str]:
    """Return the programs that did something else than they should, in all boots so far."""
    return _notes(machine).read_text().splitlines() if _notes(machine).exists() else []


def program_fails(name: str, stderr: str, status: int = 1) -> Spoil:
    """Have a program end with a status and an error message, having done nothing."""

    def fail(argv: tuple[str, ...], _below: Runner) -> Completed | None:
        if argv[0] == name and "--dump" not in argv:
            raise ToolError(argv, status, stderr)
        return None

    return lambda machine, hardware: replace(hardware, run=_Programs(machine, hardware.run, fail))


def program_says(name: str, stdout: str) -> Spoil:
    """Have a program end well and say something else than it should."""

    def say(argv: tuple[str, ...], _below: Runner) -> Completed | None:
        return Completed(argv, 0, stdout, "", 0.0) if argv[0] == name else None

    return lambda machine, hardware: replace(hardware, run=_Programs(machine, hardware.run, say))


def root_is(*options: str) -> Spoil:
    """Mount something else as the root filesystem: `mount` with these words before the mount point."""

    def mount(argv: tuple[str, ...], below: Runner) -> Completed | None:
        if argv[:3] == ("mount", "-t", "ext4"):
            below(argv)
            return below(("mount", *options, argv[-1]))
        return None

    return lambda machine, hardware: replace(hardware, run=_Programs(machine, hardware.run, mount))


def flips_a_byte(name: str = "usr/bin/big", at: int = 1) -> Spoil:
    """Return other bytes than were written: a byte of the clone is another when caches were dropped that many times."""

    def spoil(machine: SimulatedMachine, hardware: Hardware) -> Hardware:
        drops = count(1)

        def drop_caches() -> None:
            if next(drops) == at:
                flip(machine.target / name)

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
    machine.disks[0] = replace(machine.disk, size_bytes=600 << 20)


def other_disk(machine: SimulatedMachine) -> None:
    """Give the machine a disk that the selector of the layout does not mean."""
    machine.disks[0] = replace(machine.disk, serial="OTHER")


def second_disk(machine: SimulatedMachine, number: int = 9000, table: Table | None = None) -> SimulatedDisk:
    """Put a second disk of the same kind into the machine."""
    place, bulk = machine.disk.directory.parent / "disk1", machine.disk.bulk.parent / f"{machine.name}-1"
    disk = old_disk(place, bulk, "simulated1", number + int(machine.name[1:]))
    if table is not None:
        disk.write(table)
    machine.disks.append(disk)
    return disk


def read_only_disk(machine: SimulatedMachine) -> None:
    """Give the machine a disk that cannot be written."""
    machine.disks[0] = replace(machine.disk, is_read_only=True)


def related_disk(machine: SimulatedMachine) -> None:
    """Put another disk into the machine, with a filesystem that has an identifier of the image."""
    disk = second_disk(machine)
    table = disk.table()
    table.partitions[0].uuid = GOLDEN_UUID
    disk.write(table)
    machine.disks[1] = replace(disk, serial="OTHER")


def no_disk_any_more(machine: SimulatedMachine) -> None:
    """Take every disk out of the machine."""
    machine.disks.clear()


def lose_kernel(machine: SimulatedMachine) -> None:
    """Take the kernel of the clone away."""
    for kernel in (machine.target / "boot").glob("vmlinuz-*"):
        kernel.unlink()


def change_host_name(machine: SimulatedMachine) -> None:
    """Give the clone another name than its own."""
    (machine.target / "etc/hostname").write_text("another\n")


def turn_read_only(machine: SimulatedMachine) -> None:
    """Do to the target what ext4 does to itself after an error of its disk."""
    run(("mount", "-o", "remount,bind,ro", str(machine.target)))


def lock_etc(machine: SimulatedMachine) -> None:
    """Let nobody write into /etc of the clone; `torture.clear_locks` lets its directory go."""
    run(("chattr", "+i", str(machine.target / "etc")))


def no_memory(_machine: SimulatedMachine) -> None:
    """Leave this process and its children no memory but what they have, until the failure is shown."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))


def _on_loop(machine: SimulatedMachine, where: str, size: str, below: Runner) -> Path:
    """Mount a real ext4 over `where`, in a file on a tmpfs of this size; all of it goes with the mount namespace."""
    place = machine.directory / "loop"
    place.mkdir(exist_ok=True)
    below(("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)))
    disk = place / "disk"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    run(("mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(disk)))
    below(("mount", "-o", "loop", str(disk), where))
    return disk


def _mounting(machine: SimulatedMachine, hardware: Hardware, mount: Callable[[str, Runner], None]) -> Hardware:
    def instead(argv: tuple[str, ...], below: Runner) -> Completed | None:
        if argv[:3] != ("mount", "-t", "ext4"):
            return None
        done = below(argv)
        mount(argv[-1], below)
        return done

    return replace(hardware, run=_Programs(machine, hardware.run, instead))


def failing_disk(machine: SimulatedMachine, hardware: Hardware) -> Hardware:
    """Give the root filesystem a real block device whose every write to a new place ends in EIO."""

    def mount(where: str, below: Runner) -> None:
        disk = _on_loop(machine, where, "8m", below)
        with contextlib.suppress(OSError), (disk.parent / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

    return _mounting(machine, hardware, mount)


def torn_disk(machine: SimulatedMachine, hardware: Hardware) -> Hardware:
    """Give the root filesystem a real block device that loses its end, where the files lie, before the read-back."""
    made: list[Path] = []

    def mount(where: str, below: Runner) -> None:
        made.append(_on_loop(machine, where, "80m", below))

    def drop_caches() -> None:
        for disk in made:
            os.truncate(disk, 1 << 20)

    spoilt = _mounting(machine, hardware, mount)
    return replace(spoilt, machine=replace(hardware.machine, drop_caches=drop_caches))


def lose_pack(path: Path) -> None:
    """Take a pack out of the server's store."""
    path.unlink()
