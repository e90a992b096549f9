"""What a lint tells of a tree, as it is kept with a version and shown to people."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from cloner_core.image.tree import Count, Text

PLACES_MOST = 50
"""How many places of one kind are kept; the rest is counted."""
FINDINGS_MOST = 256
"""The most kinds that a version can tell of."""


class Grade(StrEnum):
    """What becomes of a finding."""

    IDENTITY = "identity"  # of the golden node: left out always, told
    SECRET = "secret"  # the capture is refused, unless they are allowed or left out
    ADVICE = "advice"  # told


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """One path, and what is there as far as it may be told: never a word of a secret."""

    path: Text  # from the root of the tree, "/etc/fstab"; control characters and what is not UTF-8 as \\xNN
    seen: Text = ""  # "/dev/sda2", "4.2 GiB"; "" where the path says it all


class Finding(msgspec.Struct, frozen=True):
    """All places of one kind in a tree."""

    kind: Text  # the name of a LintKind
    grade: Grade
    advice: Text  # what to do about it, or what a clone has instead
    count: Count
    data_bytes: Count  # of the files, as far as they take room
    places: Annotated[
        tuple[Place, ...], Meta(max_length=PLACES_MOST)
    ]  # the first of them, in the order of the tree; at most PLACES_MOST
