"""Which system is meant: the one there is, the one that names itself, the one that was named; else nobody guesses."""

from __future__ import annotations

import pytest

from cloner_core.messages import Cause
from cloner_core.refusals import PlanError
from cloner_core.roots import RootSeen, choose_root

ONE = RootSeen("/dev/vda3", "ext4", "aa-01", label="root", part_uuid="bb-01", system="Debian 12, host db01")
TWO = RootSeen("/dev/vdb1", "xfs", "aa-02", part_uuid="bb-02", system="Rocky 9, host old")
TOP = RootSeen("/dev/vdc1", "btrfs", "aa-03", subvolume="@", system="openSUSE")
SNAPSHOT = RootSeen("/dev/vdc1", "btrfs", "aa-03", subvolume="@/old", system="openSUSE", is_own=False)
CONTAINER = RootSeen("/dev/vdd1", "btrfs", "aa-04", subvolume="machines/web", system="Debian 12", is_own=False)


@pytest.mark.parametrize(
    ("found", "asked", "chosen"),
    [
        ((ONE,), "", ONE),
        ((ONE, TWO), "UUID=AA-02", TWO),
        ((ONE, TWO), "LABEL=root", ONE),
        ((ONE, TWO), 'PARTUUID="bb-02"', TWO),
        ((ONE, TWO), "/dev/vdb1", TWO),
        ((TOP, SNAPSHOT), "", TOP),
        ((CONTAINER, ONE), "", ONE),
        ((CONTAINER,), "", CONTAINER),
        ((ONE, TOP, SNAPSHOT), "UUID=aa-03", TOP),
    ],
)
def test_the_root_that_is_meant_is_chosen(found: tuple[RootSeen, ...], asked: str, chosen: RootSeen) -> None:
    assert choose_root(found, asked) == chosen


@pytest.mark.parametrize(
    ("found", "asked", "cause", "said"),
    [
        ((), "", Cause.NO_DISK, "no system lies on the disks of this node"),
        ((ONE, TWO), "", Cause.AMBIGUOUS_DISK, "2 systems lie on the disks"),
        (
            (ONE, TWO),
            "UUID=none",
            Cause.NO_DISK,
            "no system lies on UUID=none; there are:\n  - /dev/vda3, UUID=aa-01",
        ),
        ((ONE,), "LABEL=", Cause.NO_DISK, "no system lies on LABEL="),
        ((SNAPSHOT, CONTAINER), "", Cause.AMBIGUOUS_DISK, "(subvolume machines/web), UUID=aa-04: Debian 12"),
    ],
)
def test_nobody_guesses(found: tuple[RootSeen, ...], asked: str, cause: Cause, said: str) -> None:
    with pytest.raises(PlanError) as caught:
        choose_root(found, asked)
    assert caught.value.cause is cause
    assert said in caught.value.message
    assert caught.value.hint
