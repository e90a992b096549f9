"""What a node does, as a program of its own so that it can be measured: capture or restore, nothing printed."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.capture.job import CaptureOptions, capture
from cloner_agent.restore.job import restore
from cloner_agent.restore.readback import read_back
from cloner_agent.restore.source import DirectorySource, PackSource
from cloner_agent.restore.table import spill_tree
from cloner_core.image.pack import Pack
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_core.image.version import Draft, VersionRecord
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


class _Wire(LocalSink):
    """Puts into the store what would go over the wire to a server, and counts it."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self._own = store
        self.sent_bytes = 0

    def put_pack(self, pack: Pack) -> None:
        self.sent_bytes += len(pack.stored)
        super().put_pack(pack)

    def put_segment(self, ref: SegmentRef, stored: bytes, delta: SegmentDelta | None = None) -> None:
        if delta is None:
            self.sent_bytes += len(stored)
            super().put_segment(ref, stored)
        else:
            self.sent_bytes += len(delta.frame)
            self._own.put_segment(ref.digest, ref.raw_size, delta.frame, delta.onto)

    def publish(self, draft: Draft) -> VersionRecord:
        self.sent_bytes += len(msgspec.msgpack.encode(draft))
        return super().publish(draft)


def run_capture(source: Path, store: Path, indexes: Path | None = None) -> None:
    """Capture a tree straight into a store, with a directory of indexes as an update; see `sent_by`."""
    wire = _Wire(open_store(store))
    capture(source, wire, CaptureOptions(IMAGE, esp=None, indexes=indexes))
    sent_by(store).write_text(str(wire.sent_bytes))


def sent_by(store: Path) -> Path:
    """Return the file that says how many bytes the last capture into a store would have sent."""
    return store.with_name(f"{store.name}.sent")


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
