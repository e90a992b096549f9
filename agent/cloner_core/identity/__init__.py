"""The identity of one node, as files of its clone: names, keys, network, and what of the golden node must go.

Pure: takes what the server knows and the vault holds, gives files. Must not read an image or decide what is captured
(`cloner_agent.capture.golden_identity`); it removes the same things again, for images that others made.
"""

from cloner_core.identity.making import identity_files, ssh_fingerprint
from cloner_core.identity.origin import ORIGIN_PATH, Origin, parse_origin
from cloner_core.identity.regeneration import REMOVALS
from cloner_core.identity.sshd import reads_parts
from cloner_core.identity.systems import systems_of
from cloner_core.identity.values import (
    IdentityFile,
    IdentityLink,
    IdentityMade,
    ImageIdentity,
    NetworkSystem,
    Removal,
)

__all__ = [
    "ORIGIN_PATH",
    "REMOVALS",
    "IdentityFile",
    "IdentityLink",
    "IdentityMade",
    "ImageIdentity",
    "NetworkSystem",
    "Origin",
    "Removal",
    "identity_files",
    "parse_origin",
    "reads_parts",
    "ssh_fingerprint",
    "systems_of",
]
