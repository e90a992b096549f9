"""Nodes captured at rest, on disks of this machine's own: what is taken, what is refused, and that no byte changes."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentbench.loop import LoopDisk, loop_disk
from agentbench.scene import facts
from agentbench.server import FakeServer
from agentbench.store_server import Key
from cloner_agent import detecting
from cloner_agent.atrest.job import CaptureJob
from cloner_agent.atrest.untouched import Untouched
from cloner_agent.attempt import Tools
from cloner_agent.console import Console
from cloner_agent.failures import StageError, failure_of
from cloner_agent.host import Completed, run
from cloner_agent.machine import Machine
from cloner_agent.probe import probe
from cloner_agent.reporter import Reporter
from cloner_core.atrest import CaptureOrder, CaptureTask
from cloner_core.errors import ClonerError
from cloner_core.facts import Facts
from cloner_core.image.options import StoredOptions
from cloner_core.image.tree import iter_segment
from cloner_core.image.version import VersionRecord
from cloner_core.layout import parse_layout
from cloner_core.messages import CAPTURE_STAGES, BeatReply, Cause, Failure, Stage
from cloner_core.sizes import MIB
from cloner_server.store.local import LocalSink, LocalStore
from serverbench.scene import LAYOUT

pytestmark = pytest.mark.root

ROOT_UUID, DATA_UUID = "0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e", "0d0d0d0d-1b1b-4c2c-8d3d-4e4e4e4e4e4e"
FSTAB = f"UUID={ROOT_UUID} / ext4 defaults 0 1\nUUID={DATA_UUID} /srv auto defaults 0 2\nproc /proc proc defaults 0 0\n"
SYSTEM = {
    "etc/os-release": 'PRETTY_NAME="Golden 12"\n',
    "etc/hostname": "db01\n",
    "etc/machine-id": "901de0000000000000000000000000aa\n",
    "etc/ssh/ssh_host_ed25519_key": "a private host key",
    "etc/fstab": FSTAB,
    "usr/bin/tool": "tool\n" * 5000,
}
# kind → what makes it of a tree, and the least size it takes
MAKE = {
    "ext4": (32 * MIB, "mkfs.ext4 -q -F -U UUID -d TREE DEVICE"),
    "btrfs": (128 * MIB, "mkfs.btrfs -q -f -U UUID --rootdir TREE DEVICE"),
    "xfs": (320 * MIB, "mkfs.xfs -q -f -m uuid=UUID DEVICE"),  # which makes none of a tree
}
OF_TREES = ("ext4", "btrfs")


class Place:
    """Disks of one machine, each a filesystem as a whole."""

    def __init__(self, directory: Path, made: ExitStack) -> None:
        self.directory = directory
        self.disks: list[LoopDisk] = []
        self.server = FakeServer()
        self.server.kept_layout = parse_layout(LAYOUT)
        self.store = LocalStore(directory / "store", Key())
        self.order = CaptureOrder("caught", StoredOptions("simple"))
        self.orders: Iterator[BeatReply] = iter(())
        self.ends: list[str] = []
        self._made = made

    def disk(self, files: Mapping[str, str], *, kind: str = "ext4", uuid: str = ROOT_UUID) -> LoopDisk:
        """Add a disk with a filesystem that holds `files`."""
        number = len(self.disks)
        tree = self.directory / f"tree{number}"
        for name in ("srv", "proc", "etc"):
            (tree / name).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(content)
        size, command = MAKE[kind]
        disk = self._made.enter_context(loop_disk(self.directory / f"disk{number}", size))
        # A loop device that was read-only would be so for whoever gets it next.
        self._made.callback(run, ("blockdev", "--setrw", disk.device))
        words = {"UUID": uuid, "TREE": str(tree), "DEVICE": disk.device}
        argv = [word.replace("UUID", uuid) if "=" in word else words.get(word, word) for word in command.split()]
        subprocess.run(argv, check=True, capture_output=True)
        self.disks.append(disk)
        return disk

    def facts(self) -> Facts:
        names = [disk.name for disk in self.disks]
        return probe(run, properties=lambda _: {}, disk_names=lambda name: name in names)

    def capture(self) -> Failure | None:
        """Run it; None when it came to its end."""
        names = [disk.name for disk in self.disks]
        reporter = Reporter(Console(io.StringIO()), order=lambda: next(self.orders, BeatReply()))
        tools = Tools(
            server=self.server,
            run=run,
            reporter=reporter,
            probe=self.facts,
            packs=lambda _: pytest.fail("a capture fetches nothing"),
            sink=lambda: LocalSink(self.store),
            server_key=bytes(32),
            machine=Machine(reboot=lambda: self.ends.append("reboot")),
            workers=2,
        )
        ask = partial(detecting.ask, properties=lambda _: {}, disk_names=lambda name: name in names)
        task = CaptureTask("7", "7-1-ab", "node01", self.order)
        try:
            CaptureJob(tools, task, self.facts(), place=str(self.directory / "captured"), ask=ask).run()
        except (ClonerError, OSError) as error:
            return failure_of(error, reporter.stage, is_destroyed=False)
        assert [time.stage for time in reporter.times()] == list(CAPTURE_STAGES)
        return None

    def refused(self, cause: Cause, stage: Stage) -> Failure:
        """Run it; it must fail so, and leave no version and no byte changed."""
        before = [disk.digest() for disk in self.disks]
        failure = self.capture()
        assert failure is not None
        assert (failure.cause, failure.stage) == (cause, stage), failure.message
        assert (list(self.store.images()), self.ends) == ([], [])
        assert [disk.digest() for disk in self.disks] == before
        return failure

    def paths(self) -> dict[str, bytes]:
        """Return what was published: path → digests of its chunks."""
        record: VersionRecord = self.store.version("caught")
        root = self.store.tree_root(bytes.fromhex(record.version))
        raws = zip(self.store.raw_segments(root), root.segments, strict=True)
        return {inode.path.decode(): inode.chunks for raw, ref in raws for inode, _ in iter_segment(raw, ref)}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as made:
        yield Place(tmp_path, made)
        mounted = Path("/proc/self/mountinfo").read_text()
        assert str(tmp_path / "captured") not in mounted


@pytest.mark.parametrize("kind", OF_TREES)
def test_the_tree_is_taken_as_its_fstab_puts_it_together_and_no_byte_of_a_disk_changes(place: Place, kind: str) -> None:
    place.disk(SYSTEM)
    place.disk({"data": "data\n" * 1000}, kind=kind, uuid=DATA_UUID)
    before = [disk.digest() for disk in place.disks]
    assert place.capture() is None
    assert [disk.digest() for disk in place.disks] == before
    paths = place.paths()
    assert paths["srv/data"]
    assert paths["usr/bin/tool"]
    assert paths["etc/machine-id"] == b"", "identity is never captured"
    assert "etc/ssh/ssh_host_ed25519_key" not in paths
    assert place.ends == ["reboot"]
    assert [found.is_to_be_kept for found in place.server.layouts] == [False]


def dirty(place: Place, disk: LoopDisk, kind: str) -> None:
    """Have the filesystem as it is where the power goes while it is mounted and written to."""
    folder = place.directory / "mounted"
    folder.mkdir()
    run(("mount", "-t", kind, disk.device, str(folder)))
    try:
        with (folder / "written").open("w") as file:
            file.write("in the journal")
            file.flush()
            subprocess.run(["sync", folder / "written"], check=True)
        run(("sync",))
        with (folder / "written").open("a") as file:
            file.write("more")
            file.flush()
            subprocess.run(["sync", folder / "written"], check=True)
        copy = disk.file.with_suffix(".copy")
        run(("cp", "--sparse=always", str(disk.file), str(copy)))
    finally:
        run(("umount", str(folder)))
        folder.rmdir()
    run(("cp", "--sparse=always", str(copy), str(disk.file)))
    run(("blockdev", "--flushbufs", disk.device))


@pytest.mark.parametrize("kind", MAKE)
def test_a_filesystem_that_was_not_unmounted_is_refused(place: Place, kind: str) -> None:
    place.disk(SYSTEM)
    disk = place.disk({"data": "data"}, kind=kind, uuid=DATA_UUID)
    dirty(place, disk, kind)
    failure = place.refused(Cause.UNCLEAN, Stage.ASSEMBLE)
    assert f"the {kind} on {disk.device} was not cleanly unmounted" in failure.message
    assert "shut it down properly" in failure.hint


def test_one_system_that_was_not_unmounted_is_not_passed_over_for_another(place: Place) -> None:
    place.disk(SYSTEM)
    place.disk(SYSTEM | {"etc/fstab": FSTAB.replace(ROOT_UUID, DATA_UUID)}, uuid=DATA_UUID)
    dirty(place, place.disks[0], "ext4")
    place.refused(Cause.UNCLEAN, Stage.ASSEMBLE)


def test_of_several_systems_the_one_is_taken_that_was_named(place: Place) -> None:
    plain = {"etc/fstab": f"UUID={ROOT_UUID} / ext4 defaults 0 1\n"}
    place.disk(SYSTEM | plain)
    place.disk(SYSTEM | {"etc/fstab": plain["etc/fstab"].replace(ROOT_UUID, DATA_UUID), "which": "2"}, uuid=DATA_UUID)
    failure = place.refused(Cause.AMBIGUOUS_DISK, Stage.ASSEMBLE)
    assert "2 systems lie on the disks" in failure.message
    assert f"UUID={DATA_UUID}: Golden 12, host db01" in failure.message
    assert "--root-device" in failure.hint
    place.order = msgspec.structs.replace(place.order, root_device=f"UUID={DATA_UUID}")
    assert place.capture() is None
    assert "which" in place.paths()


def test_of_two_copies_of_a_filesystem_none_is_taken(place: Place) -> None:
    place.disk(SYSTEM)
    place.disk(SYSTEM)
    assert f"hold one and the same ext4, UUID={ROOT_UUID}" in place.refused(Cause.FOREIGN_UUID, Stage.ASSEMBLE).message


def test_what_fstab_mounts_and_is_not_there_ends_it_unless_it_is_left_out(place: Place) -> None:
    place.disk(SYSTEM)
    failure = place.refused(Cause.NO_DISK, Stage.ASSEMBLE)
    assert f"/etc/fstab mounts /srv from UUID={DATA_UUID}, which is not there" in failure.message
    assert "--exclude-paths /srv" in failure.hint
    place.order = msgspec.structs.replace(place.order, options=StoredOptions("simple", ("/srv",)))
    assert place.capture() is None


def test_a_filesystem_of_a_kind_that_is_not_captured_is_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.disk(SYSTEM | {"etc/fstab": f"UUID={ROOT_UUID} / ext4 defaults\nUUID={DATA_UUID} /srv ntfs3 defaults\n"})
    place.disk({}, uuid=DATA_UUID)
    assert place.capture() is None
    assert f"/srv on UUID={DATA_UUID} is ntfs3, which is not captured" in caplog.text


def test_a_secret_ends_it_with_the_option_that_allows_it(place: Place) -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n"
    place.disk(SYSTEM | {"root/.ssh/id_ed25519": key, "etc/fstab": ""})
    failure = place.refused(Cause.REFUSED, Stage.SURVEY)
    assert "/root/.ssh/id_ed25519" in failure.message
    assert "--allow-secrets" in failure.hint
    place.order = msgspec.structs.replace(place.order, allow_secrets=True)
    assert place.capture() is None


def test_a_disk_without_a_system_is_no_golden_node(place: Place) -> None:
    place.disk({"data": "data"})
    assert "no system lies on the disks" in place.refused(Cause.NO_DISK, Stage.ASSEMBLE).message


def test_an_abort_ends_it_before_anything_is_published(place: Place) -> None:
    place.disk(SYSTEM | {"etc/fstab": ""})
    place.orders = iter([BeatReply(order="abort", reason="task 7 is aborted")])
    assert place.refused(Cause.ABORTED, Stage.SURVEY).message == "task 7 is aborted"


def test_a_write_to_a_disk_is_seen(place: Place) -> None:
    disk = place.disk(SYSTEM)
    untouched = Untouched(run, place.facts().disks)
    untouched.require()
    assert run(("blockdev", "--getro", disk.device)).stdout.strip() == "1"
    run(("blockdev", "--setrw", disk.device))
    with Path(disk.device).open("r+b") as file:
        file.seek(16 * MIB)
        file.write(b"\1" * 4096)
    run(("blockdev", "--flushbufs", disk.device))
    with pytest.raises(StageError, match="was written to while it was captured"):
        untouched.require()


def test_a_disk_that_does_not_become_read_only_ends_it(place: Place) -> None:
    place.disk(SYSTEM)

    def stubborn(argv: Any, **words: Any) -> Completed:
        if argv[0] == "blockdev":
            return Completed(tuple(argv), 0, "0\n", "", 0.0)
        return run(argv, **words)

    with pytest.raises(StageError, match="did not become read-only"):
        Untouched(stubborn, place.facts().disks)


def test_a_disk_in_use_is_refused() -> None:
    told = facts()
    used = tuple(msgspec.structs.replace(disk, is_mounted=True) for disk in told.disks)
    with pytest.raises(StageError, match=r"in use before the capture began: /dev/vda \(mounted\)"):
        Untouched(run, used)
