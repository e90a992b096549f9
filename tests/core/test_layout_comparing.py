"""What differs between two layouts is told by its place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloner_core.layout import Selector, Size, layout_differences
from cloner_core.sizes import GIB, MIB
from core.machines import layout


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"swap": 2 * GIB}, ["disks[system].partitions[1].size: 1GiB becomes 2GiB"], id="a size"),
        pytest.param({"select": Selector(bus="nvme")}, ["disks[system].select.bus: nvme is new"], id="a new field"),
        pytest.param(
            {"root": Size(MIB, max_bytes=GIB, weight=1)},
            ['disks[system].partitions[2].size: rest becomes {"min":"1MiB","max":"1GiB","weight":1}'],
            id="another kind",
        ),
    ],
)
def test_a_difference_names_its_place(changes: dict[str, Any], wanted: list[str]) -> None:
    assert list(layout_differences(layout(), layout(**changes))) == wanted


def test_the_name_of_a_layout_is_no_difference() -> None:
    assert layout_differences(layout(), msgspec.structs.replace(layout(), name="other")) == ()


def test_disks_are_told_by_their_names() -> None:
    one = layout()
    other = msgspec.structs.replace(one, disks=(msgspec.structs.replace(one.disks[0], id="first"),))
    gone, new = layout_differences(one, other)
    assert (gone.split(": ")[0], gone.endswith(" is gone")) == ("disks[system]", True)
    assert (new.split(": ")[0], new.endswith(" is new")) == ("disks[first]", True)
