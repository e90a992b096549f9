"""Which packages a tree has, from the files in which Debian's dpkg keeps its list. Other lists are known by name only.

Pure: takes texts that nobody vouches for; what is no list gives no packages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloner_core.admin.differences import Difference

DPKG_STATUS = b"var/lib/dpkg/status"
DPKG_FOLDER = b"var/lib/dpkg/status.d/"
"""Of images without dpkg: a file for each package."""
NO_LIST = b".md5sums"
"""Ends the names of files in that folder that list no package."""
FOREIGN = {
    b"lib/apk/db/installed": "apk",
    b"usr/lib/apk/db/installed": "apk",
    b"usr/lib/sysimage/rpm/Packages": "rpm",
    b"usr/lib/sysimage/rpm/Packages.db": "rpm",
    b"usr/lib/sysimage/rpm/rpmdb.sqlite": "rpm",
    b"var/lib/pacman/local/ALPM_DB_VERSION": "pacman",
    b"var/lib/rpm/Packages": "rpm",
    b"var/lib/rpm/Packages.db": "rpm",
    b"var/lib/rpm/rpmdb.sqlite": "rpm",
}
"""Lists of other package managers, which are not read: database files of their own libraries."""

Packages = Mapping[str, Mapping[str, str]]
"""Name → architecture → version."""

_GONE = ("not-installed", "config-files")  # dpkg(1), package states: nothing of these can be run
_WHOLE = "installed"
_FIELDS = ("Package", "Version", "Architecture", "Status")


def parse_packages(texts: Iterable[str]) -> Packages:
    """Return the installed packages that dpkg's status files tell of (deb-control(5), dpkg(1) "package states").

    A package that is not wholly installed has its state behind the version: "1.2 (half-configured)".
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        for paragraph in text.replace("\r\n", "\n").split("\n\n"):
            fields = dict(_fields(paragraph))
            name, version = fields.get("Package", ""), fields.get("Version", "")
            state = fields.get("Status", _WHOLE).rpartition(" ")[2]
            if name and state not in _GONE:
                told = version if state == _WHOLE else f"{version} ({state})"
                found.setdefault(name, {})[fields.get("Architecture", "")] = told.strip() or "?"
    return found


def package_changes(before: Packages, after: Packages) -> tuple[Difference, ...]:
    """Return the packages that are not the same, by name; with the architecture where a name has several."""
    changes = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, {}), after.get(name, {})
        if len(old) <= 1 and len(new) <= 1:
            pairs = [(name, next(iter(old.values()), ""), next(iter(new.values()), ""))]
        else:
            pairs = [(f"{name}:{arch}", old.get(arch, ""), new.get(arch, "")) for arch in sorted({*old, *new})]
        changes += [Difference(*pair) for pair in pairs if pair[1] != pair[2]]
    return tuple(changes)


def count_packages(packages: Packages) -> int:
    """Return how many packages are installed; one for two architectures counts twice, as dpkg lists it."""
    return sum(map(len, packages.values()))


def _fields(paragraph: str) -> Iterable[tuple[str, str]]:
    for line in paragraph.splitlines():
        name, colon, value = line.partition(":")  # a line that continues another begins with a blank
        if colon and name in _FIELDS:
            yield name, value.strip()
