"""The directory that keeps what is expensive to make, each thing under a key of everything it was made from.

Must not know what it keeps. An entry is made beside its place and renamed, so a killed build leaves no half entry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KEY_DIGITS = 24
_IN_USE_S = 2 * 3600.0  # after an entry was asked for


def default_cache() -> Path:
    """Return the cache directory: $CLONER_CACHE, else /var/cache/cloner for root, else ~/.cache/cloner."""
    if named := os.environ.get("CLONER_CACHE"):
        return Path(named)
    return Path("/var/cache/cloner") if os.geteuid() == 0 else Path.home() / ".cache" / "cloner"


def key_of(parts: Iterable[str | bytes]) -> str:
    """Return a short key of these parts, in this order; no two different lists give the same."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()[:KEY_DIGITS]


def key_of_tree(root: Path) -> str:
    """Return a key of the names, modes and contents beneath a directory; byte code and caches are not looked at."""
    parts: list[str | bytes] = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            parts += [str(path.relative_to(root)), oct(path.stat().st_mode), path.read_bytes()]
    return key_of(parts)


@dataclass(frozen=True, slots=True)
class Cache:
    """A directory of entries `<kind>-<key>`."""

    root: Path

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the directory of this entry, made by `make(empty directory)` when it is not there yet.

        Two builders at once both make it; the first to rename wins and the other's work is dropped.
        """
        place = self.root / f"{kind}-{key}"
        if place.is_dir():
            os.utime(place)  # so that `forget_old` keeps what is in use
            return place
        self.root.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=self.root))
        try:
            make(half)
            half.chmod(0o755)
            os.utime(half)  # an unpacked archive sets the time of its "."
            _move(half, place)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        return place

    def directory(self, kind: str) -> Path:
        """Return a plain directory of the cache, made when missing; for things that carry their own key."""
        place = self.root / kind
        place.mkdir(parents=True, exist_ok=True)
        return place

    def forget_old(self, kind: str, *, keep: int) -> None:
        """Remove all but the `keep` entries of a kind that were used last, and those that somebody may be reading."""
        used_s: dict[Path, float] = {}
        for path in self.root.glob(f"{kind}-*"):
            if "-" not in path.name.removeprefix(f"{kind}-"):  # else of a kind whose name begins alike
                with suppress(FileNotFoundError):  # another builder forgets the same
                    used_s[path] = path.stat().st_mtime
        for path in sorted(used_s, key=used_s.__getitem__, reverse=True)[keep:]:
            if time.time() - used_s[path] > _IN_USE_S:
                shutil.rmtree(path, ignore_errors=True)


def _move(half: Path, place: Path) -> None:
    try:
        half.rename(place)
    except OSError:
        if not place.is_dir():  # else another builder was first, and its work is as good
            raise
