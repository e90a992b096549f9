"""Makes what lies on the disks visible: arrays, volumes and encrypted devices, each of them read-only.

Nothing is repaired, resynchronised or made whole: what cannot be had without a write is not there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cloner_agent.detecting import OVERLAY, look_at_blocks
from cloner_agent.host import Runner, ToolError
from cloner_agent.signatures import LVM_CONFIG
from cloner_agent.stages.volumes import write_key
from cloner_core.detection import Block
from cloner_core.messages import Secret

log = logging.getLogger(__name__)

_TOOL_S = 120.0
_PLAIN_VOLUMES = ("linear", "striped")  # others have metadata, or mirrors, of their own
_ROUNDS = 4  # arrays, on them encryption, in it volumes; and one that finds nothing more
_MEMORY = Path("/run/cloner")
_OVERLAY_BYTES = 16 << 20  # an array writes superblocks and a bitmap, some KiB


class Assembly:
    """The devices of the disks, and what was built from them."""

    def __init__(self, run: Runner, disks: Sequence[str], keys: Callable[[], Sequence[Secret]], memory: Path) -> None:
        self._run = run
        self._disks = tuple(disks)
        self._ask_keys = keys
        self._key = memory / "keys/capture.key"
        self._memory = memory
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
        self._try("modprobe", "--all", "loop", "dm_snapshot")  # nothing asks for them by itself
        over = [self._cover(member, made) for member in members]
        self._mdadm_conf.write_text(f"DEVICE {' '.join(over)}\nAUTO +all\n")
        # --run: a mirror with one half is whole enough to be read. Read-only, no half is brought up to the other.
        how = ("--assemble", "--scan", "--config", str(self._mdadm_conf), "--homehost=any", "--readonly", "--run")
        self._try("mdadm", *how, accept=(0, 1, 2))
        self.blocks = look_at_blocks(self._run, self._disks)
        for path in sorted({child for member in members for child in self.blocks[member].children}):
            made.callback(self._try, "mdadm", "--stop", path)

    def _cover(self, member: str, made: ExitStack) -> str:
        """Return a device that shows `member` and keeps in memory what is written to it; raises ToolError.

        The driver of arrays writes even to one that is read-only: drivers/md/md-bitmap.c, md_bitmap_load().
        """
        name = f"{OVERLAY}{member.removeprefix('/dev/').replace('/', '-')}"
        self._memory.mkdir(parents=True, exist_ok=True)
        file = self._memory / name
        with file.open("wb") as kept:
            kept.truncate(_OVERLAY_BYTES)
        made.callback(file.unlink, missing_ok=True)
        loop = self._run(("losetup", "--find", "--show", str(file))).stdout.strip()
        made.callback(self._try, "losetup", "--detach", loop)
        sectors = self._run(("blockdev", "--getsz", member)).stdout.strip()
        # N: nothing of it outlives the mapping (Documentation/admin-guide/device-mapper/snapshot.rst)
        self._run(("dmsetup", "create", name, "--table", f"0 {sectors} snapshot {member} {loop} N 8"))
        made.callback(self._try, "dmsetup", "remove", name)
        return f"/dev/mapper/{name}"

    def _volumes(self, made: ExitStack) -> None:
        if not self._new("LVM2_member"):
            return
        fields = "vg_name,lv_name,segtype"
        said = self._try("lvm", "lvs", "--reportformat", "json", "--config", LVM_CONFIG, "-o", fields)
        rows = [row for report in json.loads(said or "{}").get("report", []) for row in report.get("lv", [])]
        quoted = ",".join(sorted({f'"{row["vg_name"]}"' for row in rows}))
        config = f"{LVM_CONFIG} global{{metadata_read_only=1}} activation{{read_only_volume_list=[{quoted}]}}"
        kinds = {f"{row['vg_name']}/{row['lv_name']}": row["segtype"] for row in rows}
        for name, kind in kinds.items():
            if kind not in _PLAIN_VOLUMES:
                log.warning("volume %s is left closed: one of the kind %s is written to when it is opened", name, kind)
                continue
            self._try("lvm", "lvchange", "--activate", "y", "--config", config, name)
            made.callback(self._try, "lvm", "lvchange", "--activate", "n", "--config", config, name)

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
