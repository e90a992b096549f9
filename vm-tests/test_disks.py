"""A clone that boots from disks of its own layout, and looks from inside as the layout says; one of the matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import disks
from vmlab.variants import RAID1_LVM, VARIANTS

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(3000)]


def test_a_clone_boots_from_a_mirror_with_volumes_and_from_one_disk_of_it(tmp_path: Path) -> None:
    """Every kind of disk and layout: `./run soak disks`."""
    with disks.LAW.open(tmp_path) as case:
        figures = case(VARIANTS.index(RAID1_LVM))
    assert figures["variant"] == "raid1-lvm"
