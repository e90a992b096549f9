"""The walk over a tree: depth first, names in byte order. Follows no link, opens no device, waits for nothing.

The lint goes along. Once it has found what refuses the capture, the walk goes on for the lint alone, so that everything
is told at once: records end, and no more content is read than rules ask for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cloner_agent.capture.content import SwapFileError
from cloner_agent.capture.mounts import Boundaries, is_kept_snapshot, open_beneath_mount
from cloner_agent.capture.records import CaptureError, Notes, ReplacedError, require_file
from cloner_agent.capture.rules import Action, Rule, RuleBook
from cloner_core.image.limits import MAX_PATH_BYTES
from cloner_core.image.linting import kinds
from cloner_core.image.linting.linter import Linter
from cloner_core.image.linting.rules import LintRule
from cloner_core.image.linting.scopes import Scope

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ESTALE)
_REPLACED = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)  # by a link, by what is no directory, by a socket: open(2)
_VISITS = 3  # of an entry that is something else each time
_LOST_AND_FOUND = b"lost+found"
_AGAIN = "mount it, and capture again"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Maker(Protocol[T_co]):
    """Makes of each entry what the walk gives: see records.RecordMaker and survey.Weigher."""

    def directory(self, fd: int, path: bytes) -> T_co:
        """Return what becomes of an open directory."""

    def file(self, fd: int, path: bytes, *, is_emptied: bool) -> tuple[T_co, int]:
        """Return what becomes of an open regular file, and its bytes that are not holes."""

    def special(self, parent_fd: int, name: bytes, path: bytes) -> T_co | None:
        """Return what becomes of a link, device or fifo; None for what is never captured."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What an entry is now; told as os.DirEntry tells what it was when its directory was listed."""

    mode: int

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        return stat.S_ISDIR(self.mode)

    def is_file(self, *, follow_symlinks: bool) -> bool:
        return stat.S_ISREG(self.mode)


_Entry = os.DirEntry[str] | _Found


