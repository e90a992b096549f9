"""What is sent of a tree is what differs from the last one; the version is the same as without."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_agent.capture.job import Captured, CaptureOptions, capture
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_server.store.local import LocalSink, LocalStore
from store_images import Key

FILES = 300


@dataclass
class Wire(LocalSink):
    """A sink that lets the store have what would go over the wire, and counts it."""

    store: LocalStore
    whole: int = 0
    deltas: int = 0
    sent_bytes: int = 0
    names: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.store)

    def put_segment(self, ref: SegmentRef, stored: bytes, delta: SegmentDelta | None = None) -> None:
        self.names.append(ref.digest)
        if delta is None:
            self.whole += 1
            self.sent_bytes += len(stored)
            self.store.put_segment(ref.digest, ref.raw_size, stored)
        else:
            self.deltas += 1
            self.sent_bytes += len(delta.frame)
            self.store.put_segment(ref.digest, ref.raw_size, delta.frame, delta.onto)


@dataclass
class Machine:
    """A tree of many small files, a store and what the machine keeps."""

    place: Path

    def __post_init__(self) -> None:
        self.root, self.kept = self.place / "golden", self.place / "kept"
        self.store = LocalStore(self.place / "store", Key())
        for number in range(FILES):
            folder = self.root / f"folder-{number // 50}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"file-{number:04}").write_bytes(os.urandom(20))

    @property
    def tree(self) -> Path:
        return self.kept / "golden.tree"

    def capture(self) -> tuple[Captured, Wire]:
        wire = Wire(self.store)
        return capture(self.root, wire, CaptureOptions("golden", indexes=self.kept)), wire

    def plain(self) -> str:
        return capture(self.root, LocalSink(self.store), CaptureOptions("plain")).record.version


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tree", "checker"):
        monkeypatch.setattr(f"cloner_core.image.{module}.SEGMENT_INODES", 64)


def test_a_change_is_sent_as_a_change_though_every_number_after_it_shifts(machine: Machine) -> None:
    machine.kept.mkdir(exist_ok=True)
    machine.tree.unlink(missing_ok=True)
    _, first = machine.capture()
    assert (first.deltas, first.whole) == (0, 5)
    (machine.root / "folder-0/another").write_bytes(b"new")
    captured, second = machine.capture()
    assert second.whole == 0
    assert second.sent_bytes < first.sent_bytes / 5
    assert captured.record.version == machine.plain()
    for number in range(100):
        (machine.root / f"a-new-folder-{number}").mkdir()
    captured, third = machine.capture()
    assert third.whole == 0
    assert third.sent_bytes < first.sent_bytes / 2
    assert captured.record.version == machine.plain()
    assert machine.store.check(read_data=True).faults == ()


@settings(max_examples=25)
@given(at=st.floats(0, 1), bit=st.integers(0, 7), is_cut=st.booleans())
def test_a_damaged_former_tree_costs_bytes_and_nothing_else(
    machine: Machine, at: float, bit: int, *, is_cut: bool
) -> None:
    machine.capture()
    data = bytearray(machine.tree.read_bytes())
    place = int(at * (len(data) - 1))
    data[place] ^= 1 << bit
    machine.tree.write_bytes(data[:place] if is_cut else data)
    captured, wire = machine.capture()
    assert captured.record.version == machine.plain()
    assert wire.whole + wire.deltas == len(wire.names)
    assert wire.whole or not is_cut
    assert not captured.notes.index


def test_what_others_could_have_written_is_not_believed(machine: Machine) -> None:
    machine.capture()
    machine.tree.chmod(0o644)
    _, wire = machine.capture()
    assert wire.deltas == 0
