"""How far long work is: a line redrawn on a terminal, a line every ten seconds elsewhere; always on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloner_cli.invocation import Invocation

SAY_EVERY_S = 10.0
_DRAW_EVERY_S = 0.1


@contextmanager
def showing(run: Invocation, what: str) -> Iterator[Callable[[str], None]]:
    """Give what is told how far the work `what` is: "120.0 MiB of 1.8 GiB". Starts no thread: the work may fork."""
    if run.world.is_live():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        # Not Console.status(): its thread may hold a lock of stderr when a worker is forked, which then never ends.
        with Live(Text(what), console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            yield _at_most(run, _DRAW_EVERY_S, lambda text: live.update(Text(f"{what}: {text}"), refresh=True))
        return
    yield _at_most(run, SAY_EVERY_S, lambda text: run.say(f"{what}: {text}"))


def _at_most(run: Invocation, every_s: float, tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells only when `every_s` have passed since it did, or since now."""
    told_s = run.world.monotonic()

    def told(text: str) -> None:
        nonlocal told_s
        if run.world.monotonic() - told_s >= every_s:
            told_s = run.world.monotonic()
            tell(text)

    return told
