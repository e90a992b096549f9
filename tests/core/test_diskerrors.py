"""What kernels log of failing disks, and what smartctl tells, as a person needs it: device, offset, health."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.diskerrors import DiskError, disk_of, find_disk_errors, smart_summary

DISKS = ("/dev/vda", "/dev/nvme0n1", "/dev/loop0")

LINES = [
    (
        "I/O error, dev vda, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
        DiskError("/dev/vda", 1 << 20, "I/O", "write"),
    ),
    ("blk_update_request: I/O error, dev vda, sector 8 op 0x0:(READ)", DiskError("/dev/vda", 4096, "I/O", "read")),
    ("print_req_error: I/O error, dev vda, sector 8", DiskError("/dev/vda", 4096, "I/O", "")),
    (
        "critical medium error, dev nvme0n1, sector 1 op 0x9:(WRITE_ZEROES) flags 0x0",
        DiskError("/dev/nvme0n1", 512, "critical medium", "write zeroes"),
    ),
    (
        "Buffer I/O error on dev nvme0n1p3, logical block 33, lost async page write",
        DiskError("/dev/nvme0n1", None, "I/O", ""),
    ),
]


@pytest.mark.parametrize(("line", "error"), LINES)
def test_an_error_of_a_disk_has_its_place(line: str, error: DiskError) -> None:
    assert find_disk_errors(f"[    1.5] boring\n[    2.000001] {line}\n", DISKS) == (error,)


@pytest.mark.parametrize(
    "line",
    [
        "I/O error, dev sr0, sector 0 op 0x0:(READ) flags 0x0",
        "operation not supported error, dev vda, sector 0 op 0x3:(DISCARD) flags 0x0",
        "EXT4-fs (vda2): mounted filesystem",
        "I/O error, dev vdaa, sector 1 op 0x0:(READ)",
    ],
)
def test_other_lines_are_none(line: str) -> None:
    assert find_disk_errors(line, DISKS) == ()


def test_errors_from_before_count_for_nothing_and_one_repeated_counts_once() -> None:
    line = "I/O error, dev vda, sector {} op 0x1:(WRITE)"
    log = f"[   10.0] {line.format(1)}\n[   20.5] {line.format(2)}\n[   20.6] {line.format(2)}"
    assert [error.offset_bytes for error in find_disk_errors(log, DISKS, 20.0)] == [1024]
    assert str(find_disk_errors(log, DISKS, 20.0)[0]) == "I/O error of /dev/vda at byte 1024 (write)"


@pytest.mark.parametrize(
    ("device", "disk"),
    [
        ("vda", "/dev/vda"),
        ("vda12", "/dev/vda"),
        ("nvme0n1p1", "/dev/nvme0n1"),
        ("nvme0n11", ""),
        ("loop0p2", "/dev/loop0"),
        ("vdap1", ""),
        ("", ""),
    ],
)
def test_a_partition_belongs_to_its_disk(device: str, disk: str) -> None:
    assert disk_of(device, DISKS) == disk


ATA = """{"smart_status": {"passed": false}, "ata_smart_attributes": {"table": [
  {"id": 5, "name": "Reallocated_Sector_Ct", "raw": {"value": 12, "string": "12"}}, {"id": 9, "raw": {"value": 900}},
  {"id": 197, "raw": {"value": 3}}, {"id": 198, "raw": {"value": 0}}]}}"""
NVME = """{"smart_status": {"passed": true, "nvme": {"value": 0}}, "nvme_smart_health_information_log":
  {"critical_warning": 4, "temperature": 323, "available_spare": 97, "percentage_used": 3, "media_errors": 1}}"""
NONE = """{"smartctl": {"messages": [{"string": "/dev/vda: Unable to detect device type", "severity": "error"}],
  "exit_status": 1}}"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (ATA, "FAILED, reallocated 12, pending 3"),
        (NVME, "passed, critical warning 0x04, media errors 1, spare 97%, used 3%"),
        (NONE, "no SMART data: /dev/vda: Unable to detect device type"),
        ("{}", "no SMART data: the disk offers none"),
        ("", "no SMART data: smartctl told nothing readable"),
        ('{"smart_status": {"passed": "yes"}}', "no SMART data: smartctl told nothing readable"),
    ],
)
def test_the_health_of_a_disk_is_a_line(text: str, line: str) -> None:
    assert smart_summary(text) == line


@settings(max_examples=100)
@given(st.text(max_size=200))
def test_no_log_and_no_answer_is_too_strange_to_be_read(text: str) -> None:
    find_disk_errors(text, DISKS)
    assert "\n" not in smart_summary(text)
