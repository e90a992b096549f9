"""The picture of a layout in characters, for terminals and for mail."""

from __future__ import annotations

from collections.abc import Sequence

from cloner_core.picturing.bars import Cell, Picture, least_widths

_LEAST, _POWER = 10, 0.4  # columns of a cell; shares are evened out, so that an esp beside a terabyte is seen

_Measured = tuple[Cell, int]
"""A cell, and the columns it needs."""


def as_text(picture: Picture, width: int = 100) -> str:
    """Return `picture` in lines of at most `width` columns where the names allow it."""
    lines = [picture.name]
    for bar, least in zip(picture.bars, least_widths(picture.bars, _needed), strict=True):
        lines += ["", f"{bar.title}: {bar.told}"]
        for row in _rows(list(zip(bar.cells, map(int, least), strict=True)), width):
            lines += _drawn([cell for cell, _ in row], [one for _, one in row], width)
    if picture.below:
        lines += ["", *picture.below]
    return "\n".join(lines)


def _rows(cells: Sequence[_Measured], width: int) -> list[list[_Measured]]:
    """Part the cells of a bar so that each row fits."""
    rows: list[list[_Measured]] = [[]]
    for cell, least in cells:
        if rows[-1] and sum(one + 1 for _, one in rows[-1]) + least + 2 > width:
            rows.append([])
        rows[-1].append((cell, least))
    return rows


def _drawn(cells: Sequence[Cell], least: Sequence[int], width: int) -> list[str]:
    widths = _widths(cells, least, width)
    height = max(len(cell.lines) for cell in cells)
    edge = ["─" * one for one in widths]
    body = [
        "│" + "│".join(f" {_line(cell, at)}".ljust(one) for cell, one in zip(cells, widths, strict=True)) + "│"
        for at in range(height)
    ]
    return [f"┌{'┬'.join(edge)}┐", *body, f"└{'┴'.join(edge)}┘"]


def _widths(cells: Sequence[Cell], least: Sequence[int], width: int) -> list[int]:
    left = max(width - len(cells) - 1 - sum(least), 0)
    shares = [cell.size_bytes**_POWER for cell in cells]
    total = sum(shares)
    extra = [int(left * share / total) for share in shares]
    extra[shares.index(max(shares))] += left - sum(extra)
    return [one + more for one, more in zip(least, extra, strict=True)]


def _needed(cell: Cell) -> int:
    return max(_LEAST, *(len(line) + 2 for line in cell.lines))


def _line(cell: Cell, at: int) -> str:
    return cell.lines[at] if at < len(cell.lines) else ""
