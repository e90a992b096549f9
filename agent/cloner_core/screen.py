"""The screen of a node at work: what a person sees over SSH, on the machine's own console and in a bundle.

Pure: values in, lines of plain text out, never wider or longer than asked. Whatever comes from outside (names, log
lines, messages) is stripped of all that a terminal would obey.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal

from cloner_core.messages import (
    DEPLOY_STAGES,
    DESTRUCTIVE_FROM,
    SCRIPT_STAGES,
    Failure,
    Progress,
    Stage,
    StageTime,
    Strict,
)
from cloner_core.sizes import format_bytes

WIDTHS, HEIGHTS = (20, 300), (4, 100)
"""A terminal may claim any size; what is drawn stays within these."""
LOG_LINES = 30
_TEXT_CHARACTERS = 2000
_CELL = 20  # columns of one stage
_ORDER = list(Stage)


class Link(Strict, frozen=True):
    """One network interface."""

    name: str
    has_carrier: bool
    addresses: tuple[str, ...] = ()


class Screen(Strict, frozen=True):
    """Everything the screen tells; times are of one monotonic clock."""

    started_s: float = 0.0
    stage_s: float = 0.0  # when the running stage began
    ended_s: float | None = None  # when it failed or restarted; None while at work
    doing: Literal["working", "failed", "holding", "restarting"] = "working"
    why: str = ""  # of a restart
    node: str = ""  # "" until the server has told the task
    image: str = ""
    layout: str = ""
    task: str = ""
    attempt: str = ""
    server: str = ""
    stage: Stage = Stage.HELLO
    done: tuple[StageTime, ...] = ()  # stages that are over
    progress: Progress | None = None  # of the running stage
    failure: Failure | None = None
    log: tuple[str, ...] = ()  # the last lines
    stages: tuple[Stage, ...] = DEPLOY_STAGES  # those of the task


def plain(text: str) -> str:
    """Return `text` on one line with every character that a terminal obeys, or that is not one column wide, as "?"."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_plain(character) else " " if character in "\n\t" else "?" for character in text)


def render(
    screen: Screen, links: Sequence[Link], *, now_s: float, width: int, height: int, foot: str = ""
) -> tuple[str, ...]:
    """Return the screen as at most `height` lines of at most `width` characters, both brought within bounds first.

    What matters most stays when there is little room: the head, then what runs or failed, stages, log, `foot`.
    """
    width, height = _within(width, WIDTHS), _within(height, HEIGHTS)
    head = _head(screen, links, now_s, width)
    work = _work(screen, width) if screen.failure is None else _failure(screen, screen.failure, width, height)
    stages = _stages(screen, now_s, width)
    if len(head) + 1 + len(work) > height:
        head = head[:1]
    lines = [*head, "", *work]
    if len(lines) + 1 + len(stages) <= height:
        lines = [*head, "", *stages, "", *work]
    room = height - len(lines) - (2 if foot else 0)
    if room >= 2 and screen.log:
        lines += ["", *(f"  {plain(line)}" for line in screen.log[-min(room - 1, LOG_LINES) :])]
    if foot and len(lines) + 2 <= height:
        lines += ["", foot]
    return tuple(_fit(line, width) for line in lines[:height])


def compact(screen: Screen, links: Sequence[Link], *, now_s: float) -> tuple[str, ...]:
    """Return the screen in three short lines, for a console that only ever gets longer (a serial line)."""
    marks = " ".join(f"{_mark(screen, stage)}{stage}" for stage in _shown_stages(screen))
    return tuple(_fit(line, WIDTHS[1]) for line in (_title(screen, now_s), marks, *map(_link, links[:2])))


