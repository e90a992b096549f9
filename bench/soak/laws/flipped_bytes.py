"""One byte of a store is changed, anywhere: every check finds it, and no restore takes it for the image.

A case changes one byte of one file of a store with two images, after which these must tell: `store check --read-data`,
the verification of a version that has the file, and a restore of it, which ends with an error or gives the true tree:
a node reads no version record and no pack index, and the compressed form of a segment may say the same in other bytes.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloner_agent.restore.errors import RestoreError
from cloner_core.admin.images import VerifyProgress
from cloner_core.errors import IntegrityError, NotFoundError
from cloner_core.image.compression import decompress
from cloner_core.image.digest import digest
from cloner_server.store.local import LocalStore
from clones import capture_into, restore_from
from soak.book import Entry
from soak.law import Case, Figures, Law, require, share
from store_images import Key, make_image, some_contents

_KINDS = ("packs", "segments", "roots", "packmaps", "packindexes", "placements", "current", "images")
_MIB = 1 << 20


@dataclass(frozen=True)
class _Golden:
    """A store, the tree that one version in it was captured from, and that version."""

    store: LocalStore
    tree: Path
    version: bytes


@contextmanager
def open_flipped_bytes(work: Path) -> Iterator[Case]:
    """All cases share one store; each puts back what it changed."""
    golden = _make_golden(work)

    def case(seed: int) -> Figures:
        return _case(golden, work, seed)

    yield case


def _make_golden(work: Path) -> _Golden:
    tree, chance = work / "tree", random.Random("flips")
    for folder in range(8):
        (tree / f"d{folder}").mkdir(parents=True)
        for number in range(60):
            content = chance.randbytes(chance.randrange(3000)) + b"some text, which compresses " * chance.randrange(20)
            (tree / f"d{folder}/file-{number}").write_bytes(content)
    (tree / "big").write_bytes(chance.randbytes(6 * _MIB))
    os.link(tree / "big", tree / "d0/same")
    (tree / "link").symlink_to("big")
    store = LocalStore(work / "store", Key())
    other = make_image(some_contents(), "other")
    other.put(store)
    store.publish(other.draft)
    said = {"message": "with all that is new", "author": "root", "source": "golden01"}
    version = bytes.fromhex(capture_into(store, tree, **said).record.version)
    return _Golden(store, tree, version)


def _case(golden: _Golden, work: Path, seed: int) -> Figures:
    store, chance = golden.store, random.Random(seed)
    kind = _KINDS[seed % len(_KINDS)]
    path = chance.choice(_files_of(store, golden.version, kind))
    whole = path.read_bytes()
    at = chance.randrange(len(whole))
    changed = bytearray(whole)
    changed[at] ^= chance.randrange(1, 256)
    same = kind == "segments" and _says_the_same(golden, bytes(changed), path)
    path.write_bytes(changed)
    try:
        checked = store.check(read_data=True).faults
        try:
            verified = len(store.verify("golden", 1, _ignore).faults)
        except (IntegrityError, NotFoundError):  # there is no record to begin with
            verified = 1
        require(bool(checked) or same, f"the check passes byte {at} of {path}")
        require(bool(verified) or same, f"the verification passes byte {at} of {path}")
        restored = _restore(golden, work)
    finally:
        path.write_bytes(whole)
    return {"in": kind, "restore": restored, "found": "not: other bytes, the same segment" if same else "found"}


def _files_of(store: LocalStore, version: bytes, kind: str) -> list[Path]:
    """Return the files of one kind that the version needs."""
    name = bytes.fromhex(store.signed_map(version).map)
    files: dict[str, Callable[[], list[Path]]] = {
        "packs": lambda: [store.packs.path_of(pack.digest) for pack in store.map_of(name).packs],
        "segments": lambda: [store.segments.path_of(ref.digest) for ref in store.tree_root(version).segments],
        "roots": lambda: [store.roots.path_of(version)],
        "packmaps": lambda: [store.maps.path_of(name)],
        "packindexes": lambda: [store.indexes.path_of(store.map_of(name).index_digest)],
        "placements": lambda: [store.placement_sets.path_of(name)],
        "current": lambda: [store.current_path(version)],
        "images": lambda: [store.record_path("golden", 1)],
    }
    return files[kind]()


def _says_the_same(golden: _Golden, changed: bytes, path: Path) -> bool:
    """Return whether a changed segment decodes to what it did: the tree, which is what is signed, is as it was."""
    name = bytes.fromhex(path.name.removesuffix(".zst"))
    refs = golden.store.tree_root(golden.version).segments
    try:
        return digest(decompress(changed, next(ref.raw_size for ref in refs if ref.digest == name), "it")) == name
    except IntegrityError:
        return False


def _restore(golden: _Golden, work: Path) -> str:
    """Restore and read back as a node does, all in this process; return what came of it."""
    with tempfile.TemporaryDirectory(dir=work) as target:
        try:
            restore_from(golden.store, golden.version, Path(target), workers=1)
        except (IntegrityError, NotFoundError, RestoreError):
            return "refused"
        require(_tree(Path(target)) == _tree(golden.tree), "a restore of other bytes is told as a success")
        return "the true tree"


def _tree(root: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
    return found


def _ignore(_: VerifyProgress) -> None:
    pass


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: every kind of file was changed, and a restore met it where it reads that kind."""
    rare = [kind for kind in _KINDS if share(entries, lambda figures, kind=kind: figures.get("in") == kind) < 0.1]  # type: ignore[misc]
    refused = share(entries, lambda figures: figures.get("restore") == "refused")
    told = [f"too few in {', '.join(rare)}"] if rare else []
    return "; ".join(told + ([f"only {refused:.0%} of the restores met it"] if refused < 0.5 else []))


LAW = Law(
    "flipped-bytes",
    "a byte changed anywhere in a store is found by every check, and no restore takes it for the image",
    200,
    open_flipped_bytes,
    enough=enough,
)