@dataclass(slots=True)
class _Directory:
    """A directory being walked."""

    fd: int
    path: bytes
    entries: Iterator[tuple[bytes, os.DirEntry[str]]]
    rules: list[tuple[bytes, Rule]]
    scope: Scope | None  # of the lint
    is_top: bool  # of a filesystem
    device: int  # st_dev

    def child(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


class Walker(Generic[T]):
    """One walk over one tree."""

    def __init__(self, boundaries: Boundaries, book: RuleBook, maker: Maker[T], notes: Notes, linter: Linter) -> None:
        """Take where filesystems end, what to leave out, what becomes of entries, where to note oddities, the lint."""
        self._boundaries = boundaries
        self._book = book
        self._maker = maker
        self._notes = notes
        self._linter = linter
        self._noatime = os.O_NOATIME

    def walk(self, root_fd: int) -> Iterator[tuple[T, int]]:
        """Give what is made of everything beneath the directory `root_fd`, itself first, in the order of a tree.

        Raises SecretsError when all is seen and there are secrets that nobody allowed.
        """
        stack = [self._enter(os.dup(root_fd), b"", self._linter.top, is_top=True)]
        try:
            yield self._maker.directory(stack[0].fd, b""), 0
            while stack:
                directory = stack[-1]
                item = next(directory.entries, None)
                if item is None:
                    os.close(stack.pop().fd)
                    continue
                name, entry = item
                path = directory.child(name)
                try:
                    found = self._visit(directory, name, entry, path)
                    if isinstance(found, _Directory):
                        stack.append(found)
                        if not self._linter.is_refused:
                            yield self._maker.directory(found.fd, path), 0
                        continue
                except SwapFileError:
                    self._linter.add(kinds.SWAP_FILE, path)
                except OSError as error:
                    if error.errno not in _GONE:
                        raise CaptureError(f"cannot read /{os.fsdecode(path)}: {error.strerror}") from error
                    self._notes.vanished.append(path)
                else:
                    if found is not None:
                        yield found
            self._linter.require_no_secrets()
        finally:
            for directory in stack:
                os.close(directory.fd)

    def _enter(
        self, fd: int, path: bytes, scope: Scope | None, *, is_top: bool = False, is_hollow: bool = False
    ) -> _Directory:
        entries: list[tuple[bytes, os.DirEntry[str]]] = []
        if not is_hollow:
            with os.scandir(fd) as scan:
                entries = [(os.fsencode(entry.name), entry) for entry in scan]
            entries.sort(key=lambda item: item[0])
        return _Directory(fd, path, iter(entries), self._book.of_directory(path), scope, is_top, os.fstat(fd).st_dev)

    def _rule(self, directory: _Directory, name: bytes, is_file: bool) -> Rule | None:
        if not directory.rules:
            return None
        rule = self._book.of_entry(directory.rules, name, is_file)
        if rule is not None and rule.kind is not None:
            self._linter.add(rule.kind, directory.child(name))
        return rule

    def _open(self, directory: _Directory, name: bytes, flags: int) -> int:
        try:
            return self._open_quietly(directory, name, flags)
        except OSError as error:
            if error.errno in _REPLACED:
                raise ReplacedError from error
            raise

    def _open_quietly(self, directory: _Directory, name: bytes, flags: int) -> int:
        try:
            return os.open(name, flags | self._noatime, dir_fd=directory.fd)
        except PermissionError:
            if not self._noatime:
                raise
            # O_NOATIME is for the owner and CAP_FOWNER only; do without it from here on.
            self._noatime = 0
            return os.open(name, flags, dir_fd=directory.fd)

    def _visit(
        self, directory: _Directory, name: bytes, entry: _Entry, path: bytes
    ) -> _Directory | tuple[T, int] | None:
        """Return the directory to go into next, or what is made of anything else; None when it is left out."""
        for _ in range(_VISITS):
            try:
                child = self._visit_directory(directory, name, entry, path)
                return self._visit_other(directory, name, entry, path) if child is None else child
            except ReplacedError:
                entry = _Found(os.stat(name, dir_fd=directory.fd, follow_symlinks=False).st_mode)
        self._notes.inexact.append(path)
        return None

    def _visit_directory(self, directory: _Directory, name: bytes, entry: _Entry, path: bytes) -> _Directory | None:
        """Return the directory to go into next, or None when the entry is none or is left out."""
        if not entry.is_dir(follow_symlinks=False):
            return None
        rule = self._rule(directory, name, False)
        if rule is not None and rule.action is Action.OMIT:
            return None
        if directory.is_top and name == _LOST_AND_FOUND:
            return None  # mkfs makes it anew
        _check_length(path)
        if path in self._boundaries.closed:
            return self._closed(directory, name, path)
        return self._descend(directory, name, path, is_hollow=rule is not None and rule.action is Action.HOLLOW)

    def _descend(self, directory: _Directory, name: bytes, path: bytes, *, is_hollow: bool) -> _Directory | None:
        """Return a directory of the tree, as what it turns out to be when it is open."""
        scope = directory.scope.enter(name) if directory.scope else None
        if self._linter.is_refused and scope is None:
            return None
        fd = self._open(directory, name, _OPEN | os.O_DIRECTORY)
        is_top, is_kept = path in self._boundaries.crossed, is_kept_snapshot(fd)
        if is_kept is None and is_top is (os.fstat(fd).st_dev == directory.device):
            os.close(fd)
            if is_top:
                raise CaptureError(f"what was mounted on /{os.fsdecode(path)} is no longer there", hint=_AGAIN)
            return self._closed(directory, name, path)  # mounted since the walk began
        if is_kept and not is_top:
            self._notes.snapshots.append(path)
            return self._enter(fd, path, None, is_hollow=True)
        return self._enter(fd, path, scope, is_top=is_top, is_hollow=is_hollow)

    def _closed(self, directory: _Directory, name: bytes, path: bytes) -> _Directory:
        """Return a directory whose content is not taken: what lies beneath the mount there."""
        self._notes.mount_points.append(path)
        fd = open_beneath_mount(directory.fd, name)
        fd = self._open(directory, name, _OPEN | os.O_DIRECTORY) if fd is None else fd
        return self._enter(fd, path, None, is_hollow=True)

    def _visit_other(self, directory: _Directory, name: bytes, entry: _Entry, path: bytes) -> tuple[T, int] | None:
        """Return what is made of anything but a directory, None when it is left out."""
        if entry.is_dir(follow_symlinks=False):
            return None
        is_file = entry.is_file(follow_symlinks=False)
        rule = self._rule(directory, name, is_file)
        if rule is not None and rule.action is Action.OMIT:
            return None
        _check_length(path)
        lint_rules = directory.scope.of_file(name) if directory.scope and is_file else ()
        if self._linter.is_refused and not lint_rules:
            return None
        if not is_file:
            made = self._maker.special(directory.fd, name, path)
            return None if made is None else (made, 0)
        fd = self._open(directory, name, _OPEN)
        try:
            if lint_rules:
                self._lint(fd, path, lint_rules)
                if self._linter.is_refused:
                    return None
            is_emptied = rule is not None and rule.action is Action.EMPTY
            return self._maker.file(fd, path, is_emptied=is_emptied)
        finally:
            os.close(fd)

    def _lint(self, fd: int, path: bytes, rules: tuple[LintRule, ...]) -> None:
        status = os.fstat(fd)
        require_file(status)
        wanted = self._linter.asks(rules, status.st_size)
        head = os.pread(fd, wanted, 0) if wanted else b""
        self._linter.judge(path, rules, status.st_size, min(status.st_size, status.st_blocks * 512), head)


def _check_length(path: bytes) -> None:
    if len(path) > MAX_PATH_BYTES:
        raise CaptureError(f"/{os.fsdecode(path[:200])}… has {len(path)} bytes, the most is {MAX_PATH_BYTES}")
