"""Medians as a picture: SVG for the documents, bars side by side, no script and no font of its own."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from benches.report import ROOT, Run

_LEFT, _WIDTH, _BAR, _ROW, _HEAD = 24, 480, 16, 24, 44
_NAMES, _FIGURES = 110, 130
_STYLE = (
    "text{font:13px system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;fill:#1c1c1c}"
    ".title{font-weight:600}.head{font-size:16px;font-weight:600}.told{fill:#5c5c5c}"
)
_OURS, _THEIRS = "#3f8f50", "#9db8d2"

Panel = tuple[str, str, dict[str, float]]  # what, unit, who → how much


def panels_of(runs: Sequence[Run]) -> list[Panel]:
    """Return what is to be seen: for each discipline the time and the CPU time, and the sizes where there are any."""
    panels: list[Panel] = []
    for what in dict.fromkeys(run.what for run in runs):
        own = [run for run in runs if run.what == what]
        panels.append((f"{what}, time", "s", _medians(own, lambda run: run.wall_s)))
        panels.append((f"{what}, CPU time", "s", _medians(own, lambda run: run.user_s + run.system_s)))
        if any(run.stored_bytes for run in own):
            panels.append((f"{what}, stored", "MiB", _medians(own, lambda run: run.stored_bytes / (1 << 20))))
    return panels


def as_svg(title: str, panels: Sequence[Panel], ours: str) -> str:
    """Return the panels one beneath the other; the title says what is better where it is not less."""
    full = _LEFT * 2 + _NAMES + _WIDTH + _FIGURES
    parts: list[str] = []
    y = _HEAD
    for what, unit, values in panels:
        y += _ROW
        parts.append(f'<text x="{_LEFT}" y="{y}" class="title">{escape(what)}</text>')
        most = max(values.values()) or 1.0
        for who, value in values.items():
            y += _ROW
            length = max(_WIDTH * value / most, 1.0)
            colour = _OURS if who == ours else _THEIRS
            parts.append(f'<text x="{_LEFT}" y="{y}">{escape(who)}</text>')
            parts.append(
                f'<rect x="{_LEFT + _NAMES}" y="{y - 12}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>'
            )
            at = _LEFT + _NAMES + length + 8
            parts.append(f'<text x="{at:.1f}" y="{y}" class="told">{value:.1f} {unit}</text>')
        y += _ROW // 2
    height = y + _ROW
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full} {height}" width="{full}" height="{height}"'
            f' role="img" aria-label={quoteattr(title)}>',
            f"<style>{_STYLE}</style>",
            f'<rect width="{full}" height="{height}" fill="#ffffff"/>',
            f'<text x="{_LEFT}" y="28" class="head">{escape(title)}</text>',
            *parts,
            "</svg>",
            "",
        )
    )


def write_chart(name: str, title: str, runs: Sequence[Run], ours: str) -> Path:
    """Write the picture of a bench beside the documents and return its path."""
    return write_panels(name, title, panels_of(runs), ours)


def write_panels(name: str, title: str, panels: Sequence[Panel], ours: str) -> Path:
    """Write panels of one's own as the picture of a bench; return its path."""
    path = ROOT / "docs" / f"bench-{name}.svg"
    path.write_text(as_svg(title, panels, ours))
    return path


def _medians(runs: Sequence[Run], of: Callable[[Run], float]) -> dict[str, float]:
    return {
        who: statistics.median(of(run) for run in runs if run.who == who)
        for who in dict.fromkeys(run.who for run in runs)
    }
