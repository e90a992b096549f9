"""The competitors: how each captures a tree and puts it back, as its users do; all at zstd -3 where they can."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches import disks

OURS = "cloner"
TAR = "tar, zstd -3"
_ATTRIBUTES = "--xattrs --acls --xattrs-include='*'"
_RESTIC = "RESTIC_PASSWORD=bench restic --quiet --no-cache --repo"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bench works: `source` is an ext4 mounted from the file `image`, everything else is beneath `room`."""

    room: Path
    source: Path
    image: Path
    size_bytes: int  # of a filesystem to restore into


@dataclass(frozen=True, slots=True)
class Peer:
    """One competitor. Commands are for bash; `stored` names what it keeps beneath the room."""

    name: str
    stored: str
    capture: Callable[[Place], str]
    restore: Callable[[Place, str], str]  # into a mount point, or into the file of a filesystem
    prepare: Callable[[Place], str] | None = None  # not measured
    is_block_level: bool = False  # captures the filesystem and makes one

    def command(self, script: str) -> Sequence[str]:
        """Return how to run one of its commands."""
        return "bash", "-o", "pipefail", "-ec", script

    def clear(self, place: Place) -> None:
        """Remove what it keeps, and prepare it anew."""
        kept = place.room / self.stored
        if kept.is_dir():
            shutil.rmtree(kept)
        kept.unlink(missing_ok=True)
        if self.prepare is not None:
            subprocess.run(self.command(self.prepare(place)), check=True)


def _ours(place: Place, what: str, *more: str) -> str:
    return " ".join((sys.executable, "-m", "benches.node", what, *more)).format(place=place)


PEERS = (
    Peer(
        TAR,
        "golden.tar.zst",
        lambda place: (
            f"tar -C {place.source} {_ATTRIBUTES} --sparse --exclude=./lost+found -cf - . |"
            f" zstd -q -3 -T0 -o {place.room}/golden.tar.zst; sync -f {place.room}/golden.tar.zst"
        ),
        lambda place, target: (
            f"zstd -q -dc {place.room}/golden.tar.zst | tar -C {target} {_ATTRIBUTES} -xpf -; sync -f {target}"
        ),
    ),
    Peer(
        OURS,
        "store",
        lambda place: _ours(place, "capture", "{place.source}", "{place.room}/store"),
        lambda place, target: _ours(place, "restore", "{place.room}/store", target),
    ),
    Peer(
        "restic",
        "restic",
        lambda place: f"cd {place.source}; {_RESTIC} {place.room}/restic backup --exclude lost+found .",
        lambda place, target: f"{_RESTIC} {place.room}/restic restore latest --target {target}; sync -f {target}",
        prepare=lambda place: f"{_RESTIC} {place.room}/restic init",
    ),
    Peer(
        "partclone",
        "golden.partclone",
        lambda place: (
            f"partclone.ext4 -c -F -q -L /dev/null -s {place.image} -o - 2>/dev/null |"
            f" zstd -q -3 -T0 -o {place.room}/golden.partclone; sync -f {place.room}/golden.partclone"
        ),
        lambda place, target: (
            f"zstd -q -dc {place.room}/golden.partclone |"
            f" partclone.ext4 -r -C -q -L /dev/null -s - -O {target} 2>/dev/null; sync -f {target}"
        ),
        is_block_level=True,
    ),
    Peer(
        "casync",
        "casync",
        lambda place: (
            f"casync make --store={place.room}/casync/store {place.room}/casync/golden.caidx {place.source} >/dev/null;"
            f" sync -f {place.room}"
        ),
        lambda place, target: (
            f"casync extract --store={place.room}/casync/store {place.room}/casync/golden.caidx {target} >/dev/null;"
            f" sync -f {target}"
        ),
        prepare=lambda place: f"mkdir -p {place.room}/casync/store",
    ),
    Peer(
        "fsarchiver",
        "golden.fsa",
        lambda place: (
            f"fsarchiver savefs -o -A -Z3 -j$(nproc) {place.room}/golden.fsa $(findmnt -no SOURCE {place.source})"
            f" >/dev/null 2>&1; sync -f {place.room}/golden.fsa"
        ),
        lambda place, target: (
            f"device=$(losetup -f --show {target}); trap 'losetup -d $device' EXIT;"
            f" fsarchiver restfs -j$(nproc) {place.room}/golden.fsa id=0,dest=$device >/dev/null 2>&1; sync -f {target}"
        ),
        is_block_level=True,
    ),
)


@contextmanager
def target_of(peer: Peer, place: Place) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Give what a peer restores into, and what gives the mount point of the result afterwards."""
    if not peer.is_block_level:
        with disks.ext4(place.room, "target", place.size_bytes) as mount:
            yield str(mount), lambda: mount
        return
    image, mount = place.room / "target.img", place.room / "target"
    disks.make_disk(image, place.image.stat().st_size)
    mount.mkdir()

    def mounted() -> Path:
        disks.sh("mount", "-o", "loop,ro", str(image), str(mount))
        return mount

    try:
        yield str(image), mounted
    finally:
        subprocess.run(("umount", str(mount)), check=False, stderr=subprocess.DEVNULL)
        mount.rmdir()
        image.unlink()
