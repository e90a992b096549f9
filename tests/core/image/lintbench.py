"""A tree that is only names and bytes, walked by the linter as a capture does."""

from __future__ import annotations

from collections.abc import Mapping

from cloner_core.image.linting.finding import Finding
from cloner_core.image.linting.linter import PRELUDE, Linter
from cloner_core.image.linting.scopes import Scope
from cloner_core.layout import Layout


def walked(
    files: Mapping[str, bytes],
    *,
    sizes: Mapping[str, int] | None = None,
    layout: Layout | None = None,
    allow_secrets: bool = True,
) -> Linter:
    """Return a linter that saw `files`; of those in `sizes` their content is only the beginning."""
    prelude = {path: files[path] for path in PRELUDE if path in files}
    linter = Linter(prelude, layout=layout, allow_secrets=allow_secrets)
    for path, content in sorted(files.items()):
        *folders, name = path.encode().split(b"/")
        scope: Scope | None = linter.top
        for folder in folders:
            scope = scope.enter(folder) if scope else None
        rules = scope.of_file(name) if scope else ()
        if rules:
            size = (sizes or {}).get(path, len(content))
            head = content[: linter.asks(rules, size)]
            linter.judge(path.encode(), rules, size, size, head)
    return linter


def found(files: Mapping[str, bytes], sizes: Mapping[str, int] | None = None) -> dict[str, list[str]]:
    """Return the paths of each kind that is found in `files`."""
    return {one.kind: [place.path for place in one.places] for one in walked(files, sizes=sizes).findings()}


def only(files: Mapping[str, bytes], kind: str) -> Finding:
    """Return the finding of `kind`, which must be there."""
    return next(finding for finding in walked(files).findings() if finding.kind == kind)
