"""Laws of the lab itself: it leaves nothing behind, whatever happens, and reads disks rightly."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vmlab import Bus, Lab, LabError, blank_disk, host
from vmlab.disk import MIB
from vmlab.lab import SERVER_ADDRESS, remove_stale
from vmlab.offline import partitions

pytestmark = [pytest.mark.root, pytest.mark.netns]

A_RUN_TO_BE_KILLED = """
from vmlab import Lab
with Lab(title="killed") as lab:
    child = lab.popen(["sleep", "1000"])
    print(lab.name, child.pid, lab.directory, flush=True)
    child.wait()
"""


def is_there(name: str) -> bool:
    return Path("/run/netns", name).exists()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_leaving_a_lab_ends_its_programs_and_removes_everything() -> None:
    with Lab(title="leaving") as lab:
        child = lab.popen(["sleep", "1000"], log_name="sleep")
        tap = lab.add_tap()
        assert tap in lab.run(["ip", "link"])
        assert SERVER_ADDRESS in lab.run(["ip", "address"])
        assert is_there(lab.name)
    assert child.poll() is not None
    assert not is_there(lab.name)
    assert not lab.directory.exists()
    assert not lab.evidence.directory.exists()


def test_an_error_in_a_lab_keeps_the_logs_and_removes_the_rest() -> None:
    def fail() -> Lab:
        with Lab(title="failing") as lab:
            lab.popen(["echo", "what it said"], log_name="program").wait()
            raise ZeroDivisionError(lab)

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    lab: Lab = caught.value.args[0]
    assert not is_there(lab.name)
    log = lab.evidence.directory / "program.log"
    assert log.read_text() == "what it said\n"
    log.unlink()
    log.parent.rmdir()


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    run = subprocess.Popen([sys.executable, "-c", A_RUN_TO_BE_KILLED], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    name, pid, directory = run.stdout.readline().split()
    run.stdout.close()
    with Lab(title="living") as living:
        assert is_there(name), "a lab that lives is left alone"
        run.send_signal(signal.SIGKILL)
        run.wait()
        for _ in range(100):
            if not is_alive(int(pid)):
                break
            time.sleep(0.05)
        assert not is_alive(int(pid)), "its programs die with it"
        remove_stale()
        assert not is_there(name)
        assert is_there(living.name)
        assert not Path(directory).exists()


def test_nothing_in_a_lab_reaches_the_outside() -> None:
    with Lab(title="closed") as lab:
        assert "default" not in lab.run(["ip", "route"])
        links = [line.split(": ")[1] for line in lab.run(["ip", "-o", "link"]).splitlines()]
    assert sorted(name.partition("@")[0] for name in links) == ["br0", "lo"]


def test_a_program_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(LabError, match=r"(?s)sh -c.*status 3.*no such thing"):
        host.run(["sh", "-c", "echo no such thing >&2; exit 3"])


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_partitions_are_read_in_bytes_whatever_the_sector(tmp_path: Path, sector_bytes: int) -> None:
    disk = blank_disk(tmp_path / "disk", 64 * MIB, serial="X", bus=Bus.NVME, sector_bytes=sector_bytes)
    table = "label: gpt\nstart=1MiB, size=16MiB, type=U, name=esp\nsize=8MiB, type=S\n"
    loop = host.run(["losetup", "--find", "--show", "--sector-size", str(sector_bytes), disk.path]).strip()
    try:
        host.run(["sfdisk", "--quiet", loop], stdin=table.encode())
    finally:
        host.run(["losetup", "--detach", loop])
    esp, swap = partitions(disk)
    assert (esp.number, esp.start_bytes, esp.size_bytes, esp.name) == (1, MIB, 16 * MIB, "esp")
    assert esp.kind == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    assert (swap.start_bytes, swap.size_bytes) == (17 * MIB, 8 * MIB)
