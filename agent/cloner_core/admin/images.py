"""Images and layouts, and the store they lie in."""

from __future__ import annotations

from typing import Any

from cloner_core.image.options import StoredOptions
from cloner_core.layout import Layout
from cloner_core.messages import Strict, VersionRef


class LayoutView(Strict, frozen=True):
    """One number of a layout."""

    name: str
    number: int
    created_s: float
    author: str
    layout: Layout


class ImageView(Strict, frozen=True):
    """One published version."""

    image: str
    number: int
    digest: str
    published_s: float
    author: str
    detail: dict[str, Any]  # the store's version record: message, source facts, sizes; `fault` alone: it is unreadable
    channels: tuple[str, ...] = ()  # that point to it
    options: StoredOptions | None = None  # by which the next version is captured; told of one version alone


class Removal(Strict, frozen=True):
    """A version that was removed, or would be."""

    image: str
    number: int
    digest: str
    published_s: float
    author: str
    newest: int | None  # what is the newest version after it, 0: there is none left; None: it was not the newest
    nodes: tuple[str, ...]  # that get the newest version, and so another one from now on


class SignedVersion(Strict, frozen=True):
    """A version with its signatures, and who could have made them."""

    version: VersionRef
    server_key: str  # hex; the public key of the server that answers


class ServerKey(Strict, frozen=True):
    """By what the signatures of a server are verified."""

    server_key: str  # hex; public


class WantedPacks(Strict, frozen=True):
    """Packs that an import would bring."""

    packs: dict[str, int]  # digest → stored bytes


class Publish(Strict, frozen=True):
    """Make a captured tree a version; everything it names was stored before."""

    image: str
    digest: str  # of the tree root
    pack_map: str
    record: dict[str, object]  # message, author, capture time, inexact paths: outside the digest


class StoreFault(Strict, frozen=True):
    """One thing a check of the store found wrong."""

    what: str  # version image/number, pack …, segment …
    why: str


class CheckReport(Strict, frozen=True):
    """What a check of the store saw."""

    faults: tuple[StoreFault, ...]
    versions: int
    packs: int
    stored_bytes: int  # of the packs of published versions
    unused_bytes: int  # of packs no published version needs; gc removes them


class VerifyProgress(Strict, frozen=True, tag="progress"):
    """How far the verification of a version is."""

    part: str  # tree, told in segments; packs, told in bytes
    done: int
    total: int


class VerifyReport(Strict, frozen=True, tag="report"):
    """What the verification of a version found."""

    image: str
    number: int
    digest: str
    server_key: str  # hex; the public key by which its signatures were judged
    faults: tuple[StoreFault, ...]
    packs: int
    stored_bytes: int  # of its packs


class Collected(Strict, frozen=True):
    """What a gc of the store removed, or would remove."""

    files: int
    stored_bytes: int
