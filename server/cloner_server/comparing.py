"""Two published versions against each other: their trees as they stream from the store, and the files that say more.

Touches nothing. What differs is judged by `cloner_core.image.diffing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloner_core.admin.differences import Difference, DiffSide, ImageDiff
from cloner_core.image.diffing import OS_RELEASE, TreeDiff, compare_trees, shown
from cloner_core.image.inode import Inode
from cloner_core.image.packages import (
    DPKG_FOLDER,
    DPKG_STATUS,
    FOREIGN,
    Packages,
    count_packages,
    package_changes,
    parse_packages,
)
from cloner_core.image.tree import TreeRoot
from cloner_core.sizes import format_bytes
from cloner_core.systems import system_name
from cloner_server.catalog import Version
from cloner_server.imagefiles import Listed, iter_inodes, read_files
from cloner_server.store.protocol import Store

_STATUS_BYTES = 64 << 20  # Debian's of 5000 packages has 5 MiB
_RELEASE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Published:
    """A version and what the database says of it."""

    image: str
    number: int
    published_s: float
    version: Version


def compare_versions(store: Store, before: Published, after: Published) -> ImageDiff:
    """Return what differs; raises NotFoundError, IntegrityError when the store does not have a version whole."""
    roots = before.version.root, after.version.root
    trees = compare_trees(iter_inodes(store, roots[0]), iter_inodes(store, roots[1]))
    old, new = _read(store, before.version, trees.before), _read(store, after.version, trees.after)
    known = {pack.digest for pack in before.version.pack_map.packs}
    is_read = old.packages is not None and new.packages is not None
    return ImageDiff(
        before=_side(before, old),
        after=_side(after, new),
        counts=trees.counts,
        new_stored_bytes=sum(pack.stored_size for pack in after.version.pack_map.packs if pack.digest not in known),
        packages=package_changes(old.packages or {}, new.packages or {}) if is_read else (),
        unread=(*_unread(trees), *_lacking(before, old), *_lacking(after, new)),
        kernels=trees.kernels,
        left_out=_left_out(*roots),
        etc=trees.etc,
        etc_more=trees.etc_more,
        directories=trees.directories,
    )


@dataclass(frozen=True, slots=True)
class _Told:
    """What the files of one version say."""

    system: str
    packages: Packages | None  # None: there is no list, or it is too long


def _read(store: Store, version: Version, records: Mapping[bytes, Inode]) -> _Told:
    release = next((path for path in OS_RELEASE if path in records), None)
    lists = [path for path in records if path == DPKG_STATUS or path.startswith(DPKG_FOLDER)]
    is_short = sum(records[path].size for path in lists) <= _STATUS_BYTES
    wanted = {path: records[path] for path in lists if is_short}
    if release is not None and records[release].size <= _RELEASE_BYTES:
        wanted[release] = records[release]
    contents = read_files(store, version, [Listed(inode.number, inode.size) for inode in wanted.values()])
    texts = {path: contents[inode.number].decode(errors="replace") for path, inode in wanted.items()}
    system = system_name(texts.pop(release, ""), "") if release is not None else ""
    return _Told(system, parse_packages(texts.values()) if texts else None)


def _side(published: Published, told: _Told) -> DiffSide:
    root = published.version.root
    return DiffSide(
        image=published.image,
        number=published.number,
        digest=published.version.digest.hex(),
        published_s=published.published_s,
        system=told.system,
        architecture=root.facts.architecture,
        inodes=root.inodes,
        data_bytes=root.data_bytes,
        stored_bytes=sum(pack.stored_size for pack in published.version.pack_map.packs),
        packages=None if told.packages is None else count_packages(told.packages),
    )


def _unread(trees: TreeDiff) -> Iterable[str]:
    """Name the lists of other package managers, and whether they differ."""
    for path in sorted({*trees.before, *trees.after} & {*FOREIGN}):
        old, new = trees.before.get(path), trees.after.get(path)
        if old is None or new is None:
            how = "only the first version has it" if new is None else "only the second version has it"
        else:
            how = "it is the same" if (old.size, old.chunks) == (new.size, new.chunks) else "it differs"
        yield f"{FOREIGN[path]} ({shown(path)}): not read; {how}"


def _lacking(published: Published, told: _Told) -> Iterable[str]:
    if told.packages is None:
        name = f"{published.image}:{published.number}"
        yield f"dpkg ({shown(DPKG_STATUS)}): {name} has none, or one of more than {format_bytes(_STATUS_BYTES)}"


def _left_out(before: TreeRoot, after: TreeRoot) -> tuple[Difference, ...]:
    old, new = set(before.facts.left_out), set(after.facts.left_out)
    told = {True: "left out", False: ""}
    return tuple(Difference(rule, told[rule in old], told[rule in new]) for rule in sorted(old ^ new))
