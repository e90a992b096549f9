"""What holds for every test: one that is told to end takes down what it has started."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import settings


def pytest_configure(config: pytest.Config) -> None:
    """Take SIGTERM for Ctrl-C: fixtures end, and no machine, namespace or mount outlives them.

    Python leaves both signals as they were, and of a job in the background a shell has SIGINT ignored.
    Examples have no deadline, as in hypothesis' profile `ci`: a busy machine is no fault of what is tested.
    """
    del config
    settings.register_profile("default", deadline=None)
    signal.signal(signal.SIGTERM, _interrupt)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the garbage collector off what was loaded: it stays, and looking through it takes a seventh of the time."""
    del session
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have captures of this very machine's command line keep their indexes out of its /var/lib."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLONER_INDEXES", str(tmp_path_factory.mktemp("indexes")))
        yield


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
