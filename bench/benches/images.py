"""Capture and restore beside tar and zstd, alternately, on ext4 in memory, everything synced (G13, G14, G16)."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from benches import disks, report
from benches.golden import FULL, SMALL, make_golden
from benches.memory import peak_of
from benches.report import Run, measure

_TAR = "--xattrs --acls --xattrs-include='*'"
_OURS, _THEIRS = "cloner", "tar, zstd -3"


def _capture(source: Path, place: Path, who: str) -> Run:
    if who == _OURS:
        store = place / "store"
        shutil.rmtree(store, ignore_errors=True)
        argv = (sys.executable, "-m", "benches.node", "capture", str(source), str(store))
        return measure("capture", who, argv, store)
    archive = place / "golden.tar.zst"
    archive.unlink(missing_ok=True)
    tar = f"tar -C {source} {_TAR} --sparse --exclude=./lost+found -cf - ."
    script = f"{tar} | zstd -q -3 -T0 -o {archive} && sync -f {archive}"
    return measure("capture", who, ("bash", "-o", "pipefail", "-c", script), archive)


def _restore(source: Path, place: Path, who: str, size_bytes: int) -> Run:
    with disks.ext4(place, "target", size_bytes) as target:
        if who == _OURS:
            argv: tuple[str, ...] = (sys.executable, "-m", "benches.node", "restore", str(place / "store"), str(target))
        else:
            script = f"zstd -q -dc {place}/golden.tar.zst | tar -C {target} {_TAR} -xpf - && sync -f {target}"
            argv = ("bash", "-o", "pipefail", "-c", script)
        run = measure("restore", who, argv)
        return replace(run, is_identical=disks.is_identical(source, target))


def main(argv: list[str]) -> int:
    """Run the bench; returns 1 when a restored tree was not the source."""
    options = report.options("images", argv)
    shape = SMALL if options.small else FULL
    size_bytes = 2 * shape.data_bytes + (512 << 20)
    runs: list[Run] = []
    with disks.workspace() as place, disks.ext4(place, "source", size_bytes) as source:
        make_golden(source, shape)
        disks.sh("sync", "-f", str(source))
        for _ in range(options.runs):
            runs += [_capture(source, place, who) for who in (_THEIRS, _OURS)]
            runs += [_restore(source, place, who, size_bytes) for who in (_THEIRS, _OURS)]
            print(report.table(runs), flush=True)
        capture_argv = (sys.executable, "-m", "benches.node", "capture", str(source), str(place / "again"))
        peaks = {"capture": peak_of(capture_argv)}
        with disks.ext4(place, "target", size_bytes) as target:
            restore_argv = (sys.executable, "-m", "benches.node", "restore", str(place / "store"), str(target))
            peaks["restore"] = peak_of(restore_argv)
    goals = {
        "G13 capture, ours over theirs": report.ratio(runs, "capture", _OURS, _THEIRS),
        "G14 restore, ours over theirs": report.ratio(runs, "restore", _OURS, _THEIRS),
        "G16 peak MiB of all processes": {what: peak.pss_bytes >> 20 for what, peak in peaks.items()},
        "G16 peak MiB of the largest process": {what: peak.rss_bytes >> 20 for what, peak in peaks.items()},
    }
    for goal, seen in goals.items():
        print(f"{goal}: {seen}")
    if options.evidence:
        files = {"files": shape.files, "data_bytes": shape.data_bytes}
        print(report.write_evidence("images", runs, shape=files, goals=goals))
    return 0 if all(run.is_identical is not False for run in runs) else 1
