"""An attempt in the middle of a deploy on a machine that is not here: for tests of single stages."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from agentbench.runner import FakeRunner
from agentbench.server import FakeServer
from cloner_agent.attempt import Attempt, Tools
from cloner_agent.console import Console
from cloner_agent.efivars import EfiVars
from cloner_agent.machine import Machine
from cloner_agent.reporter import Reporter
from cloner_core.facts import Disk, Facts, Firmware, Nic, Signature
from cloner_core.layout import DiskLayout, Filesystem, Layout, Partition, Selector, Size, Swap
from cloner_core.messages import Task, VersionRef
from cloner_core.network import Interface, NodeNetwork
from cloner_core.plan import Contents, plan_task
from cloner_core.sizes import GIB, MIB
from cloner_core.steps import Action, Mount, Nvram

MAC = "52:54:00:00:00:01"
OLD_GUID = "dddddddd-0000-4000-8000-00000000000d"
OTHER_GUID = "eeeeeeee-0000-4000-8000-00000000000e"


def layout(*, serial: str = "CL1", esp_bytes: int = 64 * MIB, swap_bytes: int = 16 * MIB) -> Layout:
    """Return esp, swap and ext4 root on the disk with this serial."""
    esp = Partition(role="esp", size=Size(esp_bytes, esp_bytes), content=Filesystem(kind="vfat", mount="/boot/efi"))
    swap = Partition(role="swap", size=Size(swap_bytes, swap_bytes), content=Swap())
    root = Partition(role="root", size=Size(16 * MIB, weight=1), content=Filesystem(kind="ext4", mount="/"))
    return Layout(name="plain", disks=(DiskLayout(id="system", select=Selector(serial), partitions=(esp, swap, root)),))


def task(wanted: Layout | None = None, **changes: Any) -> Task:
    """Return a task for node01."""
    fields: dict[str, Any] = {
        "task_id": "7",
        "attempt_id": "a1",
        "node": "node01",
        "version": VersionRef("debian", 3, "ab" * 32, "00" * 64, "cd" * 32, "00" * 64),
        "layout": wanted or layout(),
        "seed": "5eed" * 16,
        "network": NodeNetwork("node01", (Interface(MAC),)),
        "confirm": None,
    }
    return Task(**(fields | changes))


def facts(*disks: Disk) -> Facts:
    """Return a small UEFI machine with two disks: the one to be cloned onto, and another system's."""
    chosen = disks or (
        Disk(
            path="/dev/vda",
            size_bytes=8 * GIB,
            serial="CL1",
            signatures=(Signature("/dev/vda1", "vfat", "AAAA-BBBB", part_uuid=OLD_GUID),),
        ),
        Disk(
            path="/dev/vdb",
            size_bytes=8 * GIB,
            serial="OTHER",
            signatures=(Signature("/dev/vdb1", "vfat", "CCCC-DDDD", part_uuid=OTHER_GUID),),
        ),
    )
    return Facts(
        firmware=Firmware.UEFI,
        arch="x86_64",
        memory_bytes=450 * MIB,
        cpu_count=1,
        kernel_release="6.1",
        boot_mac=MAC,
        disks=chosen,
        nics=(Nic("eth0", MAC),),
    )


class Scene:
    """An attempt with fakes around it; `runner`, `server`, `facts_now` and `machine` can be looked at and changed."""

    def __init__(self, directory: Path, variables: type[EfiVars] = EfiVars) -> None:
        self.runner = FakeRunner()
        self.server = FakeServer()
        self.console = io.StringIO()
        self.facts_now = facts()
        self.happened: list[str] = []
        self.on: dict[str, Callable[[], None]] = {}  # what else happens at sync, sync-filesystem, drop-caches, reboot
        self.target = directory / "target"
        self.efivars = directory / "efivars"
        self.target.mkdir()
        self.efivars.mkdir()
        (self.efivars / "other").write_bytes(b"")
        self.variables = variables(self.efivars)
        one = task()
        tools = Tools(
            server=self.server,
            run=self.runner,
            reporter=Reporter(Console(self.console)),
            probe=lambda: self.facts_now,
            packs=lambda _: cast(Any, None),
            server_key=bytes(32),
            machine=Machine(
                sync=self._note("sync"),
                sync_filesystem=lambda _: self._note("sync-filesystem")(),
                drop_caches=self._note("drop-caches"),
                reboot=self._note("reboot"),
            ),
            target=str(self.target),
            efivars=self.variables,
            workers=1,
        )
        plan = plan_task(self.facts_now, one, (Contents("/", 10 * MIB, 100),))
        self.attempt = Attempt(tools, one, self.facts_now, cast(Any, None), plan)

    def action(self, kind: type[Action]) -> Any:
        """Return the first action of a kind in the plan."""
        return next(step.action for step in self.attempt.plan.steps if isinstance(step.action, kind))

    def nvram(self) -> Nvram:
        """Return the plan's NVRAM action."""
        return cast(Nvram, self.action(Nvram))

    def mounts(self) -> list[Mount]:
        """Return the plan's mounts in order."""
        return [step.action for step in self.attempt.plan.steps if isinstance(step.action, Mount)]

    def _note(self, what: str) -> Callable[[], None]:
        def note() -> None:
            self.happened.append(what)
            self.on.get(what, lambda: None)()

        return note
