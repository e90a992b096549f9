"""Images made to harm by somebody who has the signing key: no write outside of the target, and bounded memory.

Each is a tree, packs and placements put together by hand, as no capture would. A child restores it beside a directory
that the image wants to reach; afterwards that directory, and all around the target, must be what it was to the bit and
to the time of its last change. What is hostile in itself is refused, what is only unkind is restored where it belongs.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import resource
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil

from cloner_agent.restore.errors import RestoreError
from cloner_agent.restore.job import restore
from cloner_agent.restore.readback import read_back
from cloner_agent.restore.table import spill_tree
from cloner_core.errors import ClonerError
from cloner_core.image.compression import compress
from cloner_core.image.digest import digest, version_digest
from cloner_core.image.inode import Inode, Kind, encode_inode
from cloner_core.image.limits import CHUNK_BYTES, MAX_FILE_BYTES, PACK_RAW_BYTES
from cloner_core.image.packmap import PackMap, PackRef, encode_map
from cloner_core.image.placement import ENTRY, Placement, encode_placement
from cloner_core.image.spans import Spans, encode_holes
from cloner_core.image.tree import (
    Facts,
    Filesystem,
    Segment,
    SegmentRef,
    SegmentWriter,
    TreeRoot,
    decode_root,
    encode_root,
)
from cloner_core.image.version import map_statement, verify_map, verify_version, version_statement
from soak.book import Entry
from soak.law import Case, Figures, Law, require
from store_images import Key

_CONTEXT = multiprocessing.get_context("fork")
_BOMB_BYTES = 512 << 20
_MOST_GROWN_BYTES = 160 << 20
_WITHIN_S = 120
_REFUSED, _RESTORED, _BROKEN = 0, 10, 20


@dataclass
class Image:
    """A version as its maker wants it, before it is put together; the root directory is its first record."""

    inodes: list[Inode] = field(default_factory=lambda: [Inode(1, Kind.DIRECTORY, b"", 0o755)])
    contents: dict[int, bytes] = field(default_factory=dict)  # by inode number
    filesystems: tuple[Filesystem, ...] = (Filesystem(b"", "root"),)
    root: Callable[[TreeRoot], TreeRoot] = lambda root: root
    segment: Callable[[bytes], bytes] = bytes  # what is done to the stored form
    pack: Callable[[bytes, PackRef], tuple[bytes, PackRef]] = lambda stored, ref: (stored, ref)
    entries: Callable[[list[tuple[int, int, int, int]]], list[tuple[int, int, int, int]]] = list

    def add(self, kind: Kind, path: bytes, content: bytes = b"", **more: object) -> Inode:
        """Add a record; of a file with this content."""
        number = len(self.inodes) + 1
        chunks = b"".join(digest(content[offset : offset + length]) for offset, length in Spans(len(content)))
        plain = Inode(number, kind, path, 0o777 if kind is Kind.SYMLINK else 0o4755, size=len(content), chunks=chunks)
        made = msgspec.structs.replace(plain, **more)
        self.inodes.append(made)
        if content:
            self.contents[number] = content
        return made


@dataclass(frozen=True)
class Made:
    """What the restorer is given; satisfies PackSource and TreeSource."""

    root: bytes
    root_signature: bytes
    pack_map: bytes
    map_signature: bytes
    segments: dict[bytes, bytes]
    packs: tuple[tuple[bytes, bytes], ...]  # stored bytes, placement

    def segment(self, name: bytes) -> bytes:
        """Return a compressed segment."""
        return self.segments[name]

    def fetch(self, ordinal: int, _pack: PackRef) -> tuple[bytes, bytes]:
        """Return a pack and its placement record."""
        return self.packs[ordinal]


def put_together(image: Image) -> Made:
    """Return `image` as parts that are signed, whatever they say."""
    writer, segments = SegmentWriter(), list[Segment]()
    for inode in image.inodes:
        closed = writer.add(encode_inode(inode), _data_bytes(inode))
        segments += [closed] if closed else []
    last = writer.close()
    segments += [last] if last else []
    refs = tuple(segment.ref for segment in segments)
    data_bytes = sum(ref.data_bytes for ref in refs)
    plain = TreeRoot(1, Facts(), _counted(image), len(image.inodes), data_bytes, refs)
    root = encode_root(image.root(plain))
    version = version_digest(root)
    raw, entries = bytearray(), []
    for number, content in image.contents.items():
        for offset, length in Spans(len(content)):
            entries.append((number, offset, len(raw), length))
            raw += content[offset : offset + length]
    packs, refs_of_packs = [], []
    if raw:
        stored = compress(bytes(raw))
        stored, ref = image.pack(stored, PackRef(digest(stored), len(stored), len(raw), len(entries)))
        flat = b"".join(ENTRY.pack(*entry) for entry in image.entries(entries))
        packs.append((stored, encode_placement(Placement(version, ref.digest, flat))))
        refs_of_packs.append(ref)
    pack_map = encode_map(PackMap(1, version, bytes(32), tuple(refs_of_packs)))
    return Made(
        root,
        Key().sign(version_statement(version)),
        pack_map,
        Key().sign(map_statement(version, digest(pack_map))),
        {segment.ref.digest: image.segment(compress(segment.raw)) for segment in segments},
        tuple(packs),
    )


def _data_bytes(inode: Inode) -> int:
    return inode.spans().data_bytes if inode.kind is Kind.FILE else 0


def _counted(image: Image) -> tuple[Filesystem, ...]:
    """Return the filesystems with the right totals, so that what is refused is not refused for its totals."""
    counts = {filesystem.mount: [0, 0, 0] for filesystem in image.filesystems}
    for inode in image.inodes:
        mounts = [m for m in counts if not m or inode.path == m or inode.path.startswith(m + b"/")]
        data = _data_bytes(inode)
        allocated = 4096 if inode.kind is Kind.DIRECTORY else -(-data // 4096) * 4096
        of_mount = counts[max(mounts, key=len)]
        for at, more in enumerate((1, data, allocated)):
            of_mount[at] += more
    return tuple(
        msgspec.structs.replace(
            one, **dict(zip(("inodes", "data_bytes", "allocated_bytes"), counts[one.mount], strict=True))
        )
        for one in image.filesystems
    )


@dataclass(frozen=True)
class Attack:
    """One way to harm."""

    make: Callable[[random.Random, bytes], Image]  # given the path of the directory it wants to reach
    is_refused: bool = True  # else it is restored, all within the target


def _climb(chance: random.Random, outside: bytes) -> bytes:
    return b"../" * chance.randint(1, 12) + outside.lstrip(b"/")


def _dot_dot(chance: random.Random, outside: bytes) -> Image:
    image = Image()
    image.add(
        Kind.FILE,
        chance.choice((b"../out", b"a/../../out", _climb(chance, outside + b"/new"), b"..", b"./x", b"a/./b")),
        b"x",
    )
    return image


def _absolute(_: random.Random, outside: bytes) -> Image:
    image = Image()
    image.add(Kind.FILE, outside + b"/new", b"x")
    return image


def _through_link(chance: random.Random, outside: bytes) -> Image:
    """Lay a link out of the target, then name something beneath it."""
    image = Image()
    image.add(Kind.SYMLINK, b"way", target=chance.choice((outside, _climb(chance, outside), b"/", b"..")))
    kind = chance.choice((Kind.FILE, Kind.DIRECTORY, Kind.FIFO, Kind.SYMLINK, Kind.LINK))
    more: dict[str, object] = (
        {"target": b"x"} if kind is Kind.SYMLINK else {"leader": 2, "mode": 0} if kind is Kind.LINK else {}
    )
    image.add(kind, b"way/victim", b"x" if kind is Kind.FILE else b"", **more)
    return image


def _same_name_twice(chance: random.Random, outside: bytes) -> Image:
    """Name a link, then a file by the same path: one that opens it by name would follow."""
    image = Image()
    image.add(Kind.SYMLINK, b"twice", target=outside + b"/victim")
    image.add(Kind.FILE, b"twice", chance.randbytes(100))
    return image


def _link_to_nothing(chance: random.Random, _: bytes) -> Image:
    image = Image()
    image.add(Kind.DIRECTORY, b"a")
    leader = chance.choice((1, 2, 3, 4, 1 << 20))
    image.add(Kind.LINK, b"b", leader=leader, mode=0)
    image.add(Kind.FILE, b"c", b"x")
    return image


def _file_beneath_file(chance: random.Random, _: bytes) -> Image:
    image = Image()
    device = {"device": (1, 3)}
    kind = chance.choice((Kind.FILE, Kind.BLOCK, Kind.FIFO))
    image.add(kind, b"a", b"x" if kind is Kind.FILE else b"", **(device if kind is Kind.BLOCK else {}))
    image.add(Kind.FILE, b"a/b", b"x")
    return image


def _mount_that_climbs(chance: random.Random, outside: bytes) -> Image:
    image = Image()
    image.filesystems = (Filesystem(b"", "root"), Filesystem(chance.choice((b"..", outside, b"a/../..")), "data"))
    image.add(Kind.FILE, b"a", b"x")
    return image


def _link_on_the_esp(_: random.Random, outside: bytes) -> Image:
    image = Image()
    image.filesystems = (Filesystem(b"", "root"), Filesystem(b"efi", "esp"))
    image.add(Kind.DIRECTORY, b"efi", mode=0o755)
    image.add(Kind.SYMLINK, b"efi/EFI", target=outside)
    return image


def _two_files() -> Image:
    image = Image()
    image.add(Kind.FILE, b"a", os.urandom(3000))
    image.add(Kind.FILE, b"b", os.urandom(3 * CHUNK_BYTES))
    return image


def _lying_placement(chance: random.Random, _: bytes) -> Image:
    image = _two_files()
    lies: tuple[Callable[[tuple[int, int, int, int]], tuple[int, int, int, int]], ...] = (
        lambda entry: (1 << 31, *entry[1:]),
        lambda entry: (1, *entry[1:]),
        lambda entry: (entry[0], (1 << 63) + 5, *entry[2:]),
        lambda entry: (entry[0], entry[1] + 1, *entry[2:]),
        lambda entry: (*entry[:2], (1 << 32) - 1, entry[3]),
        lambda entry: (*entry[:3], (1 << 32) - 1),
        lambda entry: (*entry[:3], 0),
    )
    image.entries = lambda entries: [chance.choice(lies)(entry) for entry in entries]
    return image


@functools.cache
def _bomb() -> bytes:
    """Return a frame of some kilobytes that unpacks to half a gigabyte."""
    return compress(bytes(_BOMB_BYTES))


def _pack_bomb(chance: random.Random, _: bytes) -> Image:
    image = _two_files()
    raw_bytes = chance.choice((1, 3000, PACK_RAW_BYTES))
    image.pack = lambda _, ref: (_bomb(), PackRef(digest(_bomb()), len(_bomb()), raw_bytes, ref.chunks))
    return image


def _segment_bomb(_: random.Random, __: bytes) -> Image:
    image = _two_files()
    image.segment = lambda _: _bomb()
    return image


def _wrong_sizes(chance: random.Random, _: bytes) -> Image:
    image = _two_files()
    by = chance.choice((-1000, -1, 1, 1000))
    image.pack = lambda stored, ref: (stored, msgspec.structs.replace(ref, raw_size=ref.raw_size + by))
    return image


def _lying_root(chance: random.Random, _: bytes) -> Image:
    """Promise more than there is: whoever makes room for it first is out of memory."""
    image = _two_files()

    def lie(root: TreeRoot) -> TreeRoot:
        ref = root.segments[0]
        huge = SegmentRef(ref.digest, 130 << 20, ref.first, ref.count, ref.data_bytes)
        return chance.choice(
            (
                msgspec.structs.replace(root, inodes=1 << 28),
                msgspec.structs.replace(root, data_bytes=1 << 60),
                msgspec.structs.replace(root, segments=(huge,)),
                msgspec.structs.replace(root, segments=root.segments * 3),
            )
        )

    image.root = lie
    return image


def _endless_chunks(_: random.Random, __: bytes) -> Image:
    """Name one chunk for every place of a file of 64 GiB: what is stored once is to be written 65536 times."""
    image = Image()
    size = 64 << 30
    image.add(Kind.FILE, b"a", size=size, chunks=digest(bytes(CHUNK_BYTES)) * (size // CHUNK_BYTES))
    return image


def _too_long(chance: random.Random, _: bytes) -> Image:
    image = Image()
    image.add(Kind.FILE, chance.choice((b"n" * 256, b"a\0b", b"", b"/", b"a//b")), b"x")
    return image


def _huge_hole(chance: random.Random, _: bytes) -> Image:
    image = Image()
    size = chance.choice((1 << 40, 1 << 42))
    image.add(Kind.FILE, b"hole", size=size, holes=encode_holes([(0, size)]))
    image.add(Kind.FILE, b"small", b"x")
    return image


def _beyond_any_file(_: random.Random, __: bytes) -> Image:
    image = Image()
    image.add(Kind.FILE, b"hole", size=MAX_FILE_BYTES + 1, holes=encode_holes([(0, MAX_FILE_BYTES + 1)]))
    return image


def _unkind(chance: random.Random, outside: bytes) -> Image:
    """Everything an image may have that leads out for whoever follows: links, devices, set-id, odd names."""
    image = Image()
    image.add(Kind.SYMLINK, b"a-link", target=outside + b"/victim")
    image.add(Kind.LINK, b"b-same-link", leader=2, mode=0)
    image.add(Kind.BLOCK, b"c-disk", device=(7, chance.randrange(200)))
    image.add(Kind.CHARACTER, b"d-mem", device=(1, 1))
    image.add(Kind.FIFO, b"e-fifo")
    image.add(Kind.FILE, b"f-\n-rf \xff", chance.randbytes(5000), mode=0o6777)
    image.add(Kind.DIRECTORY, b"g")
    for depth in range(1, 60):
        image.add(Kind.DIRECTORY, b"/".join([b"g"] * (depth + 1)))
    return image


ATTACKS = {
    "dot-dot": Attack(_dot_dot),
    "absolute": Attack(_absolute),
    "through a link": Attack(_through_link),
    "a name twice": Attack(_same_name_twice),
    "a link to nothing": Attack(_link_to_nothing),
    "beneath a file": Attack(_file_beneath_file),
    "a mount that climbs": Attack(_mount_that_climbs),
    "a link on the ESP": Attack(_link_on_the_esp),
    "a lying placement": Attack(_lying_placement),
    "a pack bomb": Attack(_pack_bomb),
    "a segment bomb": Attack(_segment_bomb),
    "wrong sizes": Attack(_wrong_sizes),
    "a lying root": Attack(_lying_root),
    "endless chunks": Attack(_endless_chunks),
    "no name of a file": Attack(_too_long),
    "beyond any file": Attack(_beyond_any_file),
    "a huge hole": Attack(_huge_hole, is_refused=False),
    "unkind": Attack(_unkind, is_refused=False),
    "nothing hostile": Attack(lambda _chance, _outside: _two_files(), is_refused=False),
}


@contextmanager
def open_hostile_images(work: Path) -> Iterator[Case]:
    """Every case has a target of its own, and something beside it."""
    _bomb()

    def case(seed: int) -> Figures:
        name = list(ATTACKS)[seed % len(ATTACKS)]
        with tempfile.TemporaryDirectory(dir=work) as directory:
            return {"attack": name, **_case(Path(directory), ATTACKS[name], random.Random(f"{name} {seed}"))}

    yield case


def _case(place: Path, attack: Attack, chance: random.Random) -> Figures:
    outside, target, spill = place / "outside", place / "target", place / "spill"
    for path in (outside / "way", target, spill):
        path.mkdir(parents=True)
    (outside / "victim").write_text("as it was")
    made = put_together(attack.make(chance, os.fsencode(outside)))
    before = look(place, target)
    child = _CONTEXT.Process(target=_restore, args=(made, target, spill))
    resident = psutil.Process().memory_info().rss
    child.start()
    child.join()
    grown = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 - resident
    require(child.exitcode in (_REFUSED, _RESTORED), f"the restore ended with {child.exitcode}")
    require(look(place, target) == before, "something outside of the target was changed")
    require(grown < _MOST_GROWN_BYTES, f"the restore took {grown >> 20} MiB")
    is_refused = child.exitcode == _REFUSED
    require(is_refused == attack.is_refused, f"it was {'refused' if is_refused else 'restored'}")
    return {"ended": "refused" if is_refused else "restored", "grown_mib": max(0, grown) / (1 << 20)}


def _restore(made: Made, target: Path, spill: Path) -> None:
    signal.alarm(_WITHIN_S)
    os.setpgid(0, 0)
    try:
        version = version_digest(made.root)
        verify_version(version, made.root_signature, Key().public_key)
        root = decode_root(made.root, version)
        pack_map = verify_map(made.pack_map, made.map_signature, version, Key().public_key)
        spilled = spill_tree(root, made, spill)
        restore(target, spilled, pack_map, made, workers=1)
        read_back(target, spilled, workers=1)
        ended = _RESTORED
    except (ClonerError, RestoreError):
        ended = _REFUSED
    os._exit(ended)


def look(place: Path, target: Path) -> dict[str, tuple[object, ...]]:
    """Return everything beneath `place` that is not the target, with what tells of any change."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, folders, files in os.walk(place):
        if Path(directory) == place:
            folders.remove(target.name)
        for name in (*folders, *files, "."):
            path = Path(directory) / name
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            # The unnamed files of a spilled tree change the time of the directory they are in.
            time_ns = 0 if "spill" in path.parts else status.st_ctime_ns
            found[str(path)] = status.st_mode, status.st_uid, status.st_nlink, time_ns, content
    return found


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: every attack came."""
    lacking = set(ATTACKS) - {str(entry.figures.get("attack")) for entry in entries}
    return f"there was no {', '.join(sorted(lacking))}" if lacking else ""


LAW = Law(
    "hostile-images",
    "an image made to harm, signed or not, is restored without a write outside of its target, in bounded memory",
    380,
    open_hostile_images,
    enough=enough,
)
