"""Every way to fail gets a cause of the closed vocabulary, and a hint."""

from __future__ import annotations

import errno
import pickle

import msgspec
import pytest

from cloner_agent.failures import AbortError, StageError, cause_of, failure_of, is_destructive
from cloner_agent.host import ToolError
from cloner_agent.protocol import ServerFault
from cloner_agent.restore.errors import failed
from cloner_core.errors import ClonerError, IntegrityError, UnreachableError
from cloner_core.mending import remedy
from cloner_core.messages import Cause, Fault, Stage
from cloner_core.plan import PlanError


@pytest.mark.parametrize(
    ("error", "stage", "cause"),
    [
        (StageError(Cause.SIGNATURE, "x"), Stage.VERIFY, Cause.SIGNATURE),
        (PlanError(Cause.NO_DISK, "x"), Stage.PLAN, Cause.NO_DISK),
        (AbortError(""), Stage.RESTORE, Cause.ABORTED),
        (ToolError(("mkfs.ext4",), 1, "/dev/vda2: Device or resource busy"), Stage.MKFS, Cause.DEVICE_BUSY),
        (ToolError(("mkfs.ext4",), 1, "Input/output error while writing"), Stage.MKFS, Cause.DISK_IO),
        (ToolError(("sfdisk",), 1, "what?"), Stage.PARTITION, Cause.TOOL),
        (IntegrityError("x"), Stage.RESTORE, Cause.CORRUPT),
        (IntegrityError("x"), Stage.READBACK, Cause.READBACK),
        (UnreachableError("x"), Stage.RESTORE, Cause.NETWORK),
        (ServerFault(409, Fault(error="no")), Stage.COMMIT, Cause.REFUSED),
        (OSError(errno.EIO, "x"), Stage.RESTORE, Cause.DISK_IO),
        (OSError(errno.ENOSPC, "x"), Stage.RESTORE, Cause.NO_SPACE),
        (OSError(errno.ENOENT, "x"), Stage.CHECK, Cause.NOT_BOOTABLE),
        (MemoryError(), Stage.RESTORE, Cause.MEMORY),
        (ClonerError("x"), Stage.IDENTITY, Cause.IDENTITY),
        (KeyError("x"), Stage.IDENTITY, Cause.INTERNAL),
    ],
    ids=lambda value: getattr(value, "value", type(value).__name__),
)
def test_an_exception_becomes_a_cause(error: BaseException, stage: Stage, cause: Cause) -> None:
    assert cause_of(error, stage) is cause


def test_the_cause_of_a_wrapped_system_error_is_seen() -> None:
    error = ClonerError("writing failed")
    error.__cause__ = OSError(errno.EIO, "x")
    assert cause_of(error, Stage.RESTORE) is Cause.DISK_IO


@pytest.mark.parametrize(
    ("number", "cause"), [(errno.EIO, Cause.DISK_IO), (errno.ENOSPC, Cause.NO_SPACE), (errno.EROFS, Cause.DISK_IO)]
)
def test_the_error_number_of_a_restore_survives_the_pipe_of_its_worker(number: int, cause: Cause) -> None:
    error = pickle.loads(pickle.dumps(failed("write", b"a name that ends in ENOENT", OSError(number, "x"))))
    assert (cause_of(error, Stage.RESTORE), error.errno) == (cause, number)


def test_a_path_that_looks_like_an_error_number_is_not_taken_for_one() -> None:
    assert cause_of(ClonerError("cannot find /srv/ ENOSPC"), Stage.RESTORE) is Cause.INTERNAL


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_hint(cause: Cause) -> None:
    assert failure_of(StageError(cause, "x"), Stage.PLAN, is_destroyed=False).hint


def test_the_hint_of_the_raiser_wins() -> None:
    failure = failure_of(StageError(Cause.NO_DISK, "x", hint="look there"), Stage.PLAN, is_destroyed=False)
    assert failure.hint == "look there"


def test_a_failure_over_a_name_that_is_no_utf8_can_be_sent() -> None:
    error = failed("write", b"srv/M\xfcller", OSError(errno.ENOSPC, "No space left on device"))
    sent = msgspec.json.encode(failure_of(error, Stage.RESTORE, is_destroyed=True))
    assert rb"srv/M\\udcfcller" in sent


def test_a_mistake_of_ours_is_called_one() -> None:
    failure = failure_of(KeyError("x"), Stage.MKFS, is_destroyed=True)
    assert failure.cause is Cause.INTERNAL
    assert "KeyError" in failure.message


def test_partitioning_is_the_first_stage_that_destroys() -> None:
    assert not is_destructive(Stage.GUARD)
    assert is_destructive(Stage.PARTITION)
    assert is_destructive(Stage.REBOOT)


def test_what_the_rule_book_knows_of_a_program_s_error_goes_before_a_look_at_the_log() -> None:
    error = ToolError(("mkfs.ext4", "/dev/vda3"), 1, "mkfs.ext4: Input/output error")
    assert failure_of(error, Stage.MKFS, is_destroyed=True).hint == remedy(Cause.DISK_IO).do
    unnamed = ToolError(("sfdisk", "/dev/vda"), 1, "no reason")
    assert "log" in failure_of(unnamed, Stage.MKFS, is_destroyed=True).hint


def test_the_stage_makes_a_hint_better() -> None:
    failure = failure_of(StageError(Cause.NO_DISK, "gone"), Stage.GUARD, is_destroyed=False)
    assert failure.hint == remedy(Cause.NO_DISK, Stage.GUARD).do != remedy(Cause.NO_DISK).do
