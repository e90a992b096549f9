"""The rule book has something to do about every cause, and every command it names mends what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloner_core.mending import mending_line, remedy
from cloner_core.messages import Cause, Stage

DOCUMENT = (Path(__file__).parents[2] / "docs/failures.md").read_text()
# A retry keeps version and layout of the task, so what is wrong in one of them wants a new deploy.
WRONG_IN_IMAGE_OR_LAYOUT = {
    Cause.SIGNATURE,
    Cause.MISSING_PACK,
    Cause.NO_DISK,
    Cause.AMBIGUOUS_DISK,
    Cause.DISK_TOO_SMALL,
    Cause.FIRMWARE,
    Cause.TPM,
    Cause.LAYOUT,
    Cause.NO_SPACE,
    Cause.IDENTITY,
    Cause.NOT_BOOTABLE,
    Cause.SCRIPT,
}


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_one_line_that_mends_it(cause: Cause) -> None:
    for stage in (None, *Stage):
        line = mending_line(cause, stage, "node[01-02]")
        assert "\n" not in line
        assert re.search(r"; then: cloner (deploy|task retry) .*--nodes 'node\[01-02\]'$", line)
        assert len(remedy(cause, stage).do) > 20


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_row_in_the_document(cause: Cause) -> None:
    assert re.search(rf"^\| `{cause}` \|", DOCUMENT, re.MULTILINE)


def test_what_is_wrong_in_image_or_layout_is_deployed_anew() -> None:
    assert {cause for cause in Cause if remedy(cause).again == "deploy"} == WRONG_IN_IMAGE_OR_LAYOUT


def test_a_stage_that_tells_more_is_heard() -> None:
    assert remedy(Cause.NO_SPACE, Stage.BOOTFILES) != remedy(Cause.NO_SPACE, Stage.RESTORE)
    assert "ESP" in remedy(Cause.NO_SPACE, Stage.BOOTFILES).do
