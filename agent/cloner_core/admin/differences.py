"""What one version of an image has that another has not."""

from __future__ import annotations

from cloner_core.messages import Strict


class Difference(Strict, frozen=True):
    """One named thing that is not the same in both versions."""

    name: str
    before: str  # "" where the version does not have it
    after: str


class PathChange(Strict, frozen=True):
    """One path that is not the same in both versions."""

    path: str  # absolute; bytes that are not UTF-8 as \xNN
    change: str  # added, removed, changed (what it holds), metadata (owner, mode, attributes)
    detail: str  # "mode 0644 → 0600"; "" for what was added or removed


class DirectorySize(Strict, frozen=True):
    """The data beneath one directory, holes not counted."""

    path: str
    before_bytes: int
    after_bytes: int


class ChangeCounts(Strict, frozen=True):
    """Every path of both versions, counted once."""

    added: int
    removed: int
    changed: int  # what it holds, or what it is
    metadata: int  # owner, mode, attributes, and nothing else
    times: int  # the time of its last change, and nothing else
    same: int


class DiffSide(Strict, frozen=True):
    """One of the two versions."""

    image: str
    number: int
    digest: str
    published_s: float
    system: str  # as os-release calls it; "" when it says nothing
    architecture: str
    inodes: int
    data_bytes: int  # holes not counted
    stored_bytes: int  # of its packs
    packages: int | None  # None where no list of them could be read


class ImageDiff(Strict, frozen=True):
    """The way from one version to another."""

    before: DiffSide
    after: DiffSide
    counts: ChangeCounts
    new_stored_bytes: int  # of the packs that only the second needs: what travelled for it
    packages: tuple[Difference, ...]  # name → version; of Debian's packages
    unread: tuple[str, ...]  # lists of packages that were not read, and why
    kernels: tuple[Difference, ...]  # release → what there is of it
    left_out: tuple[Difference, ...]  # rules of the two captures that differ
    etc: tuple[PathChange, ...]
    etc_more: int  # of /etc, beyond those that are listed
    directories: tuple[DirectorySize, ...]  # the greatest changes first
