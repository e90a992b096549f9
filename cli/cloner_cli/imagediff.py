"""`cloner image-diff`: what one version has that another has not."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cloner_cli.api import LONG_S, Query, segment
from cloner_cli.checking import Checks
from cloner_cli.commands import command
from cloner_cli.invocation import Invocation
from cloner_cli.text import fields, moment, printable
from cloner_core.admin.differences import Difference, DiffSide, DirectorySize, ImageDiff, PathChange
from cloner_core.sizes import format_bytes

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "metadata": "m"}


@command("image-diff", example="cloner image-diff debian:3 debian:4")
@click.argument("before", metavar="IMAGE[:VERSION]")
@click.argument("after", metavar="IMAGE[:VERSION]")
def image_diff_command(run: Invocation, before: str, after: str) -> None:
    """Show what the second version has that the first has not: packages, kernels, files of /etc, sizes.

    A sign stands before each: + added, - removed, ~ changed, m only owner, mode or attributes. Packages are those of
    Debian's dpkg; lists of other package managers are named and not read. --json tells everything.
    """
    checks = Checks()
    (name, number), (other, other_number) = checks.image(before), checks.image(after)
    for image, version in ((name, number), (other, other_number)):
        checks.exist(run.api, image=image, version=version)
    checks.settle("nothing is compared")
    query: Query = {"number": number, "other": other, "other_number": other_number}
    # It reads both trees, which takes its time with millions of files.
    diff = run.api.get(f"/v1/images/{segment(name)}/diff", ImageDiff, query, within_s=LONG_S)
    run.result(diff, lambda: diff_text(diff))


def diff_text(diff: ImageDiff) -> str:
    """Return the difference as text."""
    parts = [_head(diff)]
    parts += _section("packages", [_named(each) for each in diff.packages])
    parts += _section("packages not read", [f"  {printable(text)}" for text in diff.unread])
    parts += _section("kernels", [_named(each) for each in diff.kernels])
    parts += _section("left out by the capture", [_named(each) for each in diff.left_out])
    more = [f"  and {diff.etc_more} more"] if diff.etc_more else []
    parts += _section("/etc", [*map(_changed, diff.etc), *more], count=len(diff.etc) + diff.etc_more)
    parts += _section("sizes", _sizes(diff.directories))
    return "\n".join(parts)


def _head(diff: ImageDiff) -> str:
    told = diff.counts
    counts = f"{told.added} added, {told.removed} removed, {told.changed} changed, {told.metadata} with other metadata"
    grown = diff.after.data_bytes - diff.before.data_bytes
    return fields(
        [
            ("before", _side(diff.before)),
            ("after", _side(diff.after)),
            ("paths", f"{counts}, {told.times} with another time only, {told.same} the same"),
            ("size", f"{_signed(grown)}; {format_bytes(diff.new_stored_bytes)} of packs that only the second needs"),
        ]
    )


def _side(side: DiffSide) -> str:
    listed = "" if side.packages is None else f", {side.packages} packages"
    system = f"{side.system}, " if side.system else ""
    size = f"{side.inodes} files, {format_bytes(side.data_bytes)}"
    return f"{side.image}:{side.number} of {moment(side.published_s)}: {system}{size}{listed}"


def _section(title: str, lines: Sequence[str], *, count: int | None = None) -> list[str]:
    return [f"\n{title}: {len(lines) if count is None else count}", *lines] if lines else []


def _named(each: Difference) -> str:
    if not each.before:
        text = f"  + {each.name}  {each.after}"
    elif not each.after:
        text = f"  - {each.name}  {each.before}"
    else:
        text = f"  ~ {each.name}  {each.before} → {each.after}"
    return printable(text)


def _changed(each: PathChange) -> str:
    return printable(f"  {_SIGNS.get(each.change, '?')} {each.path}{f'  {each.detail}' if each.detail else ''}")


def _sizes(directories: Sequence[DirectorySize]) -> list[str]:
    rows = [
        (_signed(each.after_bytes - each.before_bytes), format_bytes(each.after_bytes), printable(each.path))
        for each in directories
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    return [f"  {row[0].rjust(widths[0])}  to {row[1].rjust(widths[1])}  {row[2]}" for row in rows]


def _signed(size_bytes: int) -> str:
    return f"{'-' if size_bytes < 0 else '+'}{format_bytes(abs(size_bytes))}"
