"""The disks that lose their power, before QEMU's own client and before this kernel's loop device: the rig can fail."""

from __future__ import annotations

import mmap
import os
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmlab import LabError, host
from vmlab.fuse_disk import FuseDisk
from vmlab.nbd import NbdDisk

pytestmark = pytest.mark.root

MIB = 1 << 20
SIZE = 16 * MIB
CUTS = 12
NEVER = 0.0


def qemu_io(disk: NbdDisk, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    return host.run(["qemu-io", "-t", "writeback", "-f", "raw", *words, f"nbd+unix:///?socket={disk.address}"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "medium"
    path.touch()
    os.truncate(path, SIZE)
    return path


def test_qemus_client_reads_what_it_wrote_and_finds_what_it_flushed_after_a_cut(file: Path, tmp_path: Path) -> None:
    with NbdDisk(file, tmp_path / "socket") as disk:
        said = qemu_io(disk, "write -P 7 0 1M", "read -P 7 0 1M", "flush", "length", "write -P 9 -f 2M 64k")
        assert "16 MiB" in said
        qemu_io(disk, "write -z 0 64k", "discard 128k 64k", "read -P 0 0 64k", "read -P 0 128k 64k", "flush")
        disk.power_off()
        disk.power_on(random.Random(1), NEVER)
        said = qemu_io(disk, "read -P 0 0 64k", "read -P 7 64k 64k", "read -P 0 128k 64k", "read -P 9 2M 64k")
        assert "failed" not in said
        assert file.read_bytes()[64 << 10 : 128 << 10] == b"\7" * (64 << 10)


def test_a_request_no_disk_can_serve_is_refused_and_the_next_one_served(file: Path, tmp_path: Path) -> None:
    with NbdDisk(file, tmp_path / "socket") as disk, socket.socket(socket.AF_UNIX) as link:
        link.connect(str(disk.address))
        link.settimeout(10)
        link.recv(18, socket.MSG_WAITALL)
        link.sendall(struct.pack("!I8sII", 3, b"IHAVEOPT", 8, 0))  # structured replies: not here
        assert struct.unpack("!QIII", link.recv(20, socket.MSG_WAITALL))[2] == (1 << 31) + 1
        link.sendall(struct.pack("!8sII", b"IHAVEOPT", 1, 0))
        assert link.recv(10, socket.MSG_WAITALL)[:8] == struct.pack("!Q", SIZE)
        for command, offset, wanted in ((0, SIZE, 22), (99, 0, 22), (0, 0, 0)):
            link.sendall(struct.pack("!IHHQQI", 0x25609513, 0, command, 42, offset, 512))
            error, cookie = struct.unpack("!4xIQ", link.recv(16, socket.MSG_WAITALL))
            assert (error, cookie) == (wanted, 42)
        assert link.recv(512, socket.MSG_WAITALL) == bytes(512)
        link.sendall(b"as long as one, but no request"[:28])
        assert link.recv(1) == b""


def test_a_machine_without_power_gets_no_answer_not_even_an_error(file: Path, tmp_path: Path) -> None:
    with NbdDisk(file, tmp_path / "socket") as disk:
        qemu_io(disk, "write -P 1 0 64k")
        disk.power_off()
        with pytest.raises(LabError, match="did not end"):
            host.run(["qemu-io", "-f", "raw", "-c", "read 0 512", f"nbd+unix:///?socket={disk.address}"], timeout_s=1)
        loss = disk.power_on(random.Random(1), NEVER)
        assert loss.dropped_bytes == 0, "qemu-io flushes when it closes the disk"


@contextmanager
def loop_over(disk: FuseDisk) -> Iterator[str]:
    device = host.run(["losetup", "--find", "--show", disk.file]).strip()
    try:
        yield device
    finally:
        host.run(["losetup", "--detach", device])


def pages_lost(disk: FuseDisk, *, is_flushed: bool, seed: int) -> int:
    """Write 64 pages through a loop device, cut the power, and return how many are not there."""
    pages = [random.Random(f"{seed} {number}").randbytes(4096) for number in range(64)]
    with loop_over(disk) as device:
        fd = os.open(device, os.O_RDWR | os.O_DIRECT)  # past the page cache: it is the disk's own that must lose
        with mmap.mmap(-1, 4096) as buffer:
            for number, page in enumerate(pages):
                buffer[:] = page
                os.pwrite(fd, buffer, number * 8192)
        if is_flushed:
            os.fsync(fd)
        disk.power_off()
        os.close(fd)
    disk.power_on(random.Random(seed))
    with loop_over(disk) as device, open(device, "rb") as opened:
        content = opened.read(64 * 8192)
    return sum(content[number * 8192 : number * 8192 + 4096] != page for number, page in enumerate(pages))


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[FuseDisk]:
    (tmp_path / "fuse").mkdir()
    with FuseDisk(tmp_path / "fuse") as disk:
        yield disk


def test_this_kernel_loses_what_it_did_not_flush_and_never_what_it_did(fuse: FuseDisk, file: Path) -> None:
    fuse.insert(file)
    assert [pages_lost(fuse, is_flushed=True, seed=seed) for seed in range(CUTS)] == [0] * CUTS
    assert sum(pages_lost(fuse, is_flushed=False, seed=seed) for seed in range(CUTS, 2 * CUTS)) > 0


def test_a_disk_that_lies_about_flushes_is_found_out(fuse: FuseDisk, file: Path) -> None:
    fuse.insert(file, is_lying=True)
    assert sum(pages_lost(fuse, is_flushed=True, seed=seed) for seed in range(CUTS)) > 0
