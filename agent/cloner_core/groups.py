"""The names of groups: what `@name` in a node set can stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable

# None of the signs that mean something in a node set: , ! & ^ @ : [ ] * and blanks.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST = 64  # of one node


def group_faults(names: Iterable[str]) -> list[str]:
    """Return what is wrong with the groups of a node, as "groups: what"."""
    given = list(names)
    faults = [
        f"groups: '{name}' cannot name a group (letters, digits, dot, underscore, hyphen; 64 at most)"
        for name in given
        if not _NAME.fullmatch(name)
    ]
    return faults + ([f"groups: {len(given)} are named, a node is in {_MOST} at most"] if len(given) > _MOST else [])
