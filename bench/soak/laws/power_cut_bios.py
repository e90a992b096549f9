"""BIOS on a disk whose power is cut while its boot code is written: it passes on, or starts a whole core.

The agent's own stub, core and boot code on a disk that loses what was not flushed. Where the power is cut, the clock
decides.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentbench.programs import grub_core
from agentbench.scene import Scene as Attempted
from cloner_agent.failures import StageError
from cloner_agent.machine import Machine
from cloner_agent.stages.bios import make_bootable, put_stub
from cloner_core.biosboot import CODE_BYTES, SECTOR_BYTES, boot_sector, embedded_core, stub_sector
from cloner_core.sizes import MIB
from cloner_core.steps import BiosBoot, BiosPlace, BiosStub
from soak.book import Entry
from soak.law import Case, Figures, Law, require, share
from vmlab.fuse_disk import FuseDisk

_DISK_BYTES = 4 * MIB
_CORE_BYTES = 160 << 10
_BOOT = bytes(range(256)) + bytes(254) + b"\x55\xaa"
_FIRST = 1
_UNCUT = 9
_LATER = 1.2  # some cuts come when all is done
_LEAST = {"a disk that passes on": 0.1, "a disk that boots": 0.1, "dropped bytes": 0.03}  # the share of cases


class Scene:
    """What all cases share: a disk whose power can be cut, a clone with its core image, and how long it takes."""

    def __init__(self, work: Path, disk: FuseDisk) -> None:
        """Write everything once, uncut, to know how long that takes."""
        self.work, self.disk = work, disk
        (work / "attempt").mkdir()
        self.attempted = Attempted(work / "attempt")
        # Not dropped: other things work on this machine too, and what is read comes from the disk's server.
        tools: Any = self.attempted.attempt.tools
        object.__setattr__(tools, "machine", Machine(drop_caches=lambda: None))
        self._uncut: list[float] = []  # how many seconds it took
        for number in range(_UNCUT):
            state, _ = self._trial(random.Random(number), None, is_lying=False)
            require(state == "boots", f"uncut, the disk {state}")
        self.seconds = statistics.median(self._uncut)

    def case(self, seed: int, *, is_lying: bool = False) -> Figures:
        """Cut the power somewhere; what chance decides but the moment, the seed does."""
        chance = random.Random(seed)
        state, dropped_bytes = self._trial(chance, chance.uniform(0, _LATER * self.seconds), is_lying=is_lying)
        return {"the disk": state, "dropped bytes": dropped_bytes}

    def _trial(self, chance: random.Random, cut_s: float | None, *, is_lying: bool) -> tuple[str, int]:
        table = chance.randbytes(SECTOR_BYTES - CODE_BYTES - 2)
        core = grub_core(_CORE_BYTES)[:SECTOR_BYTES] + chance.randbytes(_CORE_BYTES - SECTOR_BYTES)
        file = self.work / "disk.img"
        # as it is behind sfdisk, but for the stub, which is there before anything of this
        file.write_bytes(stub_sector(bytes(CODE_BYTES) + table + b"\x55\xaa") + bytes(_DISK_BYTES - SECTOR_BYTES))
        folder = self.attempted.target / "boot"
        folder.mkdir(exist_ok=True)
        (folder / "core.img").write_bytes(core)
        (folder / "boot.img").write_bytes(_BOOT)
        self.attempted.attempt.record.bios = "/boot/core.img", "/boot/boot.img"
        self.disk.insert(file, is_lying=is_lying)
        working = threading.Thread(target=self._write, args=(cut_s is not None,))
        working.start()
        if cut_s is not None:
            time.sleep(cut_s)
            self.disk.power_off()
        working.join()
        dropped_bytes = self.disk.power_on(chance).dropped_bytes if cut_s is not None else 0
        found = file.read_bytes()
        require(found[CODE_BYTES:SECTOR_BYTES] == table + b"\x55\xaa", "the partition table is not as it was")
        if found[:CODE_BYTES] == stub_sector(found[:SECTOR_BYTES])[:CODE_BYTES]:
            return "passes on", dropped_bytes
        require(found[:SECTOR_BYTES] == boot_sector(found[:SECTOR_BYTES], _BOOT, _FIRST), "the boot code is torn")
        wanted = embedded_core(core, _FIRST)
        require(found[SECTOR_BYTES:][: len(wanted)] == wanted, "the boot code is there before the core is whole")
        return "boots", dropped_bytes

    def _write(self, is_cut: bool) -> None:
        attempt, disk = self.attempted.attempt, str(self.disk.file)
        # what a machine without power reads back is nobody's concern
        with contextlib.suppress(*([StageError] if is_cut else [])):
            began = time.monotonic()
            put_stub(attempt, BiosStub(disk))
            make_bootable(attempt, BiosBoot((BiosPlace(disk, _FIRST, _DISK_BYTES // SECTOR_BYTES - _FIRST),)))
            if not is_cut:
                self._uncut.append(time.monotonic() - began)


@contextmanager
def open_scene(work: Path) -> Iterator[Scene]:
    """Mount the disk and make the scene on it."""
    (work / "disk").mkdir()
    with FuseDisk(work / "disk") as disk:
        yield Scene(work, disk)


@contextmanager
def open_power_cut_bios(work: Path) -> Iterator[Case]:
    """See `Law.open`."""
    with open_scene(work) as scene:
        yield scene.case


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: cuts lose something, and fall before and after the boot code."""
    wanted: dict[str, Callable[[Figures], bool]] = {
        "a disk that passes on": lambda figures: figures.get("the disk") == "passes on",
        "a disk that boots": lambda figures: figures.get("the disk") == "boots",
        "dropped bytes": lambda figures: float(figures.get("dropped bytes", 0)) > 0,
    }
    few = [name for name, is_so in wanted.items() if share(entries, is_so) < _LEAST[name]]
    return f"too few cases with {'; '.join(few)}" if few else ""


LAW = Law(
    "power-cut-bios",
    "cut anywhere, BIOS passes over the disk or starts a whole core from it",
    1000,
    open_power_cut_bios,
    enough=enough,
)
