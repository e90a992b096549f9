"""An independent reader of newc archives for the tests: plain, trusting, and not written from the writer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Read:
    """One member as the kernel would see it."""

    path: bytes
    mode: int
    owner: tuple[int, int]
    mtime: int
    device: tuple[int, int]
    data: bytes


def read(archive: bytes) -> list[Read]:
    """Return the members up to the trailer, which must be the end."""
    found: list[Read] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701", archive[at : at + 6]
        numbers = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        _inode, mode, uid, gid, _links, mtime, size, _, _, major, minor, name_size, check = numbers
        assert check == 0
        path = archive[at + 110 : at + 110 + name_size - 1]
        assert archive[at + 110 + name_size - 1] == 0
        at += (110 + name_size + 3) // 4 * 4
        if path == b"TRAILER!!!":
            assert at == len(archive)
            return found
        found.append(Read(path, mode, (uid, gid), mtime, (major, minor), archive[at : at + size]))
        at += (size + 3) // 4 * 4
