"""Whether what /etc/fstab of the running system mounts is there: an image that silently lacks /srv is worse than none.

Must not mount anything itself: what is mounted on demand is asked for as any program would.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cloner_agent.capture.mounts import LOCAL_TYPES, Mount, parse_mountinfo
from cloner_agent.capture.rules import Action, RuleBook, parse_excludes
from cloner_core.errors import RefusedError
from cloner_core.fstab import Entry, entries

AUTOMOUNT = "x-systemd.automount"
_AUTOFS = "autofs"
_FOUND_BY_SYSTEMD = ("/boot", "/efi")  # systemd-gpt-auto-generator(8) mounts them on demand, without a line in fstab
_ELSEWHERE = frozenset({"bind", "rbind"})


def is_meant(entry: Entry) -> bool:
    """Whether a line of fstab mounts a filesystem of the machine itself, at boot or on demand."""
    options = set(entry.options.split(","))
    if not entry.mount.startswith("/") or entry.kind not in {*LOCAL_TYPES, "auto"} or _ELSEWHERE & options:
        return False
    return "noauto" not in options or AUTOMOUNT in options


def require_mounted(
    fstab: bytes,
    excludes: Sequence[str],
    *,
    read: Callable[[], bytes] = lambda: Path("/proc/self/mountinfo").read_bytes(),
    touch: Callable[[str], object] = os.stat,
) -> tuple[str, ...]:
    """Have mounted what is mounted on demand, and return what is not there, which `nofail` says may be missing.

    Raises RefusedError that names what must not be missing, InvalidError for wrong excludes.
    """
    book = RuleBook(parse_excludes(excludes))
    meant = [one for one in entries(fstab) if is_meant(one) and not _is_excluded(book, one.mount)]
    mounts = _by_path(parse_mountinfo(read()))
    for path in (*_FOUND_BY_SYSTEMD, *(one.mount for one in meant)):
        if path in mounts and mounts[path].type == _AUTOFS:
            with suppress(OSError):  # what cannot be mounted is told below
                touch(f"{path}/.")
    mounts = _by_path(parse_mountinfo(read()))
    missing = [one for one in meant if one.mount not in mounts or mounts[one.mount].type == _AUTOFS]
    needed = [one for one in missing if "nofail" not in one.options.split(",")]
    if needed:
        listed = ", ".join(f"{one.mount} (from {one.device})" for one in needed)
        paths = ",".join(one.mount for one in needed)
        raise RefusedError(
            f"/etc/fstab mounts {listed}, and nothing is mounted there: the image would lack it",
            hint=f"mount it, or --exclude-paths {paths}; nofail in /etc/fstab says that it may be missing",
        )
    return tuple(one.mount for one in missing)


def _by_path(mounts: Sequence[Mount]) -> dict[str, Mount]:
    """Return the mount that is seen at each path: the last one."""
    return {os.fsdecode(mount.path): mount for mount in mounts}


def _is_excluded(book: RuleBook, mount: str) -> bool:
    """Whether an exclude names `mount` or what it lies in."""
    parts = os.fsencode(mount).strip(b"/").split(b"/")
    for depth, name in enumerate(parts):
        rule = book.of_entry(book.of_directory(b"/".join(parts[:depth])), name, False)
        if rule is not None and rule.action is Action.OMIT:
            return True
    return False
