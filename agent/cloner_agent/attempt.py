"""What the stages of one attempt share: the tools they work with and the record they leave.

Holds values and seams only; the order is `deploy`, the work is `stages`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloner_agent.confined import Confine, confine
from cloner_agent.efivars import EfiVars
from cloner_agent.holders import stop_holders
from cloner_agent.host import Runner
from cloner_agent.machine import Machine
from cloner_agent.partitions import WaitForDevice, wait_for_device
from cloner_agent.probe import EFIVARS
from cloner_agent.protocol import Server
from cloner_agent.reporter import Reporter
from cloner_agent.restore.workers import usual_workers
from cloner_agent.seating import Multicast
from cloner_core.atrest import CaptureReply
from cloner_core.erasing.words import EraseReply
from cloner_core.facts import Facts
from cloner_core.messages import HelloReply, Secret, Task
from cloner_core.plan import Plan
from cloner_core.scripts import ScriptRun
from cloner_core.steps import TARGET

if TYPE_CHECKING:
    from cloner_agent.capture.sink import CaptureSink
    from cloner_agent.restore.source import PackSource
    from cloner_agent.restore.table import SpilledTree
    from cloner_agent.stages.verify import VerifiedVersion


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything with an effect that a deploy uses; a test gives others."""

    server: Server
    run: Runner
    reporter: Reporter
    probe: Callable[[], Facts]
    packs: Callable[[Task], PackSource]
    server_key: bytes  # 32 bytes, Ed25519: signs versions and pack maps
    machine: Machine = field(default_factory=Machine)
    # Called once the attempt is known.
    accepted: Callable[[HelloReply | EraseReply | CaptureReply], None] = lambda _: None
    sink: Callable[[], CaptureSink] | None = None  # where a capture puts its parts; None: nothing can be captured
    target: str = TARGET
    efivars: EfiVars = field(default_factory=lambda: EfiVars(EFIVARS))
    workers: int = field(default_factory=usual_workers)
    stop_holders: Callable[[str, Runner], None] = stop_holders
    wait_for_device: WaitForDevice = wait_for_device
    esp_copy: str = "/mnt/esp-copy"  # where a second ESP is mounted while it is filled
    keys: Path = Path("/run/cloner/keys")  # of encrypted containers, while the agent runs: in memory
    confine: Confine = confine
    multicast: Multicast = field(default_factory=Multicast)
    machine_root: str = "/"  # what stands before /sys


@dataclass(slots=True)
class Record:
    """What was done so far, for the receipt."""

    is_destroyed: bool = False  # a destructive step has begun
    packs: int = 0  # verified and placed
    packs_digest: str = ""  # cloner_core.image.packmap.packs_digest of them; "" until all were
    bytes_received: int = 0
    files: int = 0
    bytes_restored: int = 0
    bytes_read_back: int = 0
    identity: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    written_identity: dict[bytes, bytes] = field(default_factory=dict)  # path in the clone → BLAKE3
    written_boot: dict[bytes, bytes] = field(default_factory=dict)
    machine_id: str = ""
    host_key_fingerprints: tuple[str, ...] = ()
    nvram_before: tuple[str, ...] = ()
    nvram_after: tuple[str, ...] = ()
    loader: str = ""  # path on the ESP that the boot entry starts, "\\EFI\\debian\\shimx64.efi"
    bios: tuple[str, str] = ("", "")  # paths in the clone of GRUB's core image and boot sector; "" by UEFI
    boot_number: int | None = None  # of our NVRAM entry; None when there is none
    replaced: tuple[str, ...] = ()  # identifiers, lower case, that the image named and that are gone
    scripts: list[ScriptRun] = field(default_factory=list)


@dataclass(slots=True)
class Attempt:
    """One attempt: what is known before anything is touched, and the record."""

    tools: Tools
    task: Task
    facts: Facts
    version: VerifiedVersion
    plan: Plan
    record: Record = field(default_factory=Record)
    spilled: SpilledTree | None = None  # between restore and read-back
    recovery_key: Secret | None = None  # of the node, from the identity stage on; None: nothing is encrypted

    def path(self, where: str) -> str:
        """Return the path of the clone's `where` as this machine sees it; only for mounts, never for image files."""
        return self.tools.target if where == "/" else f"{self.tools.target}{where}"
