"""A million small files restored on a machine of 512 MiB: a memory cgroup bounds the restore, page cache included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benches import disks, report
from benches.node import BenchKey
from benches.report import Run
from cloner_core.image.checker import TreeChecker
from cloner_core.image.compression import compress
from cloner_core.image.digest import digest
from cloner_core.image.inode import Inode, Kind, encode_inode
from cloner_core.image.limits import FORMAT
from cloner_core.image.pack import PackWriter, RawPack, compress_pack
from cloner_core.image.tree import Facts, Filesystem, Segment, SegmentWriter, TreeRoot, encode_root
from cloner_core.image.version import Draft, PackOffer
from cloner_server.store.local import LocalStore

_LIMIT_BYTES = 512 << 20
_FILES_IN_DIRECTORY = 1000
_CGROUPS = Path("/sys/fs/cgroup")


def make_image(store: LocalStore, files: int) -> None:
    """Publish a version of this many files of 100 to 1100 bytes, without making them first."""
    checker = TreeChecker((Filesystem(b"", "root"),))
    segments, packer = SegmentWriter(), PackWriter()
    refs, offers = [], []

    def keep(raw: RawPack | None) -> None:
        if raw is not None:
            pack = compress_pack(raw)
            store.put_pack(pack.digest, pack.stored)
            offers.append(PackOffer(pack.digest, len(pack.stored), pack.raw_size, pack.entries))

    def close(segment: Segment | None) -> None:
        if segment is not None:
            store.put_segment(segment.ref.digest, segment.ref.raw_size, compress(segment.raw))
            refs.append(segment.ref)

    for inode, content in _inodes(files):
        checker.add(inode)
        close(segments.add(encode_inode(inode), inode.size))
        if content:
            keep(packer.add(inode.chunks, content))
    keep(packer.close())
    close(segments.close())
    data_bytes = sum(ref.data_bytes for ref in refs)
    root = TreeRoot(FORMAT, Facts(), checker.counted(), checker.count, data_bytes, tuple(refs))
    store.publish(Draft("golden", encode_root(root), tuple(offers)), is_trusted=True)


def _inodes(files: int) -> Iterator[tuple[Inode, bytes]]:
    number = 1
    yield Inode(number, Kind.DIRECTORY, b"", 0o755), b""
    for file in range(files):
        directory = b"%05d" % (file // _FILES_IN_DIRECTORY)
        if file % _FILES_IN_DIRECTORY == 0:
            number += 1
            yield Inode(number, Kind.DIRECTORY, directory, 0o755), b""
        number += 1
        content = (b"file %d says " % file) * (8 + file % 60)
        path = directory + b"/%09d" % file
        yield Inode(number, Kind.FILE, path, 0o644, mtime_ns=file, size=len(content), chunks=digest(content)), content


@contextmanager
def _memory_cgroup(limit_bytes: int) -> Iterator[tuple[Path, str]]:
    """Give a memory cgroup and the name of the file that tells its peak; version 1 or 2, whatever is mounted."""
    is_first = (_CGROUPS / "memory/memory.limit_in_bytes").exists()
    group = _CGROUPS / ("memory" if is_first else "") / f"cloner-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(str(limit_bytes))
        yield group, "memory.max_usage_in_bytes" if is_first else "memory.peak"
    finally:
        group.rmdir()


def main(argv: list[str]) -> int:
    """Run the bench; returns 1 when the restore did not get through."""
    options = report.options("million", argv)
    files = 100_000 if options.small else 1_000_000
    with disks.workspace(in_memory=False) as place:
        start = time.monotonic()
        make_image(LocalStore(place / "store", BenchKey()), files)
        print(f"image of {files} files made in {time.monotonic() - start:.0f} s", flush=True)
        with (
            disks.ext4(place, "target", 8 << 30, "-N", str(files + 100_000)) as target,
            _memory_cgroup(_LIMIT_BYTES) as (group, peak_name),
        ):
            start = time.monotonic()
            command = (
                sys.executable,
                "-m",
                "benches.node",
                "restore",
                str(place / "store"),
                str(target),
                "--read-back",
            )
            script = f'echo $$ >{group}/cgroup.procs && exec "$@"'
            process = subprocess.Popen(("bash", "-c", script, "bash", *command))
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            run = Run("restore", "cloner", time.monotonic() - start, usage.ru_utime, usage.ru_stime)
            peak = int((group / peak_name).read_text())
    seen = {
        "files": files,
        "status": process.returncode,
        "limit MiB, page cache included": _LIMIT_BYTES >> 20,
        "peak MiB, page cache included": peak >> 20,
        "largest process MiB": usage.ru_maxrss >> 10,
        "restore and read-back s": round(run.wall_s, 1),
    }
    for name, value in seen.items():
        print(f"{name}: {value}")
    if options.evidence:
        print(report.write_evidence("million", [run], seen=seen))
    return 0 if process.returncode == 0 else 1
