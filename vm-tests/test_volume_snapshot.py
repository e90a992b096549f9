"""`--snapshot` of a system on LVM: seen as it was, whatever changes meanwhile, and gone afterwards."""

from __future__ import annotations

import pytest

from cloner_initramfs import Cache
from vmlab import Lab, blank_disk
from vmlab.disk import MIB
from vmlab.workbench import run_on_node

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


def test_volumes_are_seen_as_they_were_and_no_snapshot_stays(lab: Lab, cache: Cache) -> None:
    disk = blank_disk(lab.directory / "vda", 2600 * MIB, serial="GROUP")
    told = run_on_node(lab, cache, "volume_snapshot", (disk,), deadline_s=420)
    assert told["left"] == ["root", "snapshot", "snapshot", "srv"]
    assert told["during"] == told["left"], "those of the capture that was killed are gone, those of this one are there"
    assert (told["seen"], told["now"]) == (["before", "before"], ["after", "after"])
    assert (told["live"], told["troubles"]) == ([], [])
    assert told["after"] == ["root", "srv"]
