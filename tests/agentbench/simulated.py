"""A machine that is simulated below the agent: disks are directories, firmware variables are files.

Real is all of the agent, every file it restores, and the mounts (bind mounts of the directories, in a mount namespace
of the machine's own). Simulated are what the kernel and firmware would say and do: the probe, the programs that write
to block devices, the restart. Everything lies in files, so that it outlives a boot as a disk does.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from cloner_agent.efivars import EfiVars
from cloner_agent.hardware import Hardware
from cloner_agent.host import Completed, Runner, run
from cloner_agent.machine import Machine
from cloner_agent.screens import Screens
from cloner_core.efi import LoadOption, build_load_option, build_order
from cloner_core.facts import Disk, Dmi, Facts, Firmware, Nic, Signature
from cloner_core.sizes import GIB

_HASTE = 10  # after a failure all waits of the agent are shorter by this
PXE = LoadOption("UEFI PXEv4", bytes.fromhex("030b2500") + bytes(33) + bytes.fromhex("7fff0400"))
_ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_FIELD = re.compile(r'(\w+)=("[^"]*"|[^,]+)')


class Partition(msgspec.Struct):
    """One entry of a simulated table, and what was made on it."""

    number: int
    start_sectors: int
    size_sectors: int
    type_guid: str
    part_uuid: str
    kind: str = ""  # "ext4", "vfat", "swap"; "" not formatted
    uuid: str = ""
    label: str = ""


class Table(msgspec.Struct):
    """What a simulated disk says about itself; `guid` is "" without a table."""

    guid: str = ""
    partitions: list[Partition] = []


@dataclass(frozen=True)
class SimulatedDisk:
    """One disk: a table in `table.json`, and a directory for each filesystem.

    Those of ext4 lie in `bulk`, on another filesystem of the host: only then are their bind mounts told as mounts.
    """

    directory: Path
    bulk: Path
    name: str  # of the kernel; no machine here may have it
    serial: str
    size_bytes: int
    is_read_only: bool = False

    @property
    def device(self) -> str:
        """The path of its device, which does not exist."""
        return f"/dev/{self.name}"

    def table(self) -> Table:
        """Return the partition table as it is now."""
        return msgspec.json.decode((self.directory / "table.json").read_bytes(), type=Table)

    def write(self, table: Table) -> None:
        """Replace the partition table; filesystems of partitions that are gone are gone."""
        for place in (self.directory, self.bulk):
            place.mkdir(parents=True, exist_ok=True)
            for entry in place.iterdir():
                if entry.is_dir() and entry.name not in {str(one.number) for one in table.partitions if one.kind}:
                    shutil.rmtree(entry)
        part = self.directory / "table.part"
        part.write_bytes(msgspec.json.encode(table))
        part.rename(self.directory / "table.json")

    def device_of(self, partition: Partition) -> str:
        """Return the path of a partition's device."""
        return f"{self.device}p{partition.number}"

    def content(self, partition: Partition) -> Path:
        """Return the directory that stands for a filesystem."""
        return (self.bulk if partition.kind == "ext4" else self.directory) / str(partition.number)

    def filesystem(self, kind: str) -> Path | None:
        """Return the directory of the only filesystem of this kind; None when there is none."""
        found = [self.content(one) for one in self.table().partitions if one.kind == kind]
        return found[0] if len(found) == 1 else None

    def root_part_uuid(self) -> str:
        """Return the GUID of the partition with the root filesystem; "" when there is none."""
        return next((one.part_uuid for one in self.table().partitions if one.kind == "ext4"), "")

    def is_bootable(self) -> bool:
        """Say whether firmware would find a loader: the fallback path, or one that NVRAM could name."""
        esp = self.filesystem("vfat")
        return esp is not None and (esp / "EFI").is_dir()

    def digest(self) -> str:
        """Return a digest of all the disk says and holds: table, names, modes, contents."""
        hasher = hashlib.sha256()
        for path in sorted((*self.directory.rglob("*"), *self.bulk.rglob("*"))):
            status = path.lstat()
            hasher.update(f"{path} {status.st_mode:o} {status.st_mtime_ns}\n".encode())
            if path.is_file() and not path.is_symlink():
                hasher.update(path.read_bytes())
        return hasher.hexdigest()

    def facts(self) -> Disk:
        """Return the disk as the probe would tell it."""
        table = self.table()
        found = [Signature(self.device, "gpt", table.guid)] if table.guid else []
        for one in table.partitions:
            found.append(Signature(self.device_of(one), one.kind, one.uuid, one.label, one.part_uuid))
        return Disk(
            path=self.device,
            size_bytes=self.size_bytes,
            serial=self.serial,
            model="Simulated",
            is_read_only=self.is_read_only,
            signatures=tuple(found),
        )


