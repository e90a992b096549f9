"""Laws of the disks of machines: a digest sees every byte and every place, and no difference between hole and zeros."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmlab.disk import MIB, content_digest

SIZE = 4 * MIB + 512


def sparse(path: Path, *writes: tuple[int, bytes], size: int = SIZE) -> str:
    path.touch()
    os.truncate(path, size)
    with path.open("r+b") as file:
        for place, content in writes:
            file.seek(place)
            file.write(content)
    return content_digest(path)


def test_a_hole_and_zeros_that_were_written_are_one(tmp_path: Path) -> None:
    blank = sparse(tmp_path / "blank")
    assert sparse(tmp_path / "written", (0, bytes(SIZE))) == blank
    assert sparse(tmp_path / "here-and-there", (MIB + 7, bytes(5000))) == blank


@pytest.mark.parametrize("place", [0, MIB - 1, MIB, 2 * MIB + 4096, SIZE - 513, SIZE - 1])
def test_one_bit_anywhere_is_seen(tmp_path: Path, place: int) -> None:
    holds = (MIB + 100, b"something")
    assert sparse(tmp_path / "a", holds) != sparse(tmp_path / "b", holds, (place, b"\1"))


def test_the_same_bytes_elsewhere_and_another_size_are_seen(tmp_path: Path) -> None:
    digests = {
        sparse(tmp_path / "first", (0, b"content")),
        sparse(tmp_path / "second", (MIB, b"content")),
        sparse(tmp_path / "last", (4 * MIB, b"content")),
        sparse(tmp_path / "longer", (0, b"content"), size=SIZE + 1),
    }
    assert len(digests) == 4
