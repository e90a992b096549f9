"""Names the operating system on a filesystem from its files, for people who are about to destroy it.

Pure: takes the texts, which come from a disk nobody vouches for.
"""

from __future__ import annotations

import shlex

_CHARACTERS = 100


def system_name(os_release: str, hostname: str) -> str:
    """Return "Debian GNU/Linux 12 (bookworm), host db01" from os-release(5) and hostname(5); "" when both say nothing.

    The host name is what tells a person that this is the wrong machine.
    """
    fields = dict(_fields(os_release))
    name = _plain(fields.get("PRETTY_NAME") or fields.get("NAME", ""))
    lines = [line.strip() for line in hostname.splitlines()]
    host = _plain(next((line for line in lines if line and not line.startswith("#")), ""))
    return ", ".join((*([name] if name else []), *([f"host {host}"] if host else [])))


def _fields(os_release: str) -> list[tuple[str, str]]:
    found = []
    for line in os_release.splitlines():
        name, sign, value = line.partition("=")
        if not sign or not name.isidentifier():
            continue
        try:
            words = shlex.split(value, posix=True)
        except ValueError:  # a quotation mark without its other half
            continue
        found.append((name, " ".join(words)))
    return found


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_CHARACTERS]).strip()