def old_disk(directory: Path, bulk: Path, name: str, number: int, size_bytes: int = 8 * GIB) -> SimulatedDisk:
    """Return a disk that holds an old system, which is something to lose."""
    serial = f"SIM{number:05d}"
    disk = SimulatedDisk(directory, bulk, name, serial, size_bytes)
    uuid = f"01d00000-0000-4000-8000-{number:012x}"
    guid = f"01d00001-0000-4000-8000-{number:012x}"
    table = f"01d00002-0000-4000-8000-{number:012x}"
    disk.write(Table(table, [Partition(1, 2048, 4096, "0" * 8, guid, "ext4", uuid, "old")]))
    (bulk / "1").mkdir()
    (bulk / "1" / "precious").write_text(f"{serial}\n")
    return disk


@dataclass
class SimulatedPrograms:
    """Runs what an agent runs: programs for block devices are played, mounts of them bind directories."""

    disks: Sequence[SimulatedDisk]
    ran: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        """See `cloner_agent.host.run`."""
        command = tuple(argv)
        self.ran.append(command)
        match command:
            case ("wipefs", "--all", *_, device):
                self._disk(device).write(Table())
            case ("sfdisk", "--dump", device):
                return _done(command, repr(self._disk(device).table()))
            case ("sfdisk", *_, device):
                self._disk(device).write(parse_script(stdin))
            case ("mkfs.ext4" | "mkfs.vfat" | "mkswap", *_):
                self._make(command)
            case ("mount", "-t", *_, device, where) if device.startswith("/dev/"):
                disk, partition = self._partition(device)
                return run(("mount", "--bind", str(disk.content(partition)), where), timeout_s=timeout_s)
            case ("mount" | "umount" | "findmnt" | "mkdir", *_):
                return run(command, stdin=stdin, timeout_s=timeout_s, accept=accept)
            case _:
                pass  # udevadm settle, and what a bundle looks at: there is nothing to say
        return _done(command)

    def _make(self, command: tuple[str, ...]) -> None:
        disk, partition = self._partition(command[-1])
        options = dict(pairwise(command))
        table = disk.table()
        one = table.partitions[partition.number - 1]
        one.kind = {"mkfs.ext4": "ext4", "mkfs.vfat": "vfat", "mkswap": "swap"}[command[0]]
        one.label = options.get("-L") or options.get("-n") or ""
        one.uuid = options.get("-U") or f"{options['-i'][:4]}-{options['-i'][4:]}"
        shutil.rmtree(disk.content(one), ignore_errors=True)
        disk.write(table)
        disk.content(one).mkdir()

    def _disk(self, device: str) -> SimulatedDisk:
        return next(disk for disk in self.disks if disk.device == device)

    def _partition(self, device: str) -> tuple[SimulatedDisk, Partition]:
        return next(
            (disk, one) for disk in self.disks for one in disk.table().partitions if disk.device_of(one) == device
        )


def _done(command: tuple[str, ...], stdout: str = "") -> Completed:
    return Completed(command, 0, stdout, "", 0.0)


def parse_script(text: str) -> Table:
    """Return the table an input of sfdisk(8) asks for, as far as Cloner writes it."""
    table = Table(re.findall(r"^label-id: (\S+)", text, re.MULTILINE)[0].lower(), [])
    for line in text.splitlines():
        if line.startswith("start="):
            fields = {key: value.strip().strip('"') for key, value in _FIELD.findall(line)}
            start, size = int(fields["start"]), int(fields["size"])
            number = len(table.partitions) + 1
            table.partitions.append(Partition(number, start, size, fields["type"].lower(), fields["uuid"].lower()))
    return table


