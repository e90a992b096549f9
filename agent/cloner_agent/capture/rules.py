"""What a capture leaves out, and how: rules anchored at the root of the tree, found by directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from cloner_core.errors import InvalidError
from cloner_core.image.linting.kinds import LintKind
from cloner_core.image.options import exclude_fault


class Action(Enum):
    """What becomes of an entry a rule names."""

    OMIT = "left out"
    EMPTY = "kept as an empty file"
    HOLLOW = "directory kept, content left out"


@dataclass(frozen=True, slots=True)
class Rule:
    """One path from the root, no leading slash; `*`, `?` and `[…]` match within a component."""

    path: bytes
    action: Action
    why: str
    files_only: bool = False  # a link or directory of that name is kept as it is
    kind: LintKind | None = None  # what the lint calls what it took away; None: nothing is told

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The components of the path."""
        return tuple(self.path.split(b"/"))


_VOLATILE = "filled anew at each boot"
_OURS = "the keys and the store of a server of ours, or the secret of a clone that has not called yet"
DEFAULTS = (
    *(Rule(path, Action.HOLLOW, _VOLATILE) for path in (b"proc", b"run", b"sys", b"tmp")),
    Rule(b"var/lib/cloner", Action.HOLLOW, _OURS),
    Rule(b"var/lib/cloner-node", Action.OMIT, "what this machine remembers of its captures"),
)


def parse_excludes(excludes: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules of `--exclude`, each an absolute path or pattern; raises InvalidError naming every fault."""
    rules: list[Rule] = []
    faults: list[str] = []
    for text in excludes:
        if fault := exclude_fault(text):
            faults.append(fault)
        else:
            path = text.encode(errors="surrogateescape").strip(b"/")
            rules.append(Rule(path, Action.OMIT, "excluded by the command"))
    if faults:
        raise InvalidError("these excludes cannot be used", faults=faults)
    return tuple(rules)


@dataclass(slots=True)
class RuleBook:
    """All rules of one capture, and which of them were ever needed."""

    rules: tuple[Rule, ...]
    used: set[Rule] = field(default_factory=set)
    _by_depth: dict[int, list[tuple[tuple[bytes, ...], Rule]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rule in self.rules:
            parts = rule.parts
            self._by_depth.setdefault(len(parts) - 1, []).append((parts, rule))

    def of_directory(self, path: bytes) -> list[tuple[bytes, Rule]]:
        """Return (pattern of the name, rule) of each rule that may name an entry of the directory `path`."""
        components = path.split(b"/") if path else []
        candidates = self._by_depth.get(len(components), ())
        return [
            (parts[-1], rule)
            for parts, rule in candidates
            if all(fnmatchcase(seen, part) for seen, part in zip(components, parts, strict=False))
        ]

    def of_entry(self, rules: list[tuple[bytes, Rule]], name: bytes, is_file: bool) -> Rule | None:
        """Return the rule among those of its directory that names this entry, if one does."""
        for pattern, rule in rules:
            if fnmatchcase(name, pattern) and (is_file or not rule.files_only):
                self.used.add(rule)
                return rule
        return None
