"""Makes what lies on the disks visible: arrays, volumes and encrypted devices, each of them read-only.

Nothing is repaired, resynchronised or made whole: what cannot be had without a write is not there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cloner_agent.detecting import look_at_blocks
from cloner_agent.host import Runner, ToolError
from cloner_agent.signatures import LVM_CONFIG
from cloner_agent.stages.volumes import write_key
from cloner_core.detection import Block
from cloner_core.messages import Secret

log = logging.getLogger(__name__)

_TOOL_S = 120.0
_ROUNDS = 4  # arrays, on them encryption, in it volumes; and one that finds nothing more
_MEMORY = Path("/run/cloner")


class Assembly:
    """The devices of the disks, and what was built from them."""

    def __init__(self, run: Runner, disks: Sequence[str], keys: Callable[[], Sequence[Secret]], memory: Path) -> None:
        self._run = run
        self._disks = tuple(disks)
        self._ask_keys = keys
        self._key = memory / "keys/capture.key"
        self._mdadm_conf = memory / "capture-mdadm.conf"
        self._tried: set[tuple[str, str]] = set()
        self._names: dict[str, str] = {}  # of mappings that were renamed: the former one → the present one
        self.blocks: Mapping[str, Block] = look_at_blocks(run, self._disks)
        self.locked: list[Block] = []  # encrypted, and not opened

    def build(self, made: ExitStack) -> None:
        """Assemble until nothing more appears; `made` takes it down again."""
        for _ in range(_ROUNDS):
            before = set(self.blocks)
            self._arrays(made)
            self._containers(made)
            self._volumes(made)
            self.blocks = look_at_blocks(self._run, self._disks)
            if set(self.blocks) == before:
                break
        if any(block.filesystem == "btrfs" for block in self.blocks.values()):
            self._try("btrfs", "device", "scan", *self._of("btrfs"))
        self.locked = [
            block for block in self.blocks.values() if block.filesystem == "crypto_LUKS" and not block.children
        ]

    def rename(self, wanted: Mapping[str, str]) -> None:
        """Give what was opened the name that its system knows it by: path of the encrypted device → name."""
        for device, name in wanted.items():
            present = next((self.blocks[child].name for child in self.blocks[device].children), name)
            if present != name and self._try("dmsetup", "rename", present, name) is not None:
                self._names[present] = name
        self.blocks = look_at_blocks(self._run, self._disks)

    def _close(self, name: str) -> None:
        self._try("cryptsetup", "close", self._names.get(name, name))

    def _of(self, kind: str) -> list[str]:
        """Return the devices of a kind that nothing lies on yet."""
        return sorted(one.path for one in self.blocks.values() if one.filesystem == kind and not one.children)

    def _new(self, kind: str) -> list[str]:
        paths = [path for path in self._of(kind) if (kind, path) not in self._tried]
        self._tried.update((kind, path) for path in paths)
        return paths

    def _arrays(self, made: ExitStack) -> None:
        if not (members := self._new("linux_raid_member")):
            return
        self._mdadm_conf.parent.mkdir(parents=True, exist_ok=True)
        self._mdadm_conf.write_text(f"DEVICE {' '.join(members)}\nAUTO +all\n")
        # --run: a mirror with one half is whole enough to be read. Read-only, no half is brought up to the other.
        how = ("--assemble", "--scan", "--config", str(self._mdadm_conf), "--homehost=any", "--readonly", "--run")
        self._try("mdadm", *how, accept=(0, 1, 2))
        self.blocks = look_at_blocks(self._run, self._disks)
        for path in sorted({child for member in members for child in self.blocks[member].children}):
            made.callback(self._try, "mdadm", "--stop", path)

    def _volumes(self, made: ExitStack) -> None:
        if not self._new("LVM2_member"):
            return
        said = self._try("lvm", "vgs", "--reportformat", "json", "--config", LVM_CONFIG, "-o", "vg_name")
        rows = [row for report in json.loads(said or "{}").get("report", []) for row in report.get("vg", [])]
        names = sorted({row["vg_name"] for row in rows})
        quoted = ",".join(f'"{name}"' for name in names)
        config = f"{LVM_CONFIG} global{{metadata_read_only=1}} activation{{read_only_volume_list=[{quoted}]}}"
        for name in names:
            self._try("lvm", "vgchange", "--activate", "y", "--config", config, name)
            made.callback(self._try, "lvm", "vgchange", "--activate", "n", "--config", config, name)

    def _containers(self, made: ExitStack) -> None:
        devices = self._new("crypto_LUKS")
        if not devices or not (keys := self._ask_keys()):
            return
        for device in devices:
            name = f"luks-{self.blocks[device].uuid}"
            if any(self._open(device, name, key) for key in keys):
                made.callback(self._close, name)
        self.blocks = look_at_blocks(self._run, self._disks)

    def _open(self, device: str, name: str, key: Secret) -> bool:
        write_key(self._key, key.value.encode())
        try:
            head = ("cryptsetup", "open", "--type", "luks", "--readonly", "--key-file", str(self._key))
            return self._try(*head, device, name) is not None
        finally:
            self._key.unlink(missing_ok=True)

    def _try(self, *argv: str, accept: Sequence[int] = (0,)) -> str | None:
        """Run a tool whose failure shows later, as a device that is not there; None when it failed."""
        try:
            return self._run(argv, timeout_s=_TOOL_S, accept=accept).stdout
        except ToolError as error:
            log.warning("%s", error)
            return None


@contextmanager
def assembled(
    run: Runner, disks: Sequence[str], keys: Callable[[], Sequence[Secret]], *, memory: Path = _MEMORY
) -> Iterator[Assembly]:
    """Give what lies on `disks`, which must be read-only; taken down at the end.

    `keys` is asked once something encrypted is met; what none of them opens stays closed. A key lies in
    `memory` for as long as it is tried.
    """
    with ExitStack() as made:
        assembly = Assembly(run, disks, keys, memory)
        assembly.build(made)
        yield assembly
