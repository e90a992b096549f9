"""The linter: takes what a walk sees, gives findings. Opens nothing: the walk reads what a rule asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cloner_core.bootneeds import hostonly
from cloner_core.errors import RefusedError
from cloner_core.image.linting import kinds
from cloner_core.image.linting.finding import PLACES_MOST, Finding, Grade, Place
from cloner_core.image.linting.kinds import KINDS, LintKind
from cloner_core.image.linting.readers import crypttab_keys, fstab_credentials, home_directories
from cloner_core.image.linting.resuming import stale_resumes, swaps_of
from cloner_core.image.linting.rules import RULES, LintRule
from cloner_core.image.linting.scopes import literal, top_scope
from cloner_core.layout import Layout
from cloner_core.sizes import MIB, format_bytes

PRELUDE = ("etc/passwd", "etc/fstab", "etc/crypttab")
"""Files that say where else to look; read before the walk."""

_GATHERED_BYTES = 8 * MIB  # in all; a hostile tree may have any number of drop-ins
_TEXT = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # a line of a list must stay one


class SecretsError(RefusedError):
    """The tree holds secrets that nobody allowed; nothing was published."""


@dataclass(slots=True)
class _Seen:
    count: int = 0
    data_bytes: int = 0
    places: list[Place] = field(default_factory=list)


class Linter:
    """One lint of one tree."""

    def __init__(
        self, prelude: Mapping[str, bytes], *, layout: Layout | None = None, allow_secrets: bool = False
    ) -> None:
        """Take the files of PRELUDE that exist, the layout of clones (None: unknown), whether secrets may go in."""
        fstab = prelude.get("etc/fstab", b"")
        named = [LintRule(literal(path), kinds.DISK_KEY) for path in crypttab_keys(prelude.get("etc/crypttab", b""))]
        named += [LintRule(literal(path), kinds.CREDENTIALS) for path in fstab_credentials(fstab)]
        homes = [literal(path) for path in home_directories(prelude.get("etc/passwd", b""))]
        self.top = top_scope((*named, *RULES), homes)
        self._swaps = swaps_of(fstab, layout)
        self._allow_secrets = allow_secrets
        self.is_refused = False  # a secret was found that nobody allowed: nothing of the tree will be published
        self._seen: dict[LintKind, _Seen] = {}
        self._gathered: dict[LintKind, dict[bytes, bytes]] = {}
        self._gathered_bytes = 0

    def asks(self, rules: tuple[LintRule, ...], size_bytes: int) -> int:
        """Return how many bytes of the start of a file of this size the `rules` of its scope want to see; often 0."""
        wanted = (rule.read_bytes for rule in rules if _is_read(rule) and 0 < size_bytes <= rule.most_bytes)
        return min(size_bytes, max(wanted, default=0))

    def judge(self, path: bytes, rules: tuple[LintRule, ...], size_bytes: int, stored_bytes: int, head: bytes) -> None:
        """Take a file: its path, the rules of its scope, its size, the room it takes, and the bytes `asks` wanted."""
        is_settled = False
        for rule in rules:
            if rule.is_gathered:
                self._gather(rule.kind, path, head if 0 < size_bytes <= rule.most_bytes else b"")
                continue
            if is_settled and not rule.is_beside:
                continue
            seen = _judged(rule, size_bytes, stored_bytes, head)
            if seen is not None:
                self.add(rule.kind, path, seen, stored_bytes)
                is_settled = is_settled or not rule.is_beside

    def add(self, kind: LintKind, path: bytes, seen: str = "", data_bytes: int = 0) -> None:
        """Take one place of a kind: what was left out, or what a rule found."""
        if kind.grade is Grade.SECRET and not self._allow_secrets:
            self.is_refused = True
        noted = self._seen.setdefault(kind, _Seen())
        noted.count += 1
        noted.data_bytes += data_bytes
        if len(noted.places) < PLACES_MOST:
            noted.places.append(Place(_shown(path), seen))

    def findings(self) -> tuple[Finding, ...]:
        """Return everything found, by grade and kind; the walk is over."""
        self._conclude()
        return tuple(
            Finding(kind.name, kind.grade, kind.advice, seen.count, seen.data_bytes, tuple(seen.places))
            for kind in KINDS
            if (seen := self._seen.get(kind)) and seen.data_bytes >= kind.least_bytes
        )

    def require_no_secrets(self) -> None:
        """Raise SecretsError that names every secret, unless there is none or they are allowed."""
        if self.is_refused:
            raise refusal([finding for finding in self.findings() if finding.grade is Grade.SECRET])

    def _gather(self, kind: LintKind, path: bytes, content: bytes) -> None:
        self._gathered_bytes += len(content)
        if content and self._gathered_bytes <= _GATHERED_BYTES:
            self._gathered.setdefault(kind, {})[path] = content

    def _conclude(self) -> None:
        """Judge what only several files tell together; once."""
        gathered, self._gathered = self._gathered, {}
        texts = {f"/{path.decode(errors='replace')}": text for path, text in gathered.get(kinds.HOSTONLY, {}).items()}
        if named := hostonly(texts):
            self.add(kinds.HOSTONLY, named.encode())
        for path, text in gathered.get(kinds.STALE_RESUME, {}).items():
            if stale := ", ".join(dict.fromkeys(stale_resumes(text, self._swaps))):
                self.add(kinds.STALE_RESUME, path, stale[:_TEXT])


def refusal(secrets: list[Finding]) -> SecretsError:
    """Return the error that names every place of `secrets`."""
    lines = []
    for finding in secrets:
        lines += [f"{text}: {finding.advice}" for text in place_lines(finding)]
    count = sum(finding.count for finding in secrets)
    files = "1 file holds a secret" if count == 1 else f"{count} files hold secrets"
    return SecretsError(
        "\n  - ".join((f"{files} that every clone would share; nothing was published", *lines)),
        hint="remove them from the golden node, leave them out by --exclude-paths, or take them by --allow-secrets",
    )


def place_lines(finding: Finding) -> Iterator[str]:
    """Give a line for each place of `finding`: its path, the kind, what was seen there."""
    for place in finding.places:
        yield f"{place.path}: {finding.kind}" + (f" ({place.seen})" if place.seen else "")
    if more := finding.count - len(finding.places):
        yield f"{more} more: {finding.kind}"


def _is_read(rule: LintRule) -> bool:
    return rule.reader is not None or rule.is_gathered


def _judged(rule: LintRule, size_bytes: int, stored_bytes: int, head: bytes) -> str | None:
    """Return what `rule` sees in a file, None when it is no finding."""
    if size_bytes < 1 or stored_bytes < rule.least_bytes:
        return None
    seen: str | None = rule.says
    if rule.reader is not None:
        seen = rule.reader(head[: rule.read_bytes]) if size_bytes <= rule.most_bytes else None
    if seen is not None and rule.is_weight:
        return f"{seen}, {format_bytes(stored_bytes)}" if seen else format_bytes(stored_bytes)
    return seen


def _shown(path: bytes) -> str:
    text = "/" + path.lstrip(b"/").decode(errors="backslashreplace")
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
