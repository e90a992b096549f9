"""Which rules may name an entry of a directory: a tree of patterns, walked along with the directories.

A directory that no pattern leads into costs nothing, however much is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from cloner_core.image.linting.rules import HOME_PATTERNS, PUBLIC_NAME, UNSEARCHED, LintRule

_HOME = b"~"
_ANY_DEPTH = b"**"
_WILD = frozenset(b"*?[")
# Homes that are none: of users who never log in, and of what is filled anew or shipped by packages.
_SYSTEM = (
    *(b"bin", b"boot", b"dev", b"lib", b"lib64", b"nonexistent", b"proc", b"run", b"sbin", b"sys", b"tmp", b"usr"),
    *(b"var/cache", b"var/empty", b"var/log", b"var/run", b"var/tmp"),
)


@dataclass(slots=True, eq=False)
class _Node:
    """A directory or name of some patterns, and what may come after it."""

    literal: dict[bytes, _Node] = field(default_factory=dict)
    suffixes: list[tuple[bytes, _Node]] = field(default_factory=list)  # "*.key", "*": most patterns, and the cheapest
    globs: list[tuple[bytes, _Node]] = field(default_factory=list)
    beside: list[_Node] = field(default_factory=list)  # where this is, these are as well
    rules: list[tuple[int, LintRule]] = field(default_factory=list)  # with their order
    is_deep: bool = False  # stays for every directory below
    is_unsearched: bool = False  # here what is deep ends

    @property
    def leads_on(self) -> bool:
        """Whether anything of a directory here matters."""
        return bool(self.literal or self.suffixes or self.globs or self.beside or self.is_unsearched)

    def following(self, name: bytes) -> Iterator[_Node]:
        """Give the nodes that `name` leads to."""
        if (node := self.literal.get(name)) is not None:
            yield node
        for suffix, node in self.suffixes:
            if name.endswith(suffix):
                yield node
        for pattern, node in self.globs:
            if fnmatchcase(name, pattern):
                yield node

    def child(self, part: bytes) -> _Node:
        """Return the node of the next component of a pattern, made where it is new."""
        if part == _ANY_DEPTH:
            deep = next((node for node in self.beside if node.is_deep), None)
            if deep is None:
                deep = _Node(is_deep=True)
                self.beside.append(deep)
            return deep
        if not _WILD.intersection(part):
            return self.literal.setdefault(part, _Node())
        is_suffix = part.startswith(b"*") and not _WILD.intersection(part[1:])
        listed, text = (self.suffixes, part[1:]) if is_suffix else (self.globs, part)
        known = next((node for pattern, node in listed if pattern == text), None)
        if known is None:
            known = _Node()
            listed.append((text, known))
        return known


@dataclass(frozen=True, slots=True)
class Scope:
    """What is known of one directory."""

    _nodes: tuple[_Node, ...]

    def enter(self, name: bytes) -> Scope | None:
        """Return the scope of the directory `name` in this one; None when nothing beneath it is looked at."""
        nodes = [follower for node in self._nodes for follower in node.following(name) if follower.leads_on]
        if not PUBLIC_NAME.match(name) and not any(node.is_unsearched for node in nodes):
            nodes += (node for node in self._nodes if node.is_deep)
        return Scope(_closure(nodes)) if nodes else None

    def of_file(self, name: bytes) -> tuple[LintRule, ...]:
        """Return the rules that name the file `name` of this directory, in the order in which they are asked."""
        found = {
            order: rule for node in self._nodes for follower in node.following(name) for order, rule in follower.rules
        }
        return tuple(rule for _, rule in sorted(found.items(), key=lambda item: item[0])) if found else ()


def literal(path: bytes) -> bytes:
    """Return the pattern that names `path` alone."""
    return re.sub(rb"([*?[])", rb"[\1]", path)


def top_scope(rules: Iterable[LintRule], homes: Iterable[bytes]) -> Scope:
    """Return the scope of the root of a tree; `homes` are home directories, beside /root and what is in /home."""
    top, home = _Node(), _Node()
    for order, rule in enumerate(rules):
        _at(top, home, rule.pattern).rules.append((order, rule))
    for pattern in UNSEARCHED:
        _at(top, home, pattern).is_unsearched = True
    for path in dict.fromkeys((*HOME_PATTERNS, *filter(_is_own, homes))):
        _at(top, home, path).beside.append(home)
    return Scope(_closure([top]))


def _is_own(home: bytes) -> bool:
    return bool(home) and not any((home + b"/").startswith(system + b"/") for system in _SYSTEM)


def _at(top: _Node, home: _Node, pattern: bytes) -> _Node:
    first, *rest = pattern.split(b"/")
    node = home if first == _HOME else top.child(first)
    for part in rest:
        node = node.child(part)
    return node


def _closure(nodes: Iterable[_Node]) -> tuple[_Node, ...]:
    found: dict[_Node, None] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            waiting += node.beside
    return tuple(found)
