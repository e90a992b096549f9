"""The options of a capture as the server keeps them with an image."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from cloner_core.image.options import StoredOptions
from cloner_core.messages import Strict


class OptionsChange(Strict, frozen=True, omit_defaults=True):
    """Keep these options with an image, in place of those it has."""

    options: StoredOptions
    revision: int | UnsetType = UNSET  # they must still have it; 0: there never were any


class OptionsView(Strict, frozen=True):
    """The options of an image as they are."""

    image: str
    revision: int  # rises with each change; 0: there never were any
    options: StoredOptions | None  # None: none are kept
    changed_s: float
    author: str
