"""A directory into which chosen files of a sysroot are taken, with the libraries they need.

Must not choose; `contents` names what is wanted, and a missing file is an error, never left out in silence.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from cloner_core.errors import InvalidError
from cloner_initramfs import elf
from cloner_initramfs.packages import merge_directories

LIBRARY_DIRECTORIES = ("usr/lib/x86_64-linux-gnu", "usr/lib")


class Staging:
    """Files taken from `sysroot` into `root`, under the same paths."""

    def __init__(self, sysroot: Path, root: Path) -> None:
        """Start an empty staging directory; `root` must exist and be empty."""
        self.sysroot = sysroot
        self.root = root
        merge_directories(root)

    def take(self, paths: Iterable[str]) -> None:
        """Take single files, by path relative to the sysroot; a symbolic link brings its target along.

        Raises InvalidError naming every path that is not there.
        """
        missing = [path for path in paths if not self._take_one(path)]
        if missing:
            raise InvalidError("the packages lack files that are wanted", faults=missing)

    def take_tree(self, path: str, *, leave_out: Callable[[str], bool] = lambda _: False) -> None:
        """Take a directory whole, except the paths (relative to it) that `leave_out` says yes to."""
        start = self.sysroot / path
        if not start.is_dir():
            raise InvalidError(f"the packages lack the directory {path}")
        for directory, names, files in os.walk(start):
            inside = os.path.relpath(directory, start)
            names[:] = [name for name in names if not leave_out(os.path.normpath(f"{inside}/{name}"))]
            for name in files:
                if not leave_out(os.path.normpath(f"{inside}/{name}")):
                    self._take_one(os.path.relpath(os.path.join(directory, name), self.sysroot))

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file of our own."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link unless something is there already."""
        place = self.root / path
        if not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target)

    def take_libraries(self) -> None:
        """Take every library that an ELF file staged so far needs, until none is missing.

        Raises InvalidError naming each library that is nowhere in the sysroot, and who wants it.
        """
        missing: dict[str, str] = {}
        queue = [path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()]
        while queue:
            path = queue.pop()
            with path.open("rb") as file:
                if not elf.is_elf(file.read(8)):
                    continue
            wants = elf.dynamic(path.read_bytes())
            if wants.interpreter:
                self.take([wants.interpreter.lstrip("/")])
            for name in wants.needed:
                found = self._library(name, wants.search, path)
                if found is None:
                    missing[name] = str(path.relative_to(self.root))
                elif not (self.root / found).exists():
                    self.take([found])
                    queue.append((self.root / found).resolve())
        if missing:
            faults = [f"{name}, wanted by {by}" for name, by in sorted(missing.items())]
            raise InvalidError("the packages lack libraries", faults=faults)

    def _library(self, name: str, search: tuple[str, ...], wanted_by: Path) -> str | None:
        origin = str(wanted_by.parent.relative_to(self.root))
        directories = [part.replace("$ORIGIN", origin).replace("${ORIGIN}", origin).lstrip("/") for part in search]
        for directory in (*directories, *LIBRARY_DIRECTORIES):
            path = os.path.normpath(f"{directory}/{name}")
            if (self.sysroot / path).exists() or (self.root / path).exists():
                return path
        return None

    def _take_one(self, path: str) -> bool:
        """Copy one file or link; the directories of its path are resolved first, so /lib and /usr/lib are one."""
        for _ in range(16):
            source = (self.sysroot / path).parent.resolve() / PurePosixPath(path).name
            if not source.is_relative_to(self.sysroot.resolve()) or not os.path.lexists(source):
                return False
            inside = source.relative_to(self.sysroot.resolve())
            target = self.root / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            if not source.is_symlink():
                if not target.exists():
                    shutil.copy2(source, target)
                return True
            to = os.readlink(source)
            if not os.path.lexists(target):
                target.symlink_to(to)
            path = to.lstrip("/") if to.startswith("/") else os.path.normpath(inside.parent / to)
        return False
