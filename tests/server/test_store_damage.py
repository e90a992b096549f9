"""A store that lost bytes says which versions did, and the next capture brings their content back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from cloner_agent.capture.job import CaptureOptions, capture
from cloner_core.errors import ConflictError
from cloner_core.image.version import Draft, VersionRecord
from cloner_server.store.local import LocalSink, LocalStore
from clones import capture_into
from store_images import Key, age, flip


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", Key())


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    root = tmp_path / "golden"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "etc/motd").write_text("welcome")
    return root


def only_pack(store: LocalStore) -> Path:
    ((_, entry),) = store.packs.names()
    return Path(entry.path)


def faulty(store: LocalStore, *, read_data: bool = False) -> list[str]:
    return [fault.what.partition(",")[0] for fault in store.check(read_data=read_data).faults]


def test_a_pack_found_damaged_is_told_for_each_version_and_sent_again(store: LocalStore, golden: Path) -> None:
    capture_into(store, golden)
    (golden / "etc/hostname").symlink_to("motd")  # another tree of the same content
    capture_into(store, golden)
    flip(only_pack(store), 10)
    assert faulty(store) == []
    assert faulty(store, read_data=True) == faulty(store) == ["version golden/1", "version golden/2"]
    version = bytes.fromhex(store.version("golden", 2).version)
    assert len(store.missing_packs(version)) == 1
    (golden / "etc/issue").symlink_to("motd")
    assert capture_into(store, golden).record.number == 3
    # The same content makes the same pack, and all that had it are whole again.
    assert faulty(store, read_data=True) == []
    assert store.missing_packs(version) == []


def test_a_pack_that_is_whole_after_all_counts_again(store: LocalStore, golden: Path) -> None:
    capture_into(store, golden)
    flip(only_pack(store), 10)
    assert faulty(store, read_data=True)
    flip(only_pack(store), 10)
    assert faulty(store)
    assert faulty(store, read_data=True) == faulty(store) == []


@pytest.mark.parametrize("part", ["pack", "index", "record"])
def test_a_version_that_lacks_a_part_is_nothing_to_build_on(store: LocalStore, golden: Path, part: str) -> None:
    version = bytes.fromhex(capture_into(store, golden).record.version)
    match part:
        case "pack":
            only_pack(store).unlink()
        case "index":
            store.indexes.path_of(store.current_map(version).index_digest).unlink()
        case _:
            flip(store.record_path("golden", 1), 3)
    (golden / "etc/issue").write_text("new")
    record = capture_into(store, golden).record
    assert record.number == 2
    assert "version golden/2" not in faulty(store, read_data=True)


@pytest.mark.parametrize("spoil", [lambda path: flip(path, -8), Path.unlink], ids=["altered", "lost"])
@pytest.mark.parametrize("part", ["placements", "index"])
def test_the_same_tree_captured_again_mends_what_its_map_stands_on(
    store: LocalStore, golden: Path, part: str, spoil: Callable[[Path], None]
) -> None:
    version = bytes.fromhex(capture_into(store, golden).record.version)
    name = bytes.fromhex(store.signed_map(version).map)
    spoil(store.placements_path(name) if part == "placements" else store.index_path(store.map_of(name).index_digest))
    assert faulty(store) == ["version golden/1"]
    assert capture_into(store, golden).record.number == 2
    assert faulty(store, read_data=True) == []


def test_a_pack_that_is_sent_again_takes_the_place_of_one_with_other_bytes(store: LocalStore, golden: Path) -> None:
    capture_into(store, golden)
    whole = only_pack(store).read_bytes()
    flip(only_pack(store), 10)
    assert store.put_pack(bytes.fromhex(only_pack(store).name), whole)
    assert only_pack(store).read_bytes() == whole
    assert not store.put_pack(bytes.fromhex(only_pack(store).name), whole)


class Late(LocalSink):
    """A capture that began before there was any version."""

    def publish(self, draft: Draft) -> VersionRecord:
        return super().publish(msgspec.structs.replace(draft, after=0))


class KilledError(BaseException):
    """Stands for a kill."""


def test_what_a_killed_gc_left_of_a_late_capture_is_not_counted_on(
    store: LocalStore, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture_into(store, golden)
    (golden / "etc/issue").write_text("new")
    with pytest.raises(ConflictError):
        capture(golden, Late(store), CaptureOptions("golden"))
    age(store)
    unlink, done = Path.unlink, 0
    for most in range(1, 100):
        copy = LocalStore(Path(shutil.copytree(store.files.root, tmp_path / f"copy-{most}")), Key())
        done = 0

        def counted(path: Path, missing_ok: bool = False, *, most: int = most) -> None:
            nonlocal done
            unlink(path, missing_ok=missing_ok)
            done += 1
            if done == most:
                raise KilledError

        with monkeypatch.context() as patched, suppress(KilledError):
            patched.setattr(Path, "unlink", counted)
            copy.gc(0)
        assert capture_into(copy, golden).record.number == 2
        assert copy.check(read_data=True).faults == ()
        if done < most:
            break
    assert 3 < done < most
