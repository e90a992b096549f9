"""One version as one file: a tar of a store that holds just that version, in an order in which it can be checked.

Unpacked it is a store (docs/image-format.md), and needs nothing of Cloner to be read. What signs the version signs the
file: every member is named by a digest that the signatures reach.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloner_core.errors import IntegrityError
from cloner_server.store.protocol import Store

END = bytes(2 * tarfile.BLOCKSIZE)
PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the export."""

    name: str
    path: Path
    size: int

    @property
    def header(self) -> bytes:
        """Return the block that goes before it: the same whoever exports it, and when."""
        entry = tarfile.TarInfo(self.name)
        entry.size, entry.mode = self.size, 0o600
        return entry.tobuf(tarfile.USTAR_FORMAT)

    @property
    def padding(self) -> bytes:
        """Return what fills its last block."""
        return bytes(-self.size % tarfile.BLOCKSIZE)

    def pieces(self) -> Iterator[bytes]:
        """Give the file piece by piece; raises IntegrityError when it is not as long as it was."""
        left = self.size
        with self.path.open("rb") as file:
            while left and (piece := file.read(min(PIECE_BYTES, left))):
                left -= len(piece)
                yield piece
        if left:
            raise IntegrityError(f"{self.path} is {left} bytes shorter than it was")


def members_of(store: Store, image: str, number: int) -> list[Member]:
    """Return the files of a version, what is checked first before what is checked by it; raises NotFoundError."""
    root = store.files_root
    return [Member(str(path.relative_to(root)), path, path.stat().st_size) for path in store.paths_of(image, number)]


def total_bytes(members: list[Member]) -> int:
    """Return how long the file is."""
    return sum(len(each.header) + each.size + len(each.padding) for each in members) + len(END)