Spoil = Callable[["SimulatedMachine", Hardware], Hardware]
"""Makes the hardware of one boot fail in some way."""


@dataclass
class SimulatedMachine:
    """One machine: its disks, its firmware variables, its target directory, and what is wrong with it."""

    directory: Path
    name: str
    mac: str
    disks: list[SimulatedDisk]
    memory_bytes: int = 2 * GIB
    serial: str = ""
    patience_s: float = 1800.0
    spoil: Spoil | None = None
    variables: type[EfiVars] = EfiVars

    @property
    def disk(self) -> SimulatedDisk:
        """The disk that is to be cloned onto."""
        return self.disks[0]

    @property
    def target(self) -> Path:
        """Where the agent mounts the clone."""
        return self.directory / "target"

    @property
    def efivars(self) -> EfiVars:
        """The firmware's variables."""
        return self.variables(self.directory / "efivars")

    def facts(self, boot_mac: str = "") -> Facts:
        """Return what the probe would tell."""
        return Facts(
            firmware=Firmware.UEFI,
            arch="x86_64",
            memory_bytes=self.memory_bytes,
            cpu_count=1,
            kernel_release="6.1",
            boot_mac=boot_mac,
            disks=tuple(disk.facts() for disk in self.disks),
            nics=(Nic("simulated0", self.mac, has_carrier=True),),
            dmi=Dmi(serial=self.serial or self.name, vendor="Nobody", product="Simulated machine"),
        )

    def hardware(self) -> Hardware:
        """Return the machine as one boot of the agent finds it."""

        def probe(run: Runner, *, boot_mac: str = "") -> Facts:
            return self.facts(boot_mac)

        made = Hardware(
            run=SimulatedPrograms(self.disks),
            probe=probe,
            machine=Machine(sync=_nothing, sync_filesystem=_nothing, drop_caches=_nothing, reboot=_restart),
            efivars=self.efivars,
            target=str(self.target),
            workers=1,
            stop_holders=lambda _disk, _run: None,
            wait_for_device=self._wait_for_device,
            set_clock=lambda _now_s: True,
            kernel_log=lambda: "",
            screens=_NoScreens,
            patience_s=self.patience_s,
            sleep=lambda seconds: time.sleep(seconds / _HASTE),
        )
        return self.spoil(self, made) if self.spoil else made

    def _wait_for_device(self, device: str, disk: str, run: Runner, *, place: tuple[int, int]) -> None:
        known = {
            one.device_of(partition): (partition.start_sectors, partition.size_sectors)
            for one in self.disks
            for partition in one.table().partitions
        }
        assert known.get(device) == place, f"{device} lies at {known.get(device)}, {place} planned"


class _NoScreens(Screens):
    """No terminal and no SSH console: all machines here would have the same port."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


RESTARTED = 10
"""Exit status of the process of a boot whose agent restarted the machine."""


def _restart() -> None:
    os._exit(RESTARTED)


def _nothing(*_: object) -> None:
    """The files of a simulated disk are synced by nobody: a power cut is no part of this."""


def make_machine(directory: Path, bulk: Path, name: str, number: int, **fields: object) -> SimulatedMachine:
    """Return a machine with one old disk and a firmware that goes to the network first.

    `directory` and `bulk` lie on two filesystems of the host.
    """
    directory.mkdir(parents=True)
    (directory / "target").mkdir()
    (directory / "efivars").mkdir()
    mac = f"52:54:01:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    disk = old_disk(directory / "disk0", bulk, "simulated0", number)
    machine = SimulatedMachine(directory, name, mac, [disk])
    machine = replace(machine, **fields)  # type: ignore[arg-type]  # a keyword is a field
    plain = EfiVars(directory / "efivars")
    plain.write("Boot0004", build_load_option(PXE))
    plain.write("BootOrder", build_order((4,)))
    plain.write("BootCurrent", build_order((4,)))
    return machine
