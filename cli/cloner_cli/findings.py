"""What the lint of a capture found, as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloner_core.image.linting.finding import Finding, Grade
from cloner_core.sizes import format_bytes

_PATHS_SHOWN = 5
_LEADS = {
    Grade.IDENTITY: "left out or emptied, as identity of this machine",
    Grade.SECRET: "a secret, and in the image because --allow-secrets was said",
    Grade.ADVICE: "",
}


def finding_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Give a line for each kind that was found: its paths, and what to do about it; identity in a line of its own."""
    identity = []
    for finding in findings:
        if finding.grade is Grade.IDENTITY:
            identity.append(finding)
            continue
        lead = f"{_LEADS[finding.grade]}: " if _LEADS[finding.grade] else ""
        yield f"note: {finding.kind}: {lead}{_paths([finding])}: {finding.advice}"
    if identity:
        count = sum(finding.count for finding in identity)
        yield f"note: {count} files {_LEADS[Grade.IDENTITY]}: {_paths(identity)}"


def details(findings: Iterable[Finding]) -> Iterator[str]:
    """Give every path that is kept of every kind, under a line for the kind."""
    for finding in findings:
        size = f", {format_bytes(finding.data_bytes)}" if finding.data_bytes else ""
        yield f"{finding.grade} {finding.kind}: {finding.count}{size}; {finding.advice}"
        yield from (f"  {place.path}" + (f" ({place.seen})" if place.seen else "") for place in finding.places)
        if more := finding.count - len(finding.places):
            yield f"  … and {more} more"


def _paths(findings: list[Finding]) -> str:
    places = [place for finding in findings for place in finding.places]
    shown = [place.path + (f" ({place.seen})" if place.seen else "") for place in places[:_PATHS_SHOWN]]
    more = sum(finding.count for finding in findings) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
