"""`./run bench NAME`: measures ourselves and our peers alternately, prints a table and writes JSON."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable

BENCHES = {
    "images": "capture and restore beside tar and zstd, restic, partclone, casync, fsarchiver (G13, G14, G16)",
    "update": "an update of 2 % of the files beside restic, casync and tar (G15)",
    "https": "packs from the server to many clients on a link of 1 Gbit/s, beside nginx (G12)",
    "restore": "the restore stage of a node over HTTPS and multicast on a link of 1 Gbit/s (G19)",
    "multicast": "one file to many receivers beside udpcast and uftp (G1 to G7, G9 to G11)",
    "multicast-sim": "sessions of multicast in virtual time, 1 to 10,000 receivers (G2 to G4, G11)",
}


def main(argv: list[str]) -> int:
    """Run one bench; the rest of the arguments are its own. Returns an exit status."""
    if not argv or argv[0] not in BENCHES:
        print("usage: ./run bench NAME [--runs N] [--small] [--evidence]\n", file=sys.stderr)
        for name, what in BENCHES.items():
            print(f"  {name:13} {what}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was made is taken down
    # By this process alone: in a child of a pool the exception can be lost, and whoever waits for it waits for ever.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    bench: Callable[[list[str]], int] = importlib.import_module(f"benches.{argv[0].replace('-', '_')}").main
    return bench(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
