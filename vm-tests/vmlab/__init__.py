"""The lab: virtual machines, their network namespace and their golden trees, for tests and the demo."""

from __future__ import annotations

from vmlab.disk import Bus, Disk, blank_disk
from vmlab.errors import LabError, MarkerMissing
from vmlab.firmware import Firmware
from vmlab.lab import SERVER_ADDRESS, Lab
from vmlab.machine import DirectBoot, Machine, Nic, Vm

__all__ = [
    "SERVER_ADDRESS",
    "Bus",
    "DirectBoot",
    "Disk",
    "Firmware",
    "Lab",
    "LabError",
    "Machine",
    "MarkerMissing",
    "Nic",
    "Vm",
    "blank_disk",
]
