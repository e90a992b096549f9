"""The picture of a layout as SVG 1.1, for documents and browsers: no script, no font of its own, no outside reference.

What lies on several things is joined to each by a line that runs beneath the bars and down the right side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

import msgspec

from cloner_core.picturing.bars import Bar, Cell, Kind, Picture, least_widths

_LEFT, _TOP, _WIDTH = 24, 28, 880
_LINE, _PAD, _CHARACTER, _BOLD = 17, 9, 7.3, 1.15  # of text at 13 pixels, in the widest of usual fonts
_TITLE, _GAP, _LANE = 24, 20, 7
_LEAST, _POWER = 76.0, 0.4
_FILL: Final[dict[Kind, tuple[str, str]]] = {  # light enough for black text; told apart in grey as well by their words
    "esp": ("#fde7c3", "#c98a1b"),
    "boot": ("#fbf3c0", "#b09a1e"),
    "swap": ("#e6e2f3", "#7c6bb5"),
    "root": ("#cfe8d3", "#3f8f50"),
    "data": ("#d5e6f7", "#3d7ab8"),
    "raid": ("#f7d9d3", "#bb5340"),
    "lvm": ("#d6ecec", "#2f8688"),
    "kept": ("#e9e9e9", "#8a8a8a"),
    "none": ("#f7f7f7", "#a5a5a5"),
}
_JOINS: Final = ("#bb5340", "#2f8688", "#7c6bb5", "#b07d12", "#3d7ab8", "#3f8f50")
_STYLE: Final = (
    "text{font:13px system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;fill:#1c1c1c}"
    ".name{font-weight:600}.title{font-size:14px;font-weight:600}.told{fill:#5c5c5c}"
    ".head{font-size:18px;font-weight:600}"
)


class _Placed(msgspec.Struct, frozen=True):
    """A bar, and where it lies."""

    bar: Bar
    top: float  # of its cells
    height: float
    widths: tuple[float, ...]
    bottom: float  # of the lanes beneath it


def as_svg(picture: Picture) -> str:
    """Return `picture` as an SVG document."""
    bars = [bar for bar in picture.bars if bar.cells]
    columns = least_widths(bars, _needed)
    titles = ((len(bar.title) + len(bar.told) + 3) * _CHARACTER for bar in bars)
    width = max(_WIDTH, *(1.2 * sum(one) for one in columns), *titles)
    placed = _placed(bars, columns, width)
    joins = {key: lane for lane, key in enumerate(dict.fromkeys(c.carries for b in bars for c in b.cells if c.carries))}
    right = _LEFT + width
    full = right + _LEFT + _LANE * (len(joins) + 1)
    end = placed[-1].bottom if placed else _TOP + _TITLE
    height = end + _LINE * len(picture.below) + (_GAP if picture.below else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full:.0f} {height:.0f}" width="{full:.0f}"'
        f' height="{height:.0f}" role="img" aria-label="{_quoted(f"disk layout {picture.name}")}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{full:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        _text(_LEFT, _TOP, picture.name, "head"),
        *_lines(placed, joins, right),
        *(part for one in placed for part in _bar(one)),
        *(_text(_LEFT, end + _LINE * (at + 1), line, "told") for at, line in enumerate(picture.below)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _placed(bars: Sequence[Bar], columns: Sequence[Sequence[float]], width: float) -> list[_Placed]:
    found = []
    y = _TOP + 12.0
    for bar, least in zip(bars, columns, strict=True):
        top = y + _TITLE
        height = max(len(cell.lines) for cell in bar.cells) * _LINE + 2 * _PAD
        lanes = len({cell.carries for cell in bar.cells if cell.carries})
        bottom = top + height + _GAP + _LANE * lanes
        found.append(_Placed(bar, top, height, tuple(_widths(bar.cells, least, width)), bottom))
        y = bottom
    return found


def _widths(cells: Sequence[Cell], least: Sequence[float], width: float) -> list[float]:
    left = width - sum(least)
    shares = [cell.size_bytes**_POWER for cell in cells]
    return [one + left * share / sum(shares) for one, share in zip(least, shares, strict=True)]


def _needed(cell: Cell) -> float:
    name, *others = cell.lines
    return max(_LEAST, *(text * _CHARACTER + 2 * _PAD for text in (len(name) * _BOLD, *map(len, others))))


def _bar(placed: _Placed) -> Iterator[str]:
    title = placed.bar.title
    y = placed.top - 8
    yield (
        f'<text x="{_LEFT}" y="{y:.1f}"><tspan class="title">{escape(title)}</tspan>'
        f'<tspan class="told" dx="10">{escape(placed.bar.told)}</tspan></text>'
    )
    x = float(_LEFT)
    for cell, width in zip(placed.bar.cells, placed.widths, strict=True):
        fill, edge = _FILL[cell.kind]
        dashes = ' stroke-dasharray="5 3"' if cell.kind in ("kept", "none") else ""
        yield (
            f'<rect x="{x:.1f}" y="{placed.top:.1f}" width="{width:.1f}" height="{placed.height:.1f}"'
            f' fill="{fill}" stroke="{edge}" stroke-width="1.2"{dashes}/>'
        )
        if cell.is_locked:
            yield from _lock(x + width - 21, placed.top + 8, edge)
        for at, line in enumerate(cell.lines):
            yield _text(x + _PAD, placed.top + _PAD + _LINE * at + 13, line, "name" if at == 0 else "")
        x += width


def _lock(x: float, y: float, color: str) -> Iterator[str]:
    yield f'<rect x="{x:.1f}" y="{y + 6:.1f}" width="12" height="9" rx="1.5" fill="{color}"/>'
    yield (
        f'<path d="M{x + 2.5:.1f} {y + 6:.1f} v-2.5 a3.5 3.5 0 0 1 7 0 v2.5" fill="none" stroke="{color}"'
        ' stroke-width="1.6"/>'
    )


def _lines(placed: Sequence[_Placed], joins: Mapping[str, int], right: float) -> Iterator[str]:
    """Draw a line from each thing that carries a bar, beneath its own bar, to that bar."""
    targets = {one.bar.key: one for one in placed}
    for one in placed:
        here = list(dict.fromkeys(cell.carries for cell in one.bar.cells if cell.carries))
        x = float(_LEFT)
        for cell, width in zip(one.bar.cells, one.widths, strict=True):
            target = targets.get(cell.carries)
            if target is not None:
                color = _JOINS[joins[cell.carries] % len(_JOINS)]
                lane = one.top + one.height + 8 + _LANE * here.index(cell.carries)
                out = right + 10 + _LANE * joins[cell.carries]
                into = target.top + target.height / 2
                yield (
                    f'<path d="M{x + width / 2:.1f} {one.top + one.height:.1f} V{lane:.1f} H{out:.1f} V{into:.1f}'
                    f' H{right:.1f}" fill="none" stroke="{color}" stroke-width="1.6"/>'
                )
            x += width
    for key in joins:
        if key in targets:
            one = targets[key]
            middle = one.top + one.height / 2
            yield f'<path d="M{right + 7:.1f} {middle - 4:.1f} l-7 4 l7 4 z" fill="#555555"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}>{escape(text)}</text>'


def _quoted(text: str) -> str:
    return escape(text, {'"': "&quot;"})
