"""BIOS passes over a disk until the commit; then core image first, boot code last, each read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentbench.programs import grub_core
from agentbench.scene import Scene
from cloner_agent.confined import Ended, Program
from cloner_agent.failures import StageError
from cloner_agent.stages.bios import make_bootable, put_stub
from cloner_agent.stages.bootfiles import place
from cloner_core.biosboot import boot_sector, embedded_core, stub_sector
from cloner_core.messages import Cause
from cloner_core.steps import BiosBoot, BiosPlace, BiosStub, BootFiles

BOOT = b"\xeb" * 510 + b"\x55\xaa"
FILES = {
    "etc/os-release": b'ID=debian\nPRETTY_NAME="Debian"\n',
    "usr/bin/grub-mkimage": b"",
    "boot/vmlinuz-6.1.0": b"kernel",
    "boot/initrd.img-6.1.0": b"initrd",
    "usr/lib/grub/i386-pc/boot.img": BOOT,
    "usr/lib/grub/i386-pc/kernel.img": b"kernel",
    "usr/lib/grub/i386-pc/diskboot.img": b"d" * 512,
    "usr/lib/grub/i386-pc/ext2.mod": b"ext2",
    "usr/lib/grub/i386-pc/normal.mod": b"normal",
    "usr/lib/grub/i386-pc/config.h": b"no part of it",
}
GOOD = Ended(0, 1.0, False, (), 0)


class _Bench(Scene):
    def __init__(self, directory: Path, *without: str, ended: Ended = GOOD) -> None:
        super().__init__(directory)
        for path, content in FILES.items():
            if path not in without:
                (self.target / path).parent.mkdir(parents=True, exist_ok=True)
                (self.target / path).write_bytes(content)
        self.programs: list[Program] = []

        def confine(target: str, program: Program, *, watch: Callable[[], None] = lambda: None) -> Ended:
            self.programs.append(program)
            (self.target / "boot/grub/i386-pc/core.img").write_bytes(grub_core(3000))
            return ended

        tools: Any = self.attempt.tools
        object.__setattr__(tools, "confine", confine)
        self.disks = [directory / name for name in ("sda", "sdb")]
        for disk in self.disks:
            disk.write_bytes(b"\x11" * 510 + b"\x55\xaa" + bytes(64 * 512))

    def files(self) -> BootFiles:
        planned: BootFiles = self.action(BootFiles)
        return msgspec.structs.replace(planned, esp="")

    def boot(self, sectors: int = 60) -> BiosBoot:
        return BiosBoot(tuple(BiosPlace(str(disk), 1, sectors) for disk in self.disks))


@pytest.mark.root
def test_the_images_own_tool_makes_the_core_that_finds_its_menu_by_uuid(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    place(bench.attempt, bench.files())
    (program,) = bench.programs
    assert program.argv[0] == "/usr/bin/grub-mkimage"
    assert program.argv[-2:] == ("ext2", "normal")
    (config,) = program.files.values()
    uuid = bench.attempt.plan.boot.uuid
    assert config == f"search.fs_uuid {uuid} root\nset prefix=($root)/boot/grub\n".encode()
    assert f"--config=/run/cloner/{next(iter(program.files))}" in program.argv
    assert bench.attempt.record.bios == ("/boot/grub/i386-pc/core.img", "/boot/grub/i386-pc/boot.img")
    made = bench.target / "boot/grub/i386-pc"
    assert {path.name for path in made.iterdir()} == {
        *("boot.img", "kernel.img", "diskboot.img", "ext2.mod", "normal.mod", "core.img")
    }
    assert f"root=UUID={bench.attempt.plan.root.uuid}" in (bench.target / "boot/grub/grub.cfg").read_text()
    assert "boots by GRUB, started by BIOS" in bench.attempt.tools.reporter.notes
    assert b"boot/grub/i386-pc/core.img" in bench.attempt.record.written_boot


@pytest.mark.root
@pytest.mark.parametrize("without", ["usr/bin/grub-mkimage", "usr/lib/grub/i386-pc/boot.img", "boot/vmlinuz-6.1.0"])
def test_an_image_without_grub_for_bios_is_refused(tmp_path: Path, without: str) -> None:
    bench = _Bench(tmp_path, without)
    with pytest.raises(StageError) as caught:
        place(bench.attempt, bench.files())
    assert caught.value.cause is Cause.NOT_BOOTABLE
    assert caught.value.hint


@pytest.mark.root
def test_a_tool_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    bench = _Bench(tmp_path, ended=Ended(1, 1.0, False, ("cannot open 'normal.mod'",), 0))
    with pytest.raises(StageError, match="cannot open 'normal") as caught:
        place(bench.attempt, bench.files())
    assert caught.value.cause is Cause.NOT_BOOTABLE


def test_the_stub_comes_and_the_table_stays(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    before = bench.disks[0].read_bytes()
    put_stub(bench.attempt, BiosStub(str(bench.disks[0])))
    assert bench.disks[0].read_bytes() == stub_sector(before[:512]) + before[512:]


def placed(bench: _Bench) -> None:
    for name, content in (("core.img", grub_core(3000)), ("boot.img", BOOT)):
        (bench.target / "boot/grub/i386-pc").mkdir(parents=True, exist_ok=True)
        (bench.target / "boot/grub/i386-pc" / name).write_bytes(content)
    bench.attempt.record.bios = "/boot/grub/i386-pc/core.img", "/boot/grub/i386-pc/boot.img"


def test_every_disk_gets_its_core_and_then_its_boot_code(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    placed(bench)
    before = bench.disks[0].read_bytes()
    states: list[tuple[bool, ...]] = []
    bench.on["drop-caches"] = lambda: states.append(tuple(disk.read_bytes()[0] == 0xEB for disk in bench.disks))
    make_bootable(bench.attempt, bench.boot())
    core = embedded_core(grub_core(3000), 1)
    for disk in bench.disks:
        content = disk.read_bytes()
        assert content[:512] == boot_sector(before[:512], BOOT, 1)
        assert content[512 : 512 + len(core)] == core
        assert content[512 + len(core) :] == before[512 + len(core) :]
    # no disk boots before the core is on both, and each write was read back
    assert states == [(False, False), (False, False), (True, False), (True, True)]


def test_a_core_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    placed(bench)
    before = [disk.read_bytes() for disk in bench.disks]
    with pytest.raises(StageError, match="room for") as caught:
        make_bootable(bench.attempt, bench.boot(sectors=5))
    assert caught.value.cause is Cause.NOT_BOOTABLE
    assert [disk.read_bytes() for disk in bench.disks] == before


def test_a_disk_that_returns_other_bytes_is_found_out(tmp_path: Path) -> None:
    bench = _Bench(tmp_path)
    placed(bench)

    def spoil() -> None:
        with bench.disks[1].open("r+b") as disk:
            disk.seek(700)
            disk.write(b"\xff")

    bench.on["drop-caches"] = spoil
    with pytest.raises(StageError, match=f"the core image on {bench.disks[1]}") as caught:
        make_bootable(bench.attempt, bench.boot())
    assert caught.value.cause is Cause.READBACK
    assert [disk.read_bytes()[0] for disk in bench.disks] == [0x11, 0x11]
