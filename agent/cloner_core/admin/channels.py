"""Channels: names that point to one version of an image each."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from cloner_core.image.reference import VersionName
from cloner_core.messages import Strict


class ChannelChange(Strict, frozen=True, omit_defaults=True):
    """Have a channel point to a version."""

    version: VersionName  # of another channel: what that points to now
    revision: int | UnsetType = UNSET  # the change happens only if the channel still has this; 0: only if it is new


class ChannelView(Strict, frozen=True):
    """A channel as it is."""

    image: str
    channel: str
    version: int
    revision: int
    changed_s: float
    author: str
    nodes: tuple[str, ...] = ()  # whose image is this channel: their next deploy takes its version