def redrawn(lines: Sequence[str]) -> bytes:
    """Return what makes a terminal of any kind that knows ECMA-48 show `lines` and nothing else, without flicker."""
    return ("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines[:-1]) + f"{lines[-1]}\x1b[K\x1b[J").encode()


def _head(screen: Screen, links: Sequence[Link], now_s: float, width: int) -> list[str]:
    lines = [_title(screen, now_s)]
    what = [f"image {screen.image}", f"layout {screen.layout}"] if screen.image else []
    what += [f"task {screen.task}, attempt {screen.attempt}"] if screen.task else []
    lines += textwrap.wrap(plain("   ".join(what)), width) if what else ["waiting for the server to say what to do"]
    shown = [_link(link) for link in links[:3]] or ["no network interface"]
    shown += [f"server {screen.server}"] if screen.server else []
    lines += textwrap.wrap(plain("; ".join(shown)), width)
    if screen.failure is None:
        is_lost = _ORDER.index(screen.stage) >= _ORDER.index(DESTRUCTIVE_FROM)
        lines.append("disk: its old content is being replaced" if is_lost else "disk: nothing was changed on it so far")
    return lines


def _title(screen: Screen, now_s: float) -> str:
    elapsed = _seconds((screen.ended_s if screen.ended_s is not None else now_s) - screen.started_s)
    doing = f"{screen.doing}: {screen.why}" if screen.why else screen.doing
    return plain(f"Cloner  {screen.node or 'this machine'}  {doing}  {elapsed}")


def _link(link: Link) -> str:
    if not link.has_carrier:
        return plain(f"{link.name} NO LINK (cable, switch port)")
    return plain(f"{link.name} {', '.join(link.addresses) or 'link, no address'}")


def _stages(screen: Screen, now_s: float, width: int) -> list[str]:
    """Return the stages in columns, read downwards."""
    seconds = {one.stage: one.seconds for one in screen.done}
    if screen.failure is None or screen.failure.stage is screen.stage:
        seconds[screen.stage] = (screen.ended_s if screen.ended_s is not None else now_s) - screen.stage_s
    cells = []
    for stage in _shown_stages(screen):
        took = f" {_short(seconds[stage])}" if stage in seconds else ""
        cells.append(f"{_mark(screen, stage)} {stage}{took}"[: _CELL - 1].ljust(_CELL))
    columns = max(1, min(4, width // _CELL))
    rows = -(-len(cells) // columns)
    chunks = [cells[start : start + rows] for start in range(0, len(cells), rows)]
    return ["".join(row).rstrip() for row in zip_longest(*chunks, fillvalue="")]


def _shown_stages(screen: Screen) -> list[Stage]:
    return [stage for stage in screen.stages if stage not in SCRIPT_STAGES or _mark(screen, stage) != "."]


def _mark(screen: Screen, stage: Stage) -> str:
    failed = screen.failure.stage if screen.failure is not None else None
    if stage is failed:
        return "!"
    if stage is screen.stage and failed is None:
        return ">"
    return "+" if any(one.stage is stage for one in screen.done) else "."


def _work(screen: Screen, width: int) -> list[str]:
    progress = screen.progress
    if progress is None or progress.stage is not screen.stage:
        return [f"{screen.stage}"]
    words = [f"{progress.stage}"]
    if progress.total > 0:
        share = min(1.0, max(0.0, progress.done / progress.total))
        filled = int(share * (bar := max(4, min(40, width - len(progress.stage) - 10))))
        words.append(f"[{'#' * filled}{'.' * (bar - filled)}] {int(100 * share)} %")
    lines = [" ".join(words)]
    if figures := _figures(progress):
        lines.append(f"  {figures}")
    if progress.text:
        lines.append(f"  {plain(progress.text)}")
    return lines


def _figures(progress: Progress) -> str:
    """Return "180.0 MiB of 400.0 MiB, 12.3 MB/s, 18 s left"."""
    if progress.unit != "bytes":
        return f"step {progress.done + 1} of {progress.total}" if 0 <= progress.done < progress.total else ""
    words = [format_bytes(progress.done)]
    if progress.total > 0:
        words = [f"{words[0]} of {format_bytes(progress.total)}"]
    words.append(f"{progress.rate_per_s / 1e6:.1f} MB/s")
    if progress.total > progress.done and progress.rate_per_s > 0:
        words.append(f"{_seconds((progress.total - progress.done) / progress.rate_per_s)} left")
    return ", ".join(words)


def _failure(screen: Screen, failure: Failure, width: int, height: int) -> list[str]:
    lost = "the old content of the disk is lost" if failure.is_destroyed else "nothing on the disk was changed"
    lines = textwrap.wrap(f"FAILED in {failure.stage}: {failure.cause} ({lost})", width)
    for name, text in (("", failure.message), ("hint: ", failure.hint)):
        if text:
            wrapped = textwrap.wrap(plain(f"{name}{text[:_TEXT_CHARACTERS]}"), width - 2)
            lines += [f"  {line}" for line in wrapped[: max(2, height // 4)]]  # a long message leaves room for the hint
    if screen.doing == "holding":
        wait = "holding: nothing is touched until 'cloner task retry' or 'cloner deploy'"
        lines += textwrap.wrap(wait, width)
    return lines


def _seconds(seconds: float) -> str:
    """Return "45 s", "3 min 20 s" or "1 h 5 min"; what lasts for days says so in hours."""
    whole = int(min(max(0.0, seconds), 3.6e6))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole // 60 % 60} min"


def _short(seconds: float) -> str:
    """Return "45 s", "3m20s" or "1h05m", which fit beside the name of a stage."""
    whole = int(min(max(0.0, seconds), 3.6e6))
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h{whole // 60 % 60:02}m"


def _is_plain(character: str) -> bool:
    return (
        character.isprintable()
        and unicodedata.east_asian_width(character) not in "WF"
        and not unicodedata.category(character).startswith("M")
    )


def _fit(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}~"


def _within(value: int, bounds: tuple[int, int]) -> int:
    return min(max(value, bounds[0]), bounds[1])
