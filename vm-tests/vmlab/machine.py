"""Virtual machines: a frozen description, and the running thing.

The description says what the hardware is; `Machine` starts and stops it and reads its serial console. Disks and
variables outlive a machine, so that "boot again" is a second `start`.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from vmlab import qmp
from vmlab.accelerator import QEMU, accelerator
from vmlab.disk import Disk
from vmlab.errors import LabError, MarkerMissing
from vmlab.evidence import SERIAL, readable
from vmlab.firmware import Firmware, arguments, blank_variables
from vmlab.lab import Lab

POLL_S = 0.1
TAIL_LINES = 40


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card on the lab's bridge."""

    mac: str
    model: str = "virtio-net-pci"


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """A kernel handed over by QEMU, without the network."""

    kernel: Path
    initrd: Path
    command_line: str


@dataclass(frozen=True, slots=True)
class Vm:
    """The hardware of one machine."""

    name: str
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    firmware: Firmware = Firmware.UEFI
    variables: Path | None = None  # NVRAM; None: a fresh copy in the lab's scratch, kept while the lab lives
    memory_mib: int = 512
    cpus: int = 1
    uuid: str = ""  # of the SMBIOS table; "" leaves it to QEMU (all zeros)
    direct: DirectBoot | None = None  # None: the firmware decides, from NVRAM
    bootindex: bool = (
        False  # True: firmware puts network, then disks, first in BootOrder at every boot, as BMCs make it
    )
    reboots: bool = True  # False: a reboot of the guest ends QEMU, so its disk can be looked at in between
    more: tuple[str, ...] = field(default=())  # further arguments of QEMU


