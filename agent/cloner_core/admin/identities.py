"""What makes each clone itself: its identity, host keys and recovery keys."""

from __future__ import annotations

from cloner_core.messages import Strict


class IdentityPreview(Strict, frozen=True):
    """One file of an identity as it would be written."""

    path: str
    mode: int
    content: str  # "***" for a secret; a link's is "-> TARGET"
    is_secret: bool = False


class IdentityView(Strict, frozen=True):
    """What the identity stage would write to a node, in its order; nothing secret is in it."""

    node: str
    image: str
    version: int
    network_systems: tuple[str, ...]  # told from the image's files, the leading one first
    removals: tuple[str, ...]  # patterns
    files: tuple[IdentityPreview, ...]
    notes: tuple[str, ...]


class KnownHosts(Strict, frozen=True):
    """What a client needs to believe the host keys of every node."""

    authority: str  # public key of the site's SSH CA, one line without comment
    names: tuple[str, ...]  # host names and static addresses of the nodes


class RecoveryKey(Strict, frozen=True):
    """What opens a node's encrypted disks by hand."""

    number: int  # from 1; the greatest is given to new clones
    key: str  # as it is typed, spaces included
    made_s: float


class RecoveryKeys(Strict, frozen=True):
    """All that were ever made for a node, the newest first."""

    node: str
    keys: tuple[RecoveryKey, ...]
