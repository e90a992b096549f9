"""How far long work is: a line redrawn on a terminal, a line every ten seconds elsewhere; always on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloner_cli.invocation import Invocation

SAY_EVERY_S = 10.0


@contextmanager
def showing(run: Invocation, what: str) -> Iterator[Callable[[str], None]]:
    """Give what is told how far the work `what` is: "120.0 MiB of 1.8 GiB"."""
    if run.world.is_live():
        from rich.console import Console

        with Console(stderr=True).status(what) as status:
            yield lambda text: status.update(f"{what}: {text}")
        return
    said_s = run.world.monotonic()

    def say(text: str) -> None:
        nonlocal said_s
        if run.world.monotonic() - said_s >= SAY_EVERY_S:
            said_s = run.world.monotonic()
            run.say(f"{what}: {text}")

    yield say
