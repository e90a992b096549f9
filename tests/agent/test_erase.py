"""An erase as the agent does it: what is not shown to be erased is never told as done, and no other disk is touched."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentbench.erasables import MIB, FakeDisk, FakeTools
from agentbench.scene import facts
from agentbench.server import FakeServer
from cloner_agent.attempt import Record, Tools
from cloner_agent.board import Board
from cloner_agent.console import Console
from cloner_agent.erase.abilities import ask_abilities, parse_identify
from cloner_agent.erase.ata import PASSWORD
from cloner_agent.erase.job import EraseJob
from cloner_agent.failures import failure_of
from cloner_agent.host import ToolError
from cloner_agent.machine import Machine
from cloner_agent.reporter import Reporter
from cloner_core.erasing.abilities import EraseAbilities
from cloner_core.erasing.words import ErasedDisk, EraseOrder, EraseReceiptBody, EraseTask, Way
from cloner_core.errors import ClonerError
from cloner_core.facts import Facts
from cloner_core.layout import Selector
from cloner_core.messages import ERASE_STAGES, BeatReply, Cause, Failure, Stage


@dataclasses.dataclass
class Site:
    """A machine with disks, and the server it talks to."""

    disks: list[FakeDisk]
    abilities: tuple[EraseAbilities, ...] = ()
    server: FakeServer = dataclasses.field(default_factory=FakeServer)
    ends: list[str] = dataclasses.field(default_factory=list)
    screen: io.StringIO = dataclasses.field(default_factory=io.StringIO)
    order: Callable[[], BeatReply] = BeatReply
    stop_holders: Callable[..., None] = lambda disk, run: None
    record: Record = dataclasses.field(default_factory=Record)

    def __post_init__(self) -> None:
        self.run = FakeTools(self.disks)

    def facts(self) -> Facts:
        found = tuple(disk.disk() for disk in self.disks)
        told = self.abilities or ask_abilities(self.run, found, root="/nonexistent")
        return msgspec.structs.replace(facts(*found), erasing=told)

    def erase(self, **order: Any) -> Failure | None:
        """Run it; None when it came to its end."""
        task = EraseTask("7", "7-1-ab", "node01", EraseOrder(**order), "5e" * 32)
        reporter = Reporter(Console(self.screen), order=self.order)
        tools = Tools(
            server=self.server,
            run=self.run,
            reporter=reporter,
            probe=self.facts,
            packs=lambda _: pytest.fail("an erase fetches nothing"),
            server_key=bytes(32),
            machine=Machine(
                sync=lambda: None,
                drop_caches=lambda: None,
                reboot=lambda: self.ends.append("reboot"),
                power_off=lambda: self.ends.append("off"),
            ),
            stop_holders=self.stop_holders,
        )
        job = EraseJob(tools, task, self.facts(), self.record, sleep=lambda _: None)
        try:
            job.run()
        except (ClonerError, OSError) as error:
            return failure_of(error, reporter.stage, is_destroyed=self.record.is_destroyed)
        return None

    @property
    def receipt(self) -> EraseReceiptBody:
        (body,) = self.server.erased
        return body


def one(tmp_path: Path, name: str = "a", **fields: Any) -> FakeDisk:
    disk = FakeDisk(tmp_path / name, serial=name.upper(), **fields)
    disk.fill()
    return disk


def erased(site: Site, **order: Any) -> ErasedDisk:
    failure = site.erase(**order)
    assert failure is None, failure.message
    (disk,) = site.receipt.disks
    return disk


def refused(site: Site, cause: Cause, **order: Any) -> Failure:
    failure = site.erase(**order)
    assert failure is not None
    assert failure.cause is cause, failure.message
    assert site.server.erased == [], "what is not erased has no receipt"
    assert site.ends == []
    return failure


NVME: dict[str, Any] = {"bus": "nvme"}
ATA: dict[str, Any] = {"bus": "ata"}


@pytest.mark.parametrize(
    ("fields", "order", "way"),
    [
        (NVME, {}, Way.SANITIZE_BLOCK),
        (NVME | {"sanicap": 1}, {"method": "sanitize"}, Way.SANITIZE_CRYPTO),
        (NVME, {"method": "format"}, Way.FORMAT),
        (NVME | {"sanicap": 0, "oacs": 0}, {}, Way.OVERWRITE),
        (ATA, {}, Way.ATA_ENHANCED),
        (ATA | {"enhanced": False}, {"method": "ata-secure"}, Way.ATA),
        ({}, {"passes": 3}, Way.OVERWRITE),
    ],
)
@pytest.mark.parametrize("verify", ["sample", "full"])
def test_each_way_ends_with_a_receipt_that_says_what_shows_it(
    tmp_path: Path, fields: dict[str, Any], order: dict[str, Any], way: Way, verify: str
) -> None:
    disk = one(tmp_path, **fields)
    site = Site([disk])
    told = erased(site, verify=verify, **order)
    assert (told.way, told.result, told.serial, told.checked) == (way, "erased", "A", verify)
    assert disk.path.read_bytes() == bytes(disk.size_bytes)
    assert told.evidence
    assert told.places > 0
    assert told.bytes_read >= (disk.size_bytes if verify == "full" else 2 * MIB)
    assert [time.stage for time in site.receipt.stages] == list(ERASE_STAGES)[:-1]
    assert [word for word in site.server.said if word != "beat"] == ["plan", "receipt", "rebooting"]
    assert site.ends == ["off"]


def test_a_discard_is_read_in_whole_and_a_disk_that_forgot_nothing_is_overwritten(tmp_path: Path) -> None:
    good = one(tmp_path)
    told = erased(Site([good], (EraseAbilities(str(good.path), can_discard=True),)))
    assert (told.way, told.checked, told.bytes_read) == (Way.DISCARD, "full", good.size_bytes)
    bad = one(tmp_path, "b", erases=False)
    told = erased(Site([bad], (EraseAbilities(str(bad.path), can_discard=True),)))
    assert told.way is Way.OVERWRITE
    assert bad.path.read_bytes() == bytes(bad.size_bytes)
    worse = one(tmp_path, "c", erases=False)
    failure = refused(
        Site([worse], (EraseAbilities(str(worse.path), can_discard=True),)), Cause.NOT_ERASED, method="discard"
    )
    assert "byte 0" in failure.message


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        (NVME, {}),
        (NVME, {"method": "format"}),
        (ATA, {}),
    ],
)
@pytest.mark.parametrize("verify", ["sample", "full"])
def test_a_disk_that_claims_to_have_erased_itself_and_has_not_is_found_out(
    tmp_path: Path, fields: dict[str, Any], order: dict[str, Any], verify: str
) -> None:
    disk = one(tmp_path, erases=False, **fields)
    failure = refused(Site([disk]), Cause.NOT_ERASED, verify=verify, **order)
    assert str(disk.path) in failure.message
    assert failure.is_destroyed


def test_a_disk_that_keeps_one_partition_is_found_out(tmp_path: Path) -> None:
    disk = one(tmp_path, **NVME)

    class Sloppy(FakeTools):
        def __call__(self, argv: Any, **options: Any) -> Any:
            kept = disk.path.read_bytes()[-4096:]
            done = super().__call__(argv, **options)
            if argv[1] == "sanitize":
                with disk.path.open("r+b") as file:
                    file.seek(-4096, 2)
                    file.write(kept)
            return done

    site = Site([disk])
    site.run = Sloppy([disk])
    refused(site, Cause.NOT_ERASED)


@pytest.mark.parametrize(
    ("fields", "order"),
    [(NVME, {}), (NVME, {"method": "format"}), (NVME | {"fpi": 40}, {"method": "format"}), (ATA, {})],
    ids=["sanitize log", "format says no success", "format is not finished", "security erase fails"],
)
def test_a_device_that_says_it_failed_is_believed(
    tmp_path: Path, fields: dict[str, Any], order: dict[str, Any]
) -> None:
    disk = one(tmp_path, says_success="fpi" in fields, **fields)
    refused(Site([disk]), Cause.NOT_ERASED, **order)


def test_format_is_never_without_a_secure_erase_and_keeps_the_format(tmp_path: Path) -> None:
    site = Site([one(tmp_path, **NVME)])
    erased(site, method="format")
    (argv,) = site.run.of("nvme")
    assert "--ses=1" in argv
    assert "--lbaf=0" in argv


def test_a_sanitize_that_a_power_cut_left_running_is_waited_for_and_not_begun_again(tmp_path: Path) -> None:
    disk = one(tmp_path, status=2, action=2, polls=3, **NVME)
    disk.path.write_bytes(bytes(disk.size_bytes))
    site = Site([disk])
    told = erased(site)
    assert told.way is Way.SANITIZE_BLOCK
    assert site.run.of("nvme") == []


def test_a_sanitize_of_another_kind_is_waited_for_and_then_the_right_one_is_run(tmp_path: Path) -> None:
    disk = one(tmp_path, status=2, action=4, polls=3, **NVME)
    site = Site([disk])
    erased(site)
    assert [argv[3] for argv in site.run.of("nvme")] == ["--sanact=2"]


def test_a_disk_cut_off_in_its_security_erase_takes_it_again_and_a_foreign_password_is_told(tmp_path: Path) -> None:
    told = erased(Site([one(tmp_path, password=PASSWORD, **ATA)]))
    assert told.way is Way.ATA_ENHANCED
    site = Site([one(tmp_path, "b", password="other", **ATA)])
    failure = refused(site, Cause.NO_METHOD)
    assert PASSWORD in failure.hint


def test_our_password_does_not_stay_on_a_disk_that_refuses_to_erase_itself(tmp_path: Path) -> None:
    disk = one(tmp_path, says_success=False, **ATA)
    refused(Site([disk]), Cause.NOT_ERASED)
    assert disk.password == ""


def test_decoys_are_untouched_and_named_as_left(tmp_path: Path) -> None:
    disks = [one(tmp_path, name) for name in "abc"]
    before = [disk.path.read_bytes() for disk in disks]
    site = Site(disks)
    told = erased(site, select=(Selector(serial="B"),))
    assert told.serial == "B"
    assert [disk.path.read_bytes() == content for disk, content in zip(disks, before, strict=True)] == [
        True, False, True,
    ]  # fmt: skip
    assert len(site.receipt.left) == 2
    assert not [argv for argv in site.run.said if argv[0] == "blockdev" and str(disks[1].path) not in argv]


def test_one_disk_that_fails_fails_the_task_and_the_others_are_told(tmp_path: Path) -> None:
    good, bad = one(tmp_path, "a"), one(tmp_path, "b", erases=False, **NVME)
    failure = refused(Site([good, bad]), Cause.NOT_ERASED)
    assert good.path.read_bytes() == bytes(good.size_bytes)
    assert "1 of 2 disks are not erased" in failure.message
    assert f"{good.path} (Fake, serial A" in failure.message
    assert "NOT ERASED" in failure.message


def test_nothing_is_written_before_the_plan_is_confirmed(tmp_path: Path) -> None:
    from cloner_core.messages import Fault

    disk = one(tmp_path)
    content = disk.path.read_bytes()
    site = Site([disk])
    site.server.refuse["plan"] = Fault(error="another plan", status=5)
    failure = refused(site, Cause.PLAN_MISMATCH)
    assert (failure.stage, failure.is_destroyed, disk.path.read_bytes() == content) == (Stage.PLAN, False, True)


def test_a_disk_that_was_exchanged_after_the_plan_is_not_touched(tmp_path: Path) -> None:
    disk = one(tmp_path)
    content = disk.path.read_bytes()
    site = Site([disk])
    confirm = site.server.confirm_plan

    def exchange(report: Any) -> None:
        confirm(report)
        disk.serial = "OTHER"

    site.server.confirm_plan = exchange  # type: ignore[method-assign]
    failure = refused(site, Cause.NO_DISK)
    assert (failure.stage, failure.is_destroyed, disk.path.read_bytes() == content) == (Stage.GUARD, False, True)


def test_what_is_recognised_on_a_disk_afterwards_fails_it(tmp_path: Path) -> None:
    site = Site([one(tmp_path)])
    site.run.signatures = ("ext4",)
    assert "ext4" in refused(site, Cause.NOT_ERASED).message


def test_an_order_to_abort_stops_an_overwrite(tmp_path: Path) -> None:
    disk = one(tmp_path, size_bytes=64 * MIB)
    site = Site([disk])

    def order() -> BeatReply:
        return BeatReply("abort", "asked for") if site.record.is_destroyed else BeatReply()

    site.order = order
    failure = refused(site, Cause.ABORTED, passes=35)
    assert failure.is_destroyed


@pytest.mark.parametrize(("then", "ends"), [("off", ["off"]), ("reboot", ["reboot"]), ("hold", ["reboot"])])
def test_what_follows_an_erase_is_what_was_asked_for(tmp_path: Path, then: str, ends: list[str]) -> None:
    site = Site([one(tmp_path)])
    answers = iter([BeatReply("hold"), BeatReply("hold"), BeatReply("retry")])
    site.order = lambda: next(answers) if site.server.erased else BeatReply()
    erased(site, then=then)
    assert site.ends == ends
    assert ("CLONER ERASED" in site.screen.getvalue()) == (then == "hold")


def test_what_hdparm_prints_is_read(tmp_path: Path) -> None:
    told = parse_identify(FakeDisk(tmp_path / "a", "A", frozen=True, enhanced=False).identify())
    assert (told.is_supported, told.is_frozen, told.is_enabled, told.is_enhanced) == (True, True, False, False)
    assert (told.minutes, told.enhanced_minutes, told.is_zero_after_trim) == (2, 4, True)
    assert not parse_identify("Security: \n\tnot\tsupported\nChecksum: correct\n").is_supported
    assert not parse_identify("").is_supported


def test_a_disk_that_does_not_answer_has_no_abilities(tmp_path: Path) -> None:
    class Mute(FakeTools):
        def _nvme(self, disk: FakeDisk, argv: tuple[str, ...]) -> str:
            return "[]" if argv[1] == "id-ctrl" else "{}"

    disk = one(tmp_path, **NVME)
    assert ask_abilities(Mute([disk]), [disk.disk()], root="/nonexistent") == (EraseAbilities(str(disk.path)),)


def test_the_screen_shows_the_stages_of_the_task_alone() -> None:
    board = Board(links=lambda: ())
    assert "restore" in board.text()
    assert "erase" not in board.text()
    board.task(EraseTask("7", "7-1-ab", "node01", EraseOrder(), "5e" * 32))
    assert "erase" in board.text()
    assert "restore" not in board.text()


def test_a_sanitize_that_another_namespace_has_begun_is_this_ones_too(tmp_path: Path) -> None:
    disk = one(tmp_path, **NVME)

    class Beaten(FakeTools):
        def _nvme(self, disk: FakeDisk, argv: tuple[str, ...]) -> str:
            said = super()._nvme(disk, argv)
            if argv[1] == "sanitize":
                raise ToolError(argv, 1, "NVMe status: Sanitize In Progress")
            return said

    site = Site([disk])
    site.run = Beaten([disk])
    assert erased(site).way is Way.SANITIZE_BLOCK


def test_an_abort_while_disks_are_only_looked_at_leaves_them_as_they_are(tmp_path: Path) -> None:
    disk = one(tmp_path)
    content = disk.path.read_bytes()
    site = Site([disk])
    site.order = lambda: BeatReply("abort", "asked for") if site.server.plans else BeatReply()
    failure = refused(site, Cause.ABORTED)
    assert (failure.stage, failure.is_destroyed, disk.path.read_bytes() == content) == (Stage.GUARD, False, True)


class OnTwoCables(Site):
    """A machine that sees its disk twice."""

    def facts(self) -> Facts:
        """Return it with its second path."""
        found = super().facts()
        return msgspec.structs.replace(
            found, disks=tuple(msgspec.structs.replace(disk, paths=("/dev/sdq",)) for disk in found.disks)
        )


def test_a_disk_on_two_cables_is_released_on_both(tmp_path: Path) -> None:
    disk, released = one(tmp_path), list[str]()
    site = OnTwoCables([disk], stop_holders=lambda path, run: released.append(path))
    erased(site)
    assert released == [str(disk.path), "/dev/sdq"]
