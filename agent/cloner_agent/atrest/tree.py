"""The tree of a system that does not run, put together as its /etc/fstab says, read-only.

What the running system would have mounted is there, or the capture is refused: an image that silently lacks /srv is
worse than none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from cloner_agent.atrest.mounting import mount_clean
from cloner_agent.capture.mounts import LOCAL_TYPES
from cloner_agent.capture.presence import is_meant
from cloner_agent.capture.source import read_start
from cloner_agent.failures import StageError
from cloner_agent.host import Runner, ToolError
from cloner_agent.rooted import Rooted
from cloner_core.detection import Block
from cloner_core.detection.mounting import Names
from cloner_core.fstab import Entry, entries
from cloner_core.messages import Cause
from cloner_core.roots import RootSeen

log = logging.getLogger(__name__)

_SUBVOLUMES = ("subvol=", "subvolid=")
_UMOUNT_S = 60.0


class Mounter:
    """Mounts a root at `place`, and in it what belongs to it."""

    def __init__(
        self,
        run: Runner,
        names: Names,
        blocks: Mapping[str, Block],
        place: str,
        *,
        excludes: Sequence[str] = (),
        locked: Sequence[str] = (),
    ) -> None:
        """Take what finds devices; `locked` are those that are encrypted and were not opened."""
        self._run = run
        self._names = names
        self._blocks = blocks
        self._place = place
        self._locked = ", ".join(locked)
        self._excludes = tuple(f"{path.rstrip('/')}/" for path in excludes)
        self.notes: list[str] = []

    def mount_root(self, root: RootSeen, made: ExitStack) -> None:
        """Mount the root itself; `made` unmounts it."""
        options = () if root.subvolume is None else (f"subvol=/{root.subvolume}",)
        mount_clean(self._run, root.device, root.kind, self._place, options)
        made.callback(self._unmount, self._place)

    def mount_rest(self, made: ExitStack) -> None:
        """Mount what the /etc/fstab of the root names, outer places first; raises StageError for what is not there."""
        with Rooted(self._place) as tree:
            found = entries(read_start(tree, "etc/fstab"))
        for entry in sorted(found, key=lambda one: one.mount.count("/")):
            if self._is_meant(entry):
                self._mount(entry, made)

    def _is_meant(self, entry: Entry) -> bool:
        if entry.mount == "/" or not entry.mount.startswith("/"):
            return False
        if entry.kind not in {*LOCAL_TYPES, "auto"}:  # networks, memory and swap are no part of an image
            if self._names.find(entry.device):
                self.notes.append(f"{entry.mount} on {entry.device} is {entry.kind}, which is not captured")
            return False
        if not is_meant(entry):
            self.notes.append(f"{entry.mount} is not mounted at boot, so what is on {entry.device} is not captured")
            return False
        return not f"{entry.mount}/".startswith(self._excludes)

    def _mount(self, entry: Entry, made: ExitStack) -> None:
        device = self._names.find(entry.device)
        block = self._blocks.get(device)
        is_needed = "nofail" not in entry.options.split(",")
        if block is None or block.filesystem not in LOCAL_TYPES:
            what = "is not there" if block is None else f"holds {block.filesystem or 'nothing that is known'}"
            self._miss(entry, f"/etc/fstab mounts {entry.mount} from {entry.device}, which {what}", is_needed=is_needed)
            return
        where = f"{self._place}{entry.mount}"
        try:
            with Rooted(self._place) as tree:
                os.close(tree.open(entry.mount, os.O_RDONLY | os.O_DIRECTORY, follow=False))
        except OSError as error:
            told = f"{entry.mount} of /etc/fstab is no directory of the tree ({error.strerror})"
            self._miss(entry, told, is_needed=is_needed)
            return
        options = [word for word in entry.options.split(",") if word.startswith(_SUBVOLUMES)]
        try:
            mount_clean(self._run, block.path, block.filesystem, where, options)
        except ToolError as error:
            self._miss(entry, f"{entry.mount} cannot be mounted: {error.message}", is_needed=is_needed)
            return
        made.callback(self._unmount, where)

    def _miss(self, entry: Entry, what: str, *, is_needed: bool) -> None:
        if not is_needed:
            self.notes.append(f"{what}; it is not captured")
            return
        if self._locked and not self._names.find(entry.device):
            raise StageError(Cause.LOCKED, f"{what}: {self._locked} is encrypted, and no key of it is kept here")
        hint = f"--exclude-paths {entry.mount} captures the node without it; nofail in /etc/fstab says the same"
        raise StageError(Cause.NO_DISK, what, hint=hint)

    def _unmount(self, where: str) -> None:
        try:
            self._run(("umount", where), timeout_s=_UMOUNT_S)
        except ToolError as error:
            log.warning("%s", error)


@contextmanager
def placed(place: str) -> Iterator[str]:
    """Give an empty directory to mount on, gone at the end."""
    os.makedirs(place, exist_ok=True)
    try:
        yield place
    finally:
        try:
            os.rmdir(place)
        except OSError as error:
            log.warning("%s is left: %s", place, error.strerror)
