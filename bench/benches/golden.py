"""A tree like a golden node's: the same bytes for the same seed, on any machine."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_TEXT_BYTES = 48 * MIB
_LARGEST_BYTES = 96 * MIB
_SIGMA = 2.2  # of the logarithm of sizes: half of the files below 4 KiB, most bytes in few files, as in /usr


@dataclass(frozen=True, slots=True)
class Shape:
    """How big a tree is."""

    files: int
    data_bytes: int


FULL = Shape(48_000, 1836 * MIB)
SMALL = Shape(4_800, 184 * MIB)


def make_golden(root: Path, shape: Shape, seed: int = 1) -> None:
    """Fill the directory `root`; as root, on a filesystem with everything. Compresses to about a third."""
    chance = random.Random(seed)
    text = _text(chance)
    mu = math.log(shape.data_bytes / shape.files) - _SIGMA**2 / 2
    sizes = [min(int(chance.lognormvariate(mu, _SIGMA)), _LARGEST_BYTES) for _ in range(shape.files)]
    scale = shape.data_bytes / sum(sizes)
    directories = _directories(root, shape.files // 10, chance)
    for number, size in enumerate(sizes):
        directory = directories[chance.randrange(len(directories))]
        path = f"{directory}/file-{number}.{chance.choice(('so', 'py', 'h', 'txt', 'gz'))}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        _write(fd, min(int(size * scale), 4 * _LARGEST_BYTES), text, chance, is_packed=path.endswith("gz"))
        if number % 50 == 0:
            os.fchown(fd, 1000 + number % 7, 1000)
            os.fchmod(fd, 0o640)
        if number % 100 == 1:
            os.setxattr(fd, "user.comment", b"x" * (number % 40))
        os.utime(fd, ns=(0, 1_600_000_000_000_000_000 + number * 1_000_003))
        os.close(fd)
        if number % 97 == 0:
            os.link(path, f"{path}.link")
        if number % 12 == 0:
            os.symlink(f"../{os.path.basename(path)}", f"{path}.symlink")
    _peculiarities(root, text)


def _directories(root: Path, count: int, chance: random.Random) -> list[str]:
    made = [str(root)]
    for number in range(count):
        made.append(f"{made[chance.randrange(len(made))]}/dir-{number}")
        os.mkdir(made[-1])
    return made


def _text(chance: random.Random) -> bytes:
    """Return text of phrases, the frequent ones often: zstd finds in it about what it finds in /usr, as fast."""
    letters = b"etaoinshrdlu_. \n\0\0"
    words = [bytes(chance.choices(letters, k=chance.randrange(2, 12))) for _ in range(4_000)]
    phrases = [b" ".join(chance.choices(words, k=chance.randrange(2, 9))) for _ in range(30_000)]
    weights = [1 / (rank + 10) for rank in range(len(phrases))]
    parts: list[bytes] = []
    size = 0
    while size < _TEXT_BYTES:
        batch = chance.choices(phrases, weights, k=5_000)
        parts += [part for phrase in batch for part in (phrase, chance.randbytes(3))]
        size += sum(len(phrase) + 3 for phrase in batch)
    return b"".join(parts)[:_TEXT_BYTES]


def _write(fd: int, size: int, text: bytes, chance: random.Random, *, is_packed: bool) -> None:
    left = size
    while left:
        piece = min(left, chance.randrange(2_000, 200_000))
        if is_packed and size < MIB:
            os.write(fd, chance.randbytes(piece))
        else:
            start = chance.randrange(len(text) - piece)
            os.write(fd, text[start : start + piece])
        left -= piece


def _peculiarities(root: Path, text: bytes) -> None:
    sparse = root / "sparse"
    with sparse.open("wb") as file:
        file.write(text[:MIB])
        file.truncate(1 << 30)
        file.seek(512 * MIB)
        file.write(text[MIB : 2 * MIB])
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    os.setxattr(root / "sparse", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    acl = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff")
    os.setxattr(root / "sparse", "system.posix_acl_access", acl + bytes.fromhex("20000400ffffffff"))
