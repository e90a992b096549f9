"""What lies in the store, and what it weighs."""

from __future__ import annotations

from cloner_core.messages import Strict


class StoreRoom(Strict, frozen=True):
    """The filesystem under the store."""

    used_bytes: int
    free_bytes: int  # that may still be written


class VersionShare(Strict, frozen=True):
    """What one version weighs."""

    image: str
    number: int
    logical_bytes: int  # content of its files, holes not counted
    unique_bytes: int  # of that each chunk once
    stored_bytes: int  # compressed: the packs it needs
    only_bytes: int  # of those packs what no other version needs: what its removal and a gc would free


class ImageShare(Strict, frozen=True):
    """What all versions of an image weigh together; `only_bytes` is what no other image needs."""

    image: str
    versions: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    only_bytes: int


class Repacked(Strict, frozen=True):
    """What a repack of sparse packs wrote anew, or would write."""

    packs: int  # that were sparse
    stored_bytes: int  # of these; a gc removes them when their grace is over
    live_bytes: int  # of their content that versions use, not compressed
    new_packs: int  # 0 when it was only asked what would be done
    new_stored_bytes: int
    versions: int  # trees that have another map now
    dry_run: bool
    map_bytes: int = 0  # of these maps, with indexes and placements; a dry run tells those of the present ones


class StoreStats(Strict, frozen=True):
    """What the store holds."""

    images: tuple[ImageShare, ...]
    versions: tuple[VersionShare, ...]
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int  # of the packs that versions need
    metadata_bytes: int  # trees, maps, indexes, placements
    unused_bytes: int  # of packs no version needs; gc removes them after its grace
    free_bytes: int  # of the filesystem
    unread: tuple[str, ...] = ()  # versions that are not counted, each with the reason
