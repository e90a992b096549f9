"""What a node does, as a program of its own so that it can be measured: capture or restore, nothing printed."""

from __future__ import annotations

import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.capture.job import CaptureOptions, capture
from cloner_agent.restore.job import restore
from cloner_agent.restore.readback import read_back
from cloner_agent.restore.source import DirectorySource, PackSource
from cloner_agent.restore.table import spill_tree
from cloner_server.store.local import LocalSink, LocalStore

IMAGE = "golden"


class BenchKey:
    """A key that signs and protects nothing."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(32))

    def sign(self, data: bytes) -> bytes:
        """Return a signature."""
        return self._key.sign(data)

    @property
    def public_key(self) -> bytes:
        """The raw public key."""
        return self._key.public_key().public_bytes_raw()


def open_store(root: Path) -> LocalStore:
    """Return the store of a bench."""
    return LocalStore(root, BenchKey())


def run_capture(source: Path, store: Path, indexes: Path | None = None) -> None:
    """Capture a tree straight into a store; with a directory of indexes as an update."""
    capture(source, LocalSink(open_store(store)), CaptureOptions(IMAGE, esp=None, indexes=indexes))


def run_restore(
    store: Path,
    target: Path,
    packs: PackSource | None = None,
    *,
    workers: int | None = None,
    is_read_back: bool = False,
) -> None:
    """Restore the latest version; packs come from `packs`, or from the store when there is none."""
    opened = open_store(store)
    version = bytes.fromhex(opened.version(IMAGE).version)
    directory = DirectorySource(store, bytes.fromhex(opened.signed_map(version).map))
    spilled = spill_tree(opened.tree_root(version), directory, target)
    restore(target, spilled, opened.current_map(version), packs or directory, workers=workers)
    if is_read_back:
        read_back(target, spilled, workers=workers)
    spilled.table.close()


if __name__ == "__main__":
    if sys.argv[1] == "capture":
        run_capture(*map(Path, sys.argv[2:]))
    else:
        run_restore(Path(sys.argv[2]), Path(sys.argv[3]), is_read_back="--read-back" in sys.argv)
