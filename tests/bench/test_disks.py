"""Disks of benches lie in memory, which may not be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from benches.disks import make_disk


def test_a_disk_greater_than_the_memory_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with pytest.raises(SystemExit, match=r"MiB of memory are free, a disk of 1073741824 MiB"):
        make_disk(image, 1 << 50)
    assert not image.exists()
    make_disk(image, 1 << 20)
    assert image.stat().st_size == 1 << 20
