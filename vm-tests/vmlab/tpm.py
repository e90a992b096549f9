"""A TPM 2.0 for a machine of the lab, by swtpm; what it holds outlives the machine, as a chip's content does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from vmlab.errors import LabError
from vmlab.lab import Lab

_START_S = 10.0


@dataclass(frozen=True, slots=True)
class Tpm:
    """One chip; `insert` it before each start of the machine, for it ends with QEMU."""

    lab: Lab
    name: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """What QEMU is told, for `Vm.more`: every chip sits in the same socket of the board."""
        socket = ("-chardev", f"socket,id=tpm0,path={self._socket}")
        return (*socket, "-tpmdev", "emulator,id=tpm0,chardev=tpm0", "-device", "tpm-crb,tpmdev=tpm0")

    def insert(self) -> None:
        """Start the emulator; raises LabError when it does not come up."""
        state = self.lab.directory / f"{self.name}.tpm"
        state.mkdir(exist_ok=True)
        self._socket.unlink(missing_ok=True)
        control = f"type=unixio,path={self._socket}"
        argv = ["swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", f"dir={state}", "--ctrl", control]
        child = self.lab.popen(argv, log_name=f"{self.name}.swtpm")
        end = time.monotonic() + _START_S
        while not self._socket.exists():
            if child.poll() is not None or time.monotonic() > end:
                log = self.lab.evidence.path(f"{self.name}.swtpm.log").read_text(errors="replace")
                raise LabError(f"swtpm did not start: {log[-500:]}")
            time.sleep(0.05)

    @property
    def _socket(self) -> Path:
        return self.lab.directory / "tpm.sock"