class Machine:
    """One machine of a lab, running or not; a context manager that stops it at the end."""

    def __init__(self, lab: Lab, vm: Vm) -> None:
        """Prepare NVRAM and taps; nothing runs yet."""
        self.lab = lab
        self.vm = vm
        self.log = lab.evidence.path(f"{vm.name}{SERIAL}")
        self.log.touch()
        self.variables = vm.variables or lab.directory / f"{vm.name}.vars.fd"
        if vm.firmware is not Firmware.BIOS and not self.variables.exists():
            blank_variables(vm.firmware, self.variables)
        self._taps = [lab.add_tap() for _ in vm.nics]
        self._control = lab.directory / f"{vm.name}.qmp"
        self._child: subprocess.Popen[bytes] | None = None
        self._read_bytes = 0  # of the log, already matched by `wait_for`

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.kill()

    @property
    def is_running(self) -> bool:
        """Whether QEMU runs."""
        return self._child is not None and self._child.poll() is None

    def start(self, *, reboots: bool | None = None, direct: DirectBoot | None = None) -> None:
        """Switch the machine on; `reboots` and `direct`, when given, replace the description's for this run."""
        if self.is_running:
            raise LabError(f"{self.vm.name} runs already")
        self._control.unlink(missing_ok=True)
        self._read_bytes = self.log.stat().st_size
        argv = self._argv(self.vm.reboots if reboots is None else reboots, direct or self.vm.direct)
        self._child = self.lab.popen(argv, log_name=f"{self.vm.name}.qemu")

    def wait_connected(self, deadline_s: float = 20) -> None:
        """Wait until QEMU takes commands, a moment after the start; raises LabError when it does not."""
        end = time.monotonic() + deadline_s
        while True:
            try:
                qmp.command(self._control, "query-status")
            except LabError:
                if time.monotonic() > end or not self.is_running:
                    raise
                time.sleep(POLL_S)
            else:
                return

    def kill(self) -> None:
        """Pull the plug. A flush the guest asked for is on the disk; so is every other write it made (see `disk`)."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def press_power(self) -> None:
        """Press the power button; the guest's system decides what comes of it."""
        qmp.command(self._control, "system_powerdown")

    def reset(self) -> None:
        """Press the reset button."""
        qmp.command(self._control, "system_reset")

    def set_link(self, index: int, *, is_up: bool) -> None:
        """Plug in or pull the network cable of NIC number `index` (from 0)."""
        qmp.command(self._control, "set_link", name=f"net{index}", up=is_up)

    def require_running(self) -> None:
        """Raise MarkerMissing when QEMU has ended: there is nothing more to wait for."""
        if not self.is_running:
            raise self._missing(f"has ended with status {self._running().poll()}: {self._qemu_log()}")

    def wait_off(self, deadline_s: float) -> None:
        """Wait until QEMU has ended by itself; raises MarkerMissing when it has not within `deadline_s`."""
        child = self._running()
        try:
            status = child.wait(deadline_s)
        except subprocess.TimeoutExpired as error:
            raise self._missing(f"did not switch off within {deadline_s:.0f} s") from error
        if status != 0:
            raise LabError(f"QEMU of {self.vm.name} ended with status {status}: {self._qemu_log()}")

    def wait_for(self, marker: str, deadline_s: float, *, poll_s: float = POLL_S) -> re.Match[str]:
        """Wait until the serial console says `marker` (a regular expression, after what was matched before).

        Raises MarkerMissing when it does not within `deadline_s`, or when the machine ends before.
        """
        pattern = re.compile(marker)
        end = time.monotonic() + deadline_s
        looked_bytes = -1
        while True:
            was_running = self.is_running
            text, size = "", self.log.stat().st_size
            if size != looked_bytes:  # what has been looked through is not looked through again
                text, looked_bytes = self._new_bytes().decode(errors="surrogateescape"), size
            if match := pattern.search(text):
                self._read_bytes += len(text[: match.end()].encode(errors="surrogateescape"))
                return match
            if not was_running:
                raise self._missing(f"ended and never said {marker!r} {self._qemu_log()}")
            if time.monotonic() > end:
                raise self._missing(f"did not say {marker!r} within {deadline_s:.0f} s")
            time.sleep(poll_s)

    def has_said(self, marker: str) -> bool:
        """Return whether the serial console has said `marker` after what was matched before."""
        return re.search(marker, self._new_bytes().decode(errors="surrogateescape")) is not None

    def said(self) -> str:
        """Return all the serial console said in all runs, without control sequences."""
        return readable(self.log.read_bytes())

    def _new_bytes(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            return log.read()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise LabError(f"{self.vm.name} was never started")
        return self._child

    def _missing(self, what: str) -> MarkerMissing:
        tail = "\n  ".join(self.said().splitlines()[-TAIL_LINES:])
        return MarkerMissing(f"{self.vm.name} {what}\n  {tail}\n(serial log: {self.log})")

    def _qemu_log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.lab.evidence.path(f"{self.vm.name}.qemu.log").read_text(errors="replace")[-2000:]
        return ""

    def _argv(self, reboots: bool, direct: DirectBoot | None) -> list[str]:
        vm = self.vm
        secure = ",smm=on" if vm.firmware.value.is_secure else ""
        argv = [QEMU, "-name", vm.name, "-machine", f"q35{secure}", *accelerator()]
        argv += ["-smp", str(vm.cpus), "-m", str(vm.memory_mib)]
        argv += ["-display", "none", "-nodefaults", "-vga", "none"]
        argv += ["-chardev", f"file,id=serial0,path={self.log},append=on", "-serial", "chardev:serial0"]
        argv += ["-qmp", f"unix:{self._control},server=on,wait=off"]
        argv += ["-device", "virtio-rng-pci"]
        argv += arguments(vm.firmware, self.variables)
        for index, disk in enumerate(vm.disks):
            *drive, device = disk.arguments(index)
            argv += [*drive, f"{device},bootindex={len(vm.nics) + index + 1}" if vm.bootindex else device]
        for index, (nic, tap) in enumerate(zip(vm.nics, self._taps, strict=True)):
            argv += ["-netdev", f"tap,id=net{index},ifname={tap},script=no,downscript=no"]
            # An empty romfile leaves netboot to the firmware's own network stack; QEMU's default ROM is an iPXE.
            rom = ",romfile=" if vm.firmware is not Firmware.BIOS else ""
            place = f",bootindex={index + 1}" if vm.bootindex else ""
            argv += ["-device", f"{nic.model},netdev=net{index},mac={nic.mac}{rom}{place}"]
        if vm.uuid:
            argv += ["-uuid", vm.uuid]
        if direct:
            argv += ["-kernel", str(direct.kernel), "-initrd", str(direct.initrd), "-append", direct.command_line]
        if not reboots:
            argv += ["-no-reboot"]
        return [*argv, *vm.more]
