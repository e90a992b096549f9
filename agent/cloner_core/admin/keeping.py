"""Keep rules, and what they and a gc would let go."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from cloner_core.admin.images import Collected
from cloner_core.growth import Growth
from cloner_core.image.keeping import KeepRule
from cloner_core.messages import Strict


class KeepChange(Strict, frozen=True, omit_defaults=True):
    """Set the rule of an image or a channel, in place of the one it has."""

    rule: KeepRule
    revision: int | UnsetType = UNSET  # the change happens only if the rule still has this; 0: only if there is none


class KeepView(Strict, frozen=True):
    """A rule as it is."""

    image: str
    channel: str  # "": of the image itself
    revision: int
    rule: KeepRule
    changed_s: float
    author: str


class VersionFate(Strict, frozen=True):
    """What the rules say of one version."""

    image: str
    number: int
    why: tuple[str, ...]  # it is kept; empty: it is let go


class Freed(Strict, frozen=True):
    """What an image would lose."""

    image: str
    versions: int
    stored_bytes: int  # of packs that only these versions need


class GcPlan(Strict, frozen=True):
    """What `store gc --apply-keep-rules` would do, and how long the disk lasts."""

    versions: tuple[VersionFate, ...]  # of the images that have a rule
    images: tuple[Freed, ...]  # of which versions are let go
    shared_bytes: int  # of packs that let-go versions of several images need, and no other
    now: Collected  # what a gc would remove at once, within its grace, with those versions gone
    unused: Collected  # what of that no version needs as it is
    growth: Growth


class LetGo(Strict, frozen=True):
    """Remove versions that the rules let go; refused when they keep one of them by now."""

    versions: tuple[tuple[str, int], ...]  # image and number


class Applied(Strict, frozen=True):
    """What `store gc --apply-keep-rules` removed."""

    versions: tuple[str, ...]  # "debian:3"
    files: int
    stored_bytes: int
