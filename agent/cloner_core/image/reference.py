"""How a version of an image is named: by its number, by a channel that points to it, or not at all (the newest).

Pure. A channel begins with a letter and a number with a digit, so that neither is ever taken for the other.
"""

from __future__ import annotations

import re

from cloner_core.errors import InvalidError

VersionName = int | str
"""The number of a version, or the name of a channel of its image."""

_CHANNEL = re.compile(r"[a-z][a-z0-9._-]{0,62}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_IMAGE = re.compile(r"[^:\s]+")
_MEANT_ALREADY = ("latest", "newest")  # what an image without a number is


def channel_faults(name: str) -> list[str]:
    """Return what is wrong with the name of a channel."""
    if not _CHANNEL.fullmatch(name):
        want = "want a lower-case letter, then letters, digits, dots, hyphens, underscores (63 at most)"
        return [f"'{name[:80]}' cannot name a channel: {want}"]
    if name in _MEANT_ALREADY:
        return [f"'{name}' cannot name a channel: an image without a number is its newest version already"]
    return []


def parse_version(text: str) -> VersionName | None:
    """Return "3" as a number, "prod" as it is, "" as None: the newest; raises InvalidError for anything else."""
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        return int(text)
    if _CHANNEL.fullmatch(text):
        return text
    if re.fullmatch(r"[1-9][0-9]*", text):
        raise InvalidError(f"{text[:80]} is greater than the number of any version")
    raise InvalidError(f"'{text[:80]}' is neither the number of a version nor the name of a channel")


def parse_reference(text: str) -> tuple[str, VersionName | None]:
    """Return image and version of "debian", "debian:3" or "debian:prod"; raises InvalidError."""
    image, colon, version = text.partition(":")
    if not _IMAGE.fullmatch(image) or (colon and not (_NUMBER.fullmatch(version) or _CHANNEL.fullmatch(version))):
        raise InvalidError(f"image '{text}': want NAME, NAME:NUMBER or NAME:CHANNEL")
    return image, parse_version(version)
