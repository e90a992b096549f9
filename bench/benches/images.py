"""Capture and restore beside our peers, alternately, on ext4 in memory, everything synced (G13, G14, G16)."""

from __future__ import annotations

import sys
from dataclasses import replace

from benches import chart, disks, report
from benches.golden import FULL, SMALL, make_golden
from benches.memory import peak_of
from benches.peers import OURS, PEERS, TAR, Peer, Place, target_of
from benches.report import Run, measure


def _capture(place: Place, peer: Peer) -> Run:
    peer.clear(place)
    return measure("capture", peer.name, peer.command(peer.capture(place)), place.room / peer.stored)


def _restore(place: Place, peer: Peer) -> Run:
    with target_of(peer, place) as (target, mounted):
        run = measure("restore", peer.name, peer.command(peer.restore(place, target)))
        return replace(run, is_identical=disks.is_identical(place.source, mounted()))


def main(argv: list[str]) -> int:
    """Run the bench; returns 1 when a tree that we restored was not the source."""
    options = report.options("images", argv, peers=[peer.name for peer in PEERS])
    evidence = report.Evidence("images")
    shape = SMALL if options.small else FULL
    size_bytes = 2 * shape.data_bytes + (1536 << 20)  # room for a sparse file that becomes a real one
    peers = [peer for peer in PEERS if peer.name in (OURS, TAR) or peer.name in options.peers]
    runs: list[Run] = []
    with disks.workspace() as room, disks.ext4(room, "source", size_bytes) as source:
        place = Place(room, source, room / "source.img", size_bytes)
        make_golden(source, shape)
        disks.sh("sync", "-f", str(source))
        # Read-only, the journal is empty and the file beneath holds the whole filesystem: partclone reads that.
        disks.sh("mount", "-o", "remount,ro", str(source))
        for _ in range(options.runs):
            for peer in peers:
                runs.append(_capture(place, peer))
                runs.append(_restore(place, peer))
            print(report.table(runs), flush=True)
        ours = next(peer for peer in peers if peer.name == OURS)
        peaks = {"capture": peak_of(ours.command(f"exec {ours.capture(replace(place, room=room / 'again'))}"))}
        with disks.ext4(room, "target", size_bytes) as target:
            peaks["restore"] = peak_of(ours.command(f"exec {ours.restore(place, str(target))}"))
    goals = {
        "G13 capture, ours over theirs": report.ratio(runs, "capture", OURS, TAR),
        "G14 restore, ours over theirs": report.ratio(runs, "restore", OURS, TAR),
        "G16 peak MiB of all processes": {what: peak.pss_bytes >> 20 for what, peak in peaks.items()},
        "G16 peak MiB of the largest process": {what: peak.rss_bytes >> 20 for what, peak in peaks.items()},
    }
    for goal, seen in goals.items():
        print(f"{goal}: {seen}")
    if options.evidence:
        files = {"files": shape.files, "data_bytes": shape.data_bytes}
        print(evidence.write(runs, shape=files, goals=goals))
        print(chart.write_chart("images", "Capture and restore of 48,000 files, 1.8 GiB, on two CPUs", runs, OURS))
    return 0 if all(run.is_identical is not False for run in runs if run.who == OURS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
