"""A million small files restored and read back inside the memory a node of 512 MiB has left.

Of 512 MiB the kernel takes 64 and the unpacked initramfs, whose root is memory, 71 (docs/boot-walkthrough.md); 57
more are left for the heartbeat, udev and the console. The rest bounds restore and read-back with their page cache
and the kernel's inodes.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torture
from cloner_server.store.local import LocalStore
from soak.book import Entry
from soak.law import Case, Figures, Law, require
from soak.laws.many_files import Many, content_of, path_of, put_many
from soak.memory_box import UNLIMITED, memory_box
from store_images import Key

MIB = 1 << 20
NODE_BYTES = (512 - 64 - 71 - 57) * MIB
_SAMPLE = 2000
_BYTES_FOR_INODE = 18_000  # a little more than the filesystem plans for one
_LEAST_BYTES = 256 * MIB


def restore_many(work: Path, many: Many, *, limit_bytes: int, seed: int) -> Figures:
    """Restore an image in a box of memory; raises LawBrokenError when not all of its files are there."""
    store, version, files = many.store, many.version.hex(), many.files
    with torture.ext4(work / f"target-{seed}", max(_LEAST_BYTES, files * _BYTES_FOR_INODE)) as target:
        with memory_box(limit_bytes) as box:
            node = (sys.executable, "-m", "soak.laws.restoring_node", str(store.files.root), version)
            argv = box.argv([*node, store.signed_map(many.version).map, str(target)])
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            try:
                with box.watching(process.pid):
                    printed, _ = process.communicate()
            finally:
                process.kill()  # when this soak is interrupted; its workers end by themselves
                process.wait()
            require(process.returncode == 0, f"the restore ended with {process.returncode}, {box.killed()} killed")
            measured = {
                "limited_by": box.limited_by,
                "limit_mib": limit_bytes / MIB,
                "anonymous_peak_mib": box.anonymous_bytes / MIB,
                "resident_sum_peak_mib": box.resident_bytes / MIB,
                "killed": box.killed(),
            }
        _check(target, files, seed)
        return {"files": files, **measured, **json.loads(printed)}


def _check(target: Path, files: int, seed: int) -> None:
    found = torture.run("find", str(target), "-type", "f", "-perm", "640", "-printf", ".")
    require(len(found) == files, f"{len(found)} files found, {files} wanted")
    for file in random.Random(seed).choices(range(files), k=_SAMPLE):
        path = target / path_of(file).decode()
        status = path.stat()
        require(path.read_bytes() == content_of(file), f"{path} has other content")
        require((status.st_uid, status.st_mtime_ns) == (1000 + file % 7, file), f"{path} has other metadata")


@contextmanager
def open_restore_million(work: Path) -> Iterator[Case]:
    """Make the image once."""
    many = put_many(LocalStore(work / "store", Key()), 1_000_000)
    yield lambda seed: restore_many(work, many, limit_bytes=NODE_BYTES, seed=seed)


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: something must hold the limit."""
    free = [entry.seed for entry in entries if entry.figures.get("limited_by") == UNLIMITED]
    return f"nothing limited the memory of {len(free)} of {len(entries)} restores" if free else ""


LAW = Law(
    "restore-million",
    "a million small files are restored and read back within the memory a node of 512 MiB has left",
    1,
    open_restore_million,
    enough=enough,
)
