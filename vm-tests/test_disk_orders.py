"""Three disks of one size: the one that is meant is written and boots, a former clone beside it stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import disk_orders

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

SEED = 13  # NVMe, the disk that is meant in the middle


def test_the_disk_that_is_meant_is_written_and_boots_and_the_others_keep_every_byte(tmp_path: Path) -> None:
    """All orders on all buses: `./run soak disk-orders`."""
    with disk_orders.open_disk_orders(tmp_path, "vm") as case:
        figures = case(SEED)
    assert (figures["bus"], figures["order"]) == ("nvme", "201")
