"""Clones that boot from disks and layouts of every kind, and look from inside as the layout says; a sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import disks
from vmlab.variants import BTRFS, RAID1_LVM, VARIANTS, Variant

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.mark.parametrize("variant", [RAID1_LVM, BTRFS], ids=lambda variant: variant.name)
def test_a_clone_boots_from_its_own_disks_and_is_what_its_layout_says(tmp_path: Path, variant: Variant) -> None:
    """All of them: `./run soak disks`."""
    with disks.LAW.open(tmp_path) as case:
        case(VARIANTS.index(variant))
