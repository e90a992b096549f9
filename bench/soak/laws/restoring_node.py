"""The restore and read-back of a node, in a process of its own that knows nothing else: argv STORE VERSION TARGET.

Prints what it took as JSON. Packs come from the directory of a store: the node's HTTPS client is not part of this.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from cloner_agent.restore.job import restore
from cloner_agent.restore.readback import read_back
from cloner_agent.restore.source import DirectorySource
from cloner_agent.restore.table import spill_tree
from cloner_core.image.packmap import decode_map
from cloner_core.image.tree import decode_root

_WORKERS = 2


def main() -> None:
    store, version, pack_map, target = Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    root = decode_root((store / "roots" / sys.argv[2][:2] / sys.argv[2]).read_bytes(), version)
    source = DirectorySource(store, bytes.fromhex(pack_map))
    packs = decode_map((store / "packmaps" / pack_map[:2] / pack_map).read_bytes(), version)
    started_s = time.monotonic()
    spilled = spill_tree(root, source, target)
    spilled_s = time.monotonic()
    summary = restore(target, spilled, packs, source, workers=_WORKERS)
    restored_s = time.monotonic()
    read_back(target, spilled, workers=_WORKERS)
    seconds = {
        "spill_s": spilled_s - started_s,
        "restore_s": restored_s - spilled_s,
        "read_back_s": time.monotonic() - restored_s,
    }
    print(json.dumps({"inodes": summary.inodes, "packs": summary.packs, **seconds}))


if __name__ == "__main__":
    main()
