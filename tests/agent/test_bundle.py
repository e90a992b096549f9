"""What the agent tells about a failure: everything it can see, no secret of it, and never at the cost of the node."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import msgspec
import pytest

from agentbench.loop import loop_disk
from agentbench.runner import FakeRunner
from agentbench.scene import facts
from cloner_agent.bundle import Gatherer, LogTail, gather, kernel_log_tail
from cloner_agent.efivars import EfiVars
from cloner_core.bundle import Bundle, Part
from cloner_core.diskerrors import find_disk_errors
from cloner_core.efi import LoadOption, build_load_option, build_order
from cloner_core.messages import Cause, Failure, Stage

FAILURE = Failure(stage=Stage.MKFS, cause=Cause.TOOL, message="mkfs failed", hint="look", is_destroyed=True)
CLAIM, CREDENTIAL, CONFIRM = "canary" + "c1a1" * 10, "CANARYcredential_-x", "CANARYconfirm_-y"
PXE = LoadOption("UEFI PXEv4", bytes.fromhex("030b2500") + bytes(33) + bytes.fromhex("7fff0400"))


class _Bench:
    def __init__(self, directory: Path) -> None:
        (directory / "proc/self").mkdir(parents=True)
        (directory / "proc/cmdline").write_text(f"quiet cloner.claim={CLAIM} panic=-1\n")
        (directory / "proc/meminfo").write_text("MemTotal: 450 kB\n")
        (directory / "proc/self/mountinfo").write_text("36 35 98:0 / /mnt rw - ext4 /dev/vda2 rw\n")
        (directory / "efivars").mkdir()
        (directory / "sys/class/net/eth0").mkdir(parents=True)
        for name, text in {"address": "52:54:00:00:00:01", "speed": "1000", "carrier_changes": "7"}.items():
            (directory / "sys/class/net/eth0" / name).write_text(f"{text}\n")
        self.kernel = f"Kernel command line: quiet cloner.claim={CLAIM}"
        self.screen = "Cloner  node01  holding"
        self.variables = EfiVars(directory / "efivars")
        self.runner = FakeRunner()
        self.runner.output |= {
            "sfdisk": "label: gpt",
            "lsblk": '{"blockdevices": []}',
            "ip": "2: eth0",
            "smartctl": "SMART",
        }
        self.tail = LogTail(clock=lambda: 1.0)
        self.gatherer = Gatherer(
            self.runner,
            self.variables,
            self.tail,
            root=str(directory),
            kernel_log=lambda: self.kernel,
            screen=lambda: self.screen,
            clock=lambda: 9.0,
            uptime=lambda: 100.0,
        )
        self.gatherer.hide(CLAIM, CREDENTIAL, CONFIRM)

    def log(self, text: str) -> None:
        self.tail.emit(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))

    def boot_order(self, *numbers: int) -> None:
        for number in numbers:
            self.variables.write(f"Boot{number:04X}", build_load_option(PXE))
        self.variables.write("BootOrder", build_order(numbers))

    def bundle(self) -> Bundle:
        return self.gatherer.bundle(FAILURE, agent_version="1")


def parts(bundle: Bundle) -> dict[str, Part]:
    return {part.name: part for part in bundle.parts}


@pytest.fixture
def bench(tmp_path: Path) -> _Bench:
    return _Bench(tmp_path)


def test_a_bundle_shows_the_machine_before_and_after(bench: _Bench) -> None:
    bench.boot_order(1)
    bench.gatherer.see(facts())
    bench.runner.output["sfdisk"] = "label: new"
    bench.boot_order(2, 1)
    bench.gatherer.see(facts())  # the second look of a deploy comes after the first write
    bench.log("step 3 of 11")
    found = parts(bench.bundle())
    assert found["tables-before"].text == "# /dev/vda\nlabel: gpt\n# /dev/vdb\nlabel: gpt"
    assert found["tables-after"].text.count("label: new") == 2
    assert "BootOrder 0001\n" in found["boot-entries-before"].text
    assert "BootOrder 0002,0001\n" in found["boot-entries-after"].text
    assert "'UEFI PXEv4'" in found["boot-entries-after"].text
    assert found["log"].text == "1.000 info    step 3 of 11"
    assert found["last-screen"].text == bench.screen
    assert found["lsblk"].text == '{"blockdevices": []}'
    assert found["interfaces"].text == "eth0: address 52:54:00:00:00:01, speed 1000, carrier_changes 7"
    assert found["smart"].text == "# /dev/vda\nSMART\n# /dev/vdb\nSMART"
    assert {"kernel-log", "command-line", "memory", "mounts", "links", "addresses", "routes", "efibootmgr"} < set(found)


def test_no_canary_leaves_the_node(bench: _Bench) -> None:
    for secret in (CLAIM, CREDENTIAL, CONFIRM, CLAIM.upper()):
        bench.log(f"careless: {secret}")
        bench.runner.output["ip"] = secret
        bench.screen = f"a line of the log: {secret}"
    bench.runner.failing["lsblk"] = (1, f"lsblk: {CREDENTIAL}")
    bench.gatherer.see(facts())
    told = msgspec.json.encode(bench.bundle()).lower()
    assert b"canary" not in told
    assert told.count(b"***") >= 7


def test_a_look_that_fails_says_why_and_costs_nothing_else(bench: _Bench) -> None:
    bench.runner.failing["lsblk"] = (1, "no such thing")
    bench.runner.failing["sfdisk"] = (1, "Input/output error")
    bench.gatherer.see(facts())
    found = parts(bench.bundle())
    assert "no such thing" in found["lsblk"].note
    assert "Input/output error" in found["tables-after"].text
    assert found["links"].text == "2: eth0"


IO_ERROR = "[  101.5] I/O error, dev vdb, sector 2048 op 0x1:(WRITE) flags 0x0"
SMART = '{"smart_status": {"passed": false}}'


def told_of(bench: _Bench, cause: Cause, message: str) -> Failure:
    bench.runner.output["smartctl"] = SMART
    bench.gatherer.see(facts())
    return bench.gatherer.with_disk(msgspec.structs.replace(FAILURE, cause=cause, message=message))


def test_a_failure_of_a_disk_names_device_offset_and_health(bench: _Bench) -> None:
    bench.kernel = IO_ERROR
    failure = told_of(bench, Cause.DISK_IO, "cannot write /a")
    assert failure.message == (
        "cannot write /a; I/O error of /dev/vdb at byte 1048576 (write); SMART of /dev/vdb: FAILED"
    )


def test_a_program_that_failed_over_a_dying_disk_failed_for_it(bench: _Bench) -> None:
    bench.kernel = IO_ERROR
    failure = told_of(bench, Cause.TOOL, "'mkfs.ext4 /dev/vdb3' ended with status 1")
    assert failure.cause is Cause.DISK_IO
    assert "replace the disk" in failure.hint
    assert "byte 1048576" in failure.message


def test_what_shows_nothing_on_a_dying_disk_is_a_fault_of_the_disk(bench: _Bench) -> None:
    bench.kernel = IO_ERROR
    failure = told_of(bench, Cause.NOT_BOOTABLE, "/dev/vdb3 shows nothing, want ext4")
    assert (failure.cause, "byte 1048576" in failure.message) == (Cause.DISK_IO, True)
    assert told_of(bench, Cause.NOT_BOOTABLE, "/dev/vda3 shows nothing, want ext4").cause is Cause.NOT_BOOTABLE


def test_a_program_that_failed_over_another_disk_failed_for_itself(bench: _Bench) -> None:
    bench.kernel = IO_ERROR
    assert told_of(bench, Cause.TOOL, "'mkfs.ext4 /dev/vda3' ended with status 1").cause is Cause.TOOL
    assert told_of(bench, Cause.NETWORK, "no route").message == "no route"


def test_errors_from_before_the_attempt_explain_nothing(bench: _Bench) -> None:
    bench.kernel = IO_ERROR.replace("101.5", " 12.5")
    failure = told_of(bench, Cause.DISK_IO, "cannot write /a")
    assert "names no sector; SMART of /dev/vda: FAILED; SMART of /dev/vdb: FAILED" in failure.message
    told = told_of(bench, Cause.READBACK, "the read-back of /a differs").message
    assert told == "the read-back of /a differs; SMART of /dev/vda: FAILED; SMART of /dev/vdb: FAILED"


def test_a_disk_whose_health_cannot_be_asked_says_so(bench: _Bench) -> None:
    bench.kernel = IO_ERROR
    bench.runner.failing["smartctl"] = (127, "no such program")
    message = told_of(bench, Cause.DISK_IO, "cannot write /a").message
    assert "byte 1048576" in message
    assert "its SMART data: ToolError" in message


def test_a_machine_that_failed_before_it_was_seen_still_has_a_log(bench: _Bench) -> None:
    bench.log("probing")
    found = parts(bench.bundle())
    assert "probing" in found["log"].text
    assert "tables-before" not in found


def test_a_look_that_never_ends_holds_nothing_up() -> None:
    release = threading.Event()

    def stuck() -> str:
        release.wait(60)
        return "late"

    found = gather([("first", lambda: "1"), ("stuck", stuck), ("last", lambda: "3")], 0.2)
    release.set()
    assert [(part.name, part.text) for part in found] == [("first", "1"), ("stuck", ""), ("last", "")]
    assert [bool(part.note) for part in found] == [False, True, True]


def test_the_log_forgets_its_beginning_only() -> None:
    tail = LogTail()
    for number in range(5000):
        tail.emit(logging.LogRecord("x", logging.INFO, "", 0, f"line {number} {'x' * 80}", None, None))
    assert len(tail.text()) < 256 << 10
    assert "line 4999" in tail.text()
    assert "line 0 " not in tail.text()


def test_the_kernels_records_become_lines(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_bytes(b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n")
    assert kernel_log_tail(str(log)) == "[    5.140900] NET: Registered"


@pytest.mark.root
def test_what_this_very_kernel_says_of_a_failing_disk_is_understood(tmp_path: Path) -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("this machine shows no /dev/kmsg")
    with loop_disk(tmp_path / "disk", 8 << 20) as disk:
        os.truncate(disk.file, 1 << 20)  # what the loop device reads beyond is an I/O error
        before = time.monotonic() - 1
        with open(disk.device, "rb", buffering=0) as device:
            os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
            device.seek(4 << 20)
            with pytest.raises(OSError, match="Input/output error"):
                device.read(4096)
        errors = find_disk_errors(kernel_log_tail(), [disk.device], before)
    assert (errors[0].disk, errors[0].operation) == (disk.device, "read")
    assert 4 << 20 in [error.offset_bytes for error in errors]


@pytest.mark.root
def test_the_kernels_log_is_read_without_waiting() -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("this machine shows no /dev/kmsg")
    assert isinstance(kernel_log_tail(), str)
