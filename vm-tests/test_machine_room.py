"""Laws that share a server and a clean clone: power cut in a deploy, the right one of three disks, a broken sector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from soak.laws import disk_errors, disk_orders, power_cut
from soak.machine_room import MachineRoom
from vmlab import Lab
from vmlab.disk import MIB

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

CUT_SEED = 284  # a blank disk, in the middle of the restore
ORDER_SEED = 13  # NVMe, the disk that is meant in the middle
BROKEN_SEED = 20  # a read


@pytest.fixture(scope="module")
def room() -> Iterator[MachineRoom]:
    """A server with the image; its logs stay when a case fails."""
    with Lab(title="machine-room") as lab:
        yield MachineRoom(lab)


@pytest.fixture(scope="module")
def clone(room: MachineRoom) -> Path:
    """The disk of a machine that was cloned in the room."""
    return room.clone()


def test_a_node_whose_power_is_cut_comes_to_a_whole_confirmed_clone_by_itself(room: MachineRoom) -> None:
    """A disk that loses what was not flushed. At length: `./run soak power-cut`."""
    figures = power_cut.case_in(room)(CUT_SEED)
    print(figures)
    assert (figures["begins"], figures["chosen"]) == ("blank", "restore")
    assert figures["state at cut"] == "running"
    assert figures["attempts after"] == 1


def test_the_disk_that_is_meant_is_written_and_boots_and_the_others_keep_every_byte(
    room: MachineRoom, clone: Path
) -> None:
    """A former clone beside it. All orders on all buses: `./run soak disk-orders`."""
    figures = disk_orders.case_in(room, clone)(ORDER_SEED)
    assert (figures["bus"], figures["order"]) == ("nvme", "201")


def test_a_sector_that_cannot_be_read_fails_the_task_and_is_named(room: MachineRoom, clone: Path) -> None:
    """In the content of a file, which each deploy reads back. Anywhere: `./run soak disk-errors`."""
    figures = disk_errors.case_in(room, clone, least_bytes=MIB)(BROKEN_SEED)
    print(figures)
    assert figures["operation"] == "read"
