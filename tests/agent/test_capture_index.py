"""With the capture index an update is the very version it would be without: it is faster, and that is all."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import torture
from cloner_agent.capture.index import MARGIN_NS
from cloner_agent.capture.job import Captured, CaptureOptions, capture
from cloner_core.errors import IntegrityError
from cloner_core.image.version import Draft, VersionRecord
from cloner_server.store.local import LocalSink, LocalStore
from store_images import Key

FILES = 5


@dataclass
class Machine:
    """A tree that is captured again and again, into a store, with an index."""

    place: Path
    store: LocalStore = field(init=False)

    def __post_init__(self) -> None:
        self.root, self.indexes = self.place / "golden", self.place / "node"
        self.root.mkdir()
        self.store = LocalStore(self.place / "store", Key())

    @property
    def index(self) -> Path:
        return self.indexes / "golden.index"

    def newest_ns(self) -> int:
        return max(path.lstat().st_ctime_ns for path in (self.root, *self.root.rglob("*")))

    def capture(self, *, started_ns: int | None = None, **options: object) -> Captured:
        """Capture; by default all changes are so long ago that they count."""
        started = self.newest_ns() + MARGIN_NS + 1 if started_ns is None else started_ns
        said = {"image": "golden", "indexes": self.indexes, **options}
        sink = LocalSink(self.store)
        return capture(self.root, sink, CaptureOptions(**said), clock_ns=lambda: started)  # type: ignore[arg-type]

    def plain(self) -> Captured:
        """Capture without any index."""
        return capture(self.root, LocalSink(self.store), CaptureOptions("plain"))

    def let_the_clock_tick(self) -> None:
        """Wait until what is changed from now on has another ctime than anything in the tree."""
        newest = self.newest_ns()
        probe = self.place / "probe"
        while True:
            probe.write_bytes(b"")
            os.utime(probe)
            if probe.stat().st_ctime_ns > newest:
                return
            time.sleep(0.001)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for number in range(FILES):
        (made.root / f"file-{number}").write_bytes(b"%d" % number * 1000)
    return made


# What may happen to a tree between two captures; some of it is impossible at times, and then nothing happens.


def write(a: Path, b: Path, size: int) -> None:
    del b
    a.write_bytes(os.urandom(size))


def rewrite(a: Path, b: Path, size: int) -> None:
    """Give a file other bytes and the times and the size it had."""
    del b, size
    status = a.stat()
    with a.open("r+b") as file:
        file.write(os.urandom(status.st_size))
    os.utime(a, ns=(status.st_atime_ns, status.st_mtime_ns))


def rename(a: Path, b: Path, size: int) -> None:
    del size
    a.rename(b)


def copy_over(a: Path, b: Path, size: int) -> None:
    """Put a copy with the same times in the place of another file."""
    del size
    shutil.copy2(a, b.with_name("new"))
    b.with_name("new").rename(b)


def link(a: Path, b: Path, size: int) -> None:
    del size
    b.unlink(missing_ok=True)
    b.hardlink_to(a)


def remove(a: Path, b: Path, size: int) -> None:
    del b, size
    a.unlink()


def make_hole(a: Path, b: Path, size: int) -> None:
    del b
    os.truncate(a, a.stat().st_size + 4096 * size)


def set_mode(a: Path, b: Path, size: int) -> None:
    del b
    a.chmod(0o600 + size % 8)


def into_folder(a: Path, b: Path, size: int) -> None:
    """Make a folder of a file: what sorted before `a-` comes after it now."""
    del size
    data = a.read_bytes()
    a.unlink()
    a.mkdir()
    (a / b.name).write_bytes(data)


CHANGES = (write, rewrite, rename, copy_over, link, remove, make_hole, set_mode, into_folder)
NAMES = ("a", "a-", "a.b", "b", "a/x", "d/a", "d/b", "d-/a")
Change = tuple[Callable[[Path, Path, int], None], str, str, int]
changes = st.lists(
    st.tuples(
        st.sampled_from(CHANGES),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.sampled_from((0, 1, 10, 5000, 1 << 20, (1 << 20) + 7)),
    ),
    max_size=6,
)


@settings(max_examples=12, deadline=None)
@given(rounds=st.lists(st.tuples(changes, st.booleans()), min_size=2, max_size=4))
def test_an_index_changes_nothing_but_the_time_it_takes(rounds: list[tuple[list[Change], bool]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(Path(directory))
        for folder in ("d", "d-"):
            (machine.root / folder).mkdir()
        for name in NAMES:
            with suppress(OSError):
                (machine.root / name).write_bytes(name.encode() * 2000)
        for happened, is_long_ago in rounds:
            if is_long_ago:
                machine.let_the_clock_tick()
            for change, a, b, size in happened:
                with suppress(OSError):
                    change(machine.root / a, machine.root / b, size)
            # Else it all was a moment ago, and may go on without the clock telling: within the margin.
            captured = machine.capture(started_ns=None if is_long_ago else machine.newest_ns())
            assert captured.record.version == machine.plain().record.version
            assert captured.notes.index == []
            if is_long_ago:
                machine.let_the_clock_tick()


def test_files_that_are_as_they_were_are_not_read(machine: Machine) -> None:
    assert machine.capture().notes.recalled == 0
    assert machine.capture().notes.recalled == FILES
    machine.let_the_clock_tick()
    (machine.root / "file-2").write_bytes(b"new")
    changed = machine.capture()
    assert (changed.notes.recalled, changed.new_packs) == (FILES - 1, 1)
    assert machine.capture().notes.recalled == FILES


def test_nothing_is_missed_where_names_sort_around_a_slash(machine: Machine) -> None:
    for name in ("a", "a-", "a.b", "a/b", "a/b-"):
        (machine.root / name).mkdir()
        (machine.root / name / "file").write_bytes(name.encode())
    machine.capture()
    assert machine.capture().notes.recalled == FILES + 5


@pytest.mark.parametrize(("later_ns", "recalled"), [(MARGIN_NS, FILES - 1), (MARGIN_NS + 1, FILES)])
def test_what_changed_right_before_a_capture_is_read_at_the_next(
    machine: Machine, later_ns: int, recalled: int
) -> None:
    machine.let_the_clock_tick()
    changed = machine.root / "file-0"
    changed.touch()
    machine.capture(started_ns=changed.stat().st_ctime_ns + later_ns)
    assert machine.capture().notes.recalled == recalled


def test_a_rehash_trusts_nothing_and_is_trusted_afterwards(machine: Machine) -> None:
    machine.capture()
    assert machine.capture(is_rehash=True).notes.recalled == 0
    assert machine.capture().notes.recalled == FILES


def test_chunks_that_the_server_let_go_are_read_and_sent_again(machine: Machine) -> None:
    machine.capture()
    machine.store = LocalStore(machine.place / "another store", Key())
    captured = machine.capture()
    assert (captured.notes.recalled, captured.new_packs) == (0, 1)
    assert machine.store.check(read_data=True).faults == ()
    # Of an image with one of the files alone.
    other = machine.place / "other"
    other.mkdir()
    (other / "file").write_bytes(machine.root.joinpath("file-1").read_bytes())
    machine.store = LocalStore(machine.place / "third store", Key())
    capture(other, LocalSink(machine.store), CaptureOptions("golden"))
    assert machine.capture().notes.recalled == 1
    assert machine.store.check(read_data=True).faults == ()


def test_a_dry_run_reads_the_index_and_keeps_none(machine: Machine) -> None:
    machine.capture(is_dry=True)
    assert list(machine.indexes.iterdir()) == []
    machine.capture()
    before = machine.index.read_bytes()
    machine.let_the_clock_tick()
    (machine.root / "file-0").write_bytes(b"new")
    assert machine.capture(is_dry=True).notes.recalled == FILES - 1
    assert machine.index.read_bytes() == before


def test_what_was_not_published_is_in_no_index(machine: Machine) -> None:
    class Full(LocalSink):
        def publish(self, draft: Draft) -> VersionRecord:
            raise IntegrityError(f"no room for {draft.image}")

    machine.capture()
    before = machine.index.read_bytes()
    machine.let_the_clock_tick()
    (machine.root / "file-0").write_bytes(b"new")
    with pytest.raises(IntegrityError):
        capture(machine.root, Full(machine.store), CaptureOptions("golden", indexes=machine.indexes))
    assert sorted(path.name for path in machine.indexes.iterdir()) == [machine.index.name, "golden.tree"]
    assert machine.index.read_bytes() == before


def flipped(at: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        place = int(at * (len(data) - 1))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return flip


DAMAGE = {
    "first byte": flipped(0),
    "binding": flipped(0.1),
    "middle": flipped(0.6),
    "last byte": flipped(1),
    "cut": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_index_is_ignored_and_said(machine: Machine, damage: Callable[[bytes], bytes]) -> None:
    machine.capture()
    machine.index.write_bytes(damage(machine.index.read_bytes()))
    captured = machine.capture()
    assert captured.notes.recalled == 0
    assert "every file is read" in captured.notes.index[0]
    assert machine.capture().notes.recalled == FILES


def test_an_index_of_something_else_is_ignored_and_said(machine: Machine) -> None:
    machine.capture()
    shutil.copy2(machine.index, machine.indexes / "other.index")
    assert "another image" in machine.capture(image="other").notes.index[0]
    machine.root.rename(machine.place / "elsewhere")
    machine.root = machine.place / "elsewhere"
    assert "another directory" in machine.capture().notes.index[0]
    machine.index.chmod(0o604)
    assert "others can" in machine.capture().notes.index[0]
    assert machine.capture().notes.index == []


def test_a_second_capture_at_the_same_time_does_without(machine: Machine) -> None:
    machine.capture()
    before = machine.index.read_bytes()
    folder = os.open(machine.indexes, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    captured = machine.capture()
    os.close(folder)
    assert (captured.notes.recalled, machine.index.read_bytes()) == (0, before)
    assert "another capture" in captured.notes.index[0]


def test_a_capture_does_without_a_directory_for_its_index(machine: Machine) -> None:
    machine.indexes.write_text("in the way")
    assert "every file is read" in machine.capture().notes.index[0]


def test_the_index_is_no_part_of_an_image(machine: Machine) -> None:
    (machine.root / "var/lib").mkdir(parents=True)
    stamp = (machine.root / "var/lib").stat()
    before = machine.plain().record.version
    (machine.root / "var/lib/cloner-node").mkdir()
    (machine.root / "var/lib/cloner-node/debian.index").write_bytes(b"what it knows")
    os.utime(machine.root / "var/lib", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert machine.plain().record.version == before


@pytest.mark.root
def test_a_capture_outlives_a_full_disk_for_its_index(machine: Machine) -> None:
    for number in range(2000):
        (machine.root / f"some-file-with-a-name-{number}").write_bytes(b"%d" % number)
    with torture.small_disk(machine.indexes, "64k"):
        captured = machine.capture()
        assert "no capture index is kept" in captured.notes.index[0]
        assert list(machine.indexes.iterdir()) == []
    assert captured.record.version == machine.plain().record.version


@pytest.mark.root
def test_bytes_that_a_program_writes_through_a_mapping_are_seen(tmp_path: Path) -> None:
    with torture.ext4(tmp_path / "disk", 64 << 20) as disk:
        machine = Machine(disk)
        mapped = machine.root / "mapped"
        mapped.write_bytes(bytes(4096))
        with mapped.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as memory:
            memory[0] = 1
            machine.capture()
            machine.let_the_clock_tick()
            memory[0] = 2
            assert machine.capture().record.version == machine.plain().record.version
