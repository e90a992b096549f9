"""Finding and replacing the files of a closed list in the clone."""

from __future__ import annotations

import fnmatch
import os
import stat

from cloner_agent.rooted import Rooted


def listed_files(tree: Rooted, patterns: tuple[str, ...]) -> list[str]:
    """Return the absolute paths of regular files in the clone that match; "*" stands for one name."""
    found: dict[str, None] = {}
    for pattern in patterns:
        for path in expand(tree, pattern):
            if _is_regular(tree, path):
                found[path] = None
    return list(found)


def expand(tree: Rooted, pattern: str) -> list[str]:
    """Return the absolute paths a pattern stands for; one without "*" stands for itself, there or not."""
    return _expand(tree, "", pattern.strip("/").split("/"))


def beneath(tree: Rooted, directory: str) -> list[str]:
    """Return everything beneath `directory`, what is in a directory before it; no link is followed."""
    found: list[str] = []
    waiting = [directory] if _is_directory(tree, directory) else []
    while waiting:
        here = waiting.pop()
        inside = [f"{here}/{os.fsdecode(name)}" for name in tree.listdir(here)]
        found += inside
        waiting += [path for path in inside if _is_directory(tree, path)]
    return found[::-1]


def replace_content(tree: Rooted, path: str, content: bytes) -> None:
    """Give an existing file other bytes and keep everything else of it: owner, mode, extended attributes."""
    fd = tree.open(path, os.O_WRONLY | os.O_TRUNC)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def _expand(tree: Rooted, base: str, parts: list[str]) -> list[str]:
    head, rest = parts[0], parts[1:]
    if "*" not in head:
        names = [head]
    elif tree.exists(base or "/") and stat.S_ISDIR(_status(tree, base or "/").st_mode):
        names = [name for name in map(os.fsdecode, tree.listdir(base)) if fnmatch.fnmatchcase(name, head)]
    else:
        names = []
    paths = [f"{base}/{name}" for name in names]
    return [found for path in paths for found in _expand(tree, path, rest)] if rest else paths


def _is_regular(tree: Rooted, path: str) -> bool:
    return tree.exists(path) and stat.S_ISREG(_status(tree, path).st_mode)


def _is_directory(tree: Rooted, path: str) -> bool:
    try:
        return stat.S_ISDIR(tree.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _status(tree: Rooted, path: str) -> os.stat_result:
    fd = tree.open(path, os.O_PATH)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
