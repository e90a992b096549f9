"""An update: one file in fifty changed since the last capture, beside our peers, alternately (G15).

What is new is what each keeps more than before; of ours it is what was sent, and what its store grew by is told.
"""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from benches import chart, disks, report
from benches.golden import FULL, MIB, SMALL, make_golden
from benches.memory import peak_of
from benches.node import run_restore, sent_by
from benches.peers import OURS, PEERS, TAR, Peer, Place
from benches.report import Run, measure, size_of

_SHARE = 50
_SETTLED_S = 3  # what changed a moment before a capture is read again by ours: packages are not installed that moment
_KINDS = ("rewritten", "grown", "same size", "new", "renamed", "removed")


def _change(root: Path, chance: random.Random) -> int:
    """Change one file in fifty, as packages and programs do; return how many."""
    files = sorted(path for path in root.rglob("file-*") if path.is_file() and not path.is_symlink())
    chosen = chance.sample(files, len(files) // _SHARE)
    for path in chosen:
        kind = chance.choice(_KINDS)
        data = path.read_bytes()
        if kind == "rewritten":
            path.with_name("fresh").write_bytes(_other(data, chance))
            path.with_name("fresh").rename(path)
        elif kind == "grown":
            with path.open("ab") as file:
                file.write(_other(data[:2000] or b"line\n", chance))
        elif kind == "same size":
            with path.open("r+b") as file:
                file.seek(len(data) // 2)
                file.write(chance.randbytes(min(64, len(data) - len(data) // 2)))
        elif kind == "new":
            path.with_name(f"{path.name}.{chance.randrange(10**6)}").write_bytes(_other(data, chance)[:MIB])
        elif kind == "renamed":
            path.rename(path.with_name(f"{path.name}-{chance.randrange(10**6)}"))
        else:
            path.unlink()
    return len(chosen)


def _other(data: bytes, chance: random.Random) -> bytes:
    """Return content as alike to `data` as a new version of a program is: a word in each 4 KiB is another one."""
    changed = bytearray(data)
    for at in range(0, len(changed) - 8, 4096):
        changed[at : at + 8] = chance.randbytes(8)
    return bytes(changed)


def _capture(place: Place, peer: Peer) -> str:
    if peer.name == OURS:
        return f"{peer.capture(place)} {place.room}/indexes"
    # zstd does not write over an archive.
    return f"rm -f {place.room}/{peer.stored}; {peer.capture(place)}" if peer.name == TAR else peer.capture(place)


def _update(place: Place, peer: Peer) -> Run:
    kept = place.room / peer.stored
    before = size_of(kept)
    run = measure("update", peer.name, peer.command(_capture(place, peer)))
    grown = size_of(kept) - before
    new = int(sent_by(kept).read_text()) if peer.name == OURS else {TAR: size_of(kept)}.get(peer.name, grown)
    return replace(run, stored_bytes=new)


def main(argv: list[str]) -> int:
    """Run the bench; returns 1 when the last version, restored, is not the source."""
    keeping = [peer for peer in PEERS if not peer.is_block_level]
    options = report.options("update", argv, peers=[peer.name for peer in keeping])
    evidence = report.Evidence("update")
    shape = SMALL if options.small else FULL
    size_bytes = 2 * shape.data_bytes + (1536 << 20)
    peers = [peer for peer in keeping if peer.name == OURS or peer.name in options.peers]
    runs: list[Run] = []
    chance = random.Random(2)
    with disks.workspace() as room, disks.ext4(room, "source", size_bytes) as source:
        place = Place(room, source, room / "source.img", size_bytes)
        make_golden(source, shape)
        time.sleep(_SETTLED_S)
        for peer in peers:
            peer.clear(place)
            subprocess.run(peer.command(_capture(place, peer)), check=True)
        first = size_of(room / "store")
        for _ in range(options.runs):
            changed = _change(source, chance)
            disks.sh("sync", "-f", str(source))
            time.sleep(_SETTLED_S)
            runs += [_update(place, peer) for peer in peers]
            print(f"{changed} files changed\n{report.table(runs)}", flush=True)
        grown = (size_of(room / "store") - first) // options.runs
        peak = peak_of(("bash", "-c", f"exec {_capture(place, next(peer for peer in peers if peer.name == OURS))}"))
        with disks.ext4(room, "target", size_bytes) as target:
            run_restore(room / "store", target)
            is_identical = disks.is_identical(source, target)
    goals: dict[str, object] = {
        f"G15 update, ours over {peer.name}": report.ratio(runs, "update", OURS, peer.name)
        for peer in peers
        if peer.name != OURS
    }
    goals["growth of our store, MiB for each update"] = round(grown / MIB, 1)
    goals["G16 peak MiB of all processes, nothing changed"] = peak.pss_bytes >> 20
    for goal, seen in goals.items():
        print(f"{goal}: {seen}")
    if options.evidence:
        files = {"files": shape.files, "data_bytes": shape.data_bytes, "changed": changed}
        print(evidence.write(runs, shape=files, goals=goals, is_identical=is_identical))
        print(chart.write_chart("update", "An update: 2 % of 48,000 files changed, on two CPUs", runs, OURS))
    return 0 if is_identical else 1
