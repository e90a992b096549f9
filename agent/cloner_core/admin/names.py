"""What layouts, installers and others that are parts of a URL may be called."""

from __future__ import annotations

import re

from cloner_core.errors import InvalidError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str, what: str) -> None:
    """Raise InvalidError unless `name` can name a `what`."""
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"'{name}' cannot name {what}s", hint="letters, digits, dot, underscore, hyphen; 64 at most; no colon"
        )
