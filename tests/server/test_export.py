"""A server lost: its export and a blank machine give the same server; anything else is told and leaves nothing."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cloner_core.admin.sessions import SessionState
from cloner_core.admin.tasks import TaskState
from cloner_core.errors import ClonerError, ConflictError, IntegrityError, InvalidError, NotFoundError, RefusedError
from cloner_server import recoverykeys, vault
from cloner_server.export import importing, making
from cloner_server.export.importing import import_state
from cloner_server.export.making import export_state
from cloner_server.export.manifest import Exported, Imported
from cloner_server.export.sealing import Cost, open_reader, open_writer
from cloner_server.state import events
from cloner_server.store.local import LocalStore
from serverbench.installers import put_installer, with_shelf
from serverbench.scene import Agent, Scene, open_scene
from serverbench.sessions import Sessions

CHEAP = Cost(4, 1, 1)
PASS = b"correct horse battery staple"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "cloner.state"


def export(scene: Scene, target: Path, progress: making.Progress = lambda done, total: None, **more: bool) -> Exported:
    config = target.parent / "server.toml"
    config.write_text("tls_port = 9443\n")
    wanted = making.Wanted(scene.core.state_directory, config, target, "tester", **more)
    return export_state(wanted, PASS, cost=CHEAP, progress=progress)


def take(source: Path, state: Path, passphrase: bytes = PASS, **more: bool) -> Imported:
    wanted = importing.Wanted(source, state, state.parent / "etc" / "server.toml", "tester", **more)
    return import_state(wanted, passphrase)


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in sorted(directory.rglob("*"))
        if not path.name.endswith("-shm")  # SQLite's notes of who reads
    }


def test_the_same_ca_vault_and_images_come_back(scene: Scene, out: Path, tmp_path: Path) -> None:
    scene.add_node()
    with scene.core.database.write() as connection:
        recovery = recoverykeys.ensure_key(connection, scene.core.act("test"), "n01", scene.core.site.vault_key)
    made = export(scene, out, has_packs=True)
    assert (made.versions, made.missing, out.stat().st_size) == (1, (), made.size_bytes)
    assert out.stat().st_mode & 0o777 == 0o600
    taken = take(out, tmp_path / "new")
    assert (taken.nodes, taken.identities, taken.versions, taken.faults) == (1, 2, 1, ())
    again = open_scene(tmp_path / "new")
    one, two = scene.core.site, again.core.site
    assert tree(one.certificate.parent) == tree(two.certificate.parent)
    for name in ("n01", "n02"):
        with scene.core.database.read() as ours, again.core.database.read() as theirs:
            before = vault.open_identity(ours, name, one.vault_key)
            after = vault.open_identity(theirs, name, two.vault_key)
        assert (before.machine_id, before.host_keys) == (after.machine_id, after.host_keys)
    with again.core.database.read() as connection:
        assert recoverykeys.list_keys(connection, "n01", two.vault_key)[0].key == recovery
    assert again.core.catalog.store.check(read_data=True).faults == ()
    packs = [core.state_directory / "store" / "packs" for core in (scene.core, again.core)]
    assert tree(packs[0]) == tree(packs[1])
    assert (tmp_path / "etc" / "server.toml").read_text() == "tls_port = 9443\n"
    again.arm()
    agent = Agent(again)
    agent.hello()
    agent.deploy()
    with again.core.database.read() as connection:
        seen = [event.what for event in events.list_events(connection)]
    assert ("state export begun" in seen, "state imported" in seen) == (True, True)
    again.core.database.close()


def test_installers_of_nodes_come_along_with_the_packs(scene: Scene, out: Path, tmp_path: Path) -> None:
    with_shelf(scene, tmp_path / "installer")
    assert put_installer(scene).status_code == 200
    export(scene, out, has_packs=True)
    take(out, tmp_path / "new")
    again = open_scene(tmp_path / "new")
    assert tree(tmp_path / "new" / "installers") == tree(scene.core.state_directory / "installers") != {}
    with_shelf(again, tmp_path / "again")
    assert again.admin("GET", "/installers/site").json() == scene.admin("GET", "/installers/site").json()
    again.core.database.close()


def test_without_packs_the_check_names_what_to_copy(scene: Scene, out: Path, tmp_path: Path) -> None:
    packs = [pack.digest.hex() for pack in scene.image.packs]
    assert export(scene, out).packs == len(packs)
    taken = take(out, tmp_path / "new")
    assert (taken.versions, len(taken.faults)) == (1, len(packs))
    assert [pack for pack in packs if pack not in " ".join(taken.faults)] == []
    shutil.copytree(scene.core.state_directory / "store" / "packs", tmp_path / "new" / "store" / "packs")
    again = open_scene(tmp_path / "new")
    assert again.core.catalog.store.check(read_data=True).faults == ()
    again.core.database.close()


def test_nothing_of_it_is_readable_without_the_passphrase(scene: Scene, out: Path) -> None:
    export(scene, out, has_packs=True)
    sealed = out.read_bytes()
    for part in tree(scene.core.state_directory / "site").values():
        assert part[30:60] not in sealed
    for word in (b"SQLite format 3", b"PRIVATE KEY", b"golden", b"export.json"):
        assert word not in sealed


def test_an_export_beside_a_server_that_writes_is_one_moment(scene: Scene, out: Path, tmp_path: Path) -> None:
    with scene.core.database.write() as connection:
        events.record(connection, scene.core.act("t"), "site", "half")
        wanted = making.Wanted(scene.core.state_directory, tmp_path / "none", out, "t", is_dry=True)
        assert export_state(wanted, b"", cost=CHEAP).size_bytes > 0, "no writer holds up the copy"
    export(scene, out)
    take(out, tmp_path / "new")
    with sqlite3.connect(tmp_path / "new" / "cloner.db") as database:
        assert database.execute("SELECT count(*) FROM events WHERE what = 'half'").fetchone() == (1,)


@pytest.mark.parametrize("has_packs", [True, False])
def test_an_export_beside_a_repack_holds_versions_that_can_be_used(
    scene: Scene, out: Path, tmp_path: Path, *, has_packs: bool
) -> None:
    store, version = scene.core.catalog.store, scene.image.version
    before = store.signed_map(version).map

    def repack(done: int, total: int) -> None:
        if store.signed_map(version).map == before:
            store.repack(version)

    export(scene, out, repack, has_packs=has_packs)
    assert store.signed_map(version).map != before
    taken = take(out, tmp_path / "new")
    assert (taken.versions, taken.damages, len(taken.faults)) == (1, (), 0 if has_packs else len(scene.image.packs))
    assert LocalStore(tmp_path / "new" / "store").signed_map(version).map == before


@pytest.mark.parametrize("kind", ["packmaps", "packindexes", "placements", "roots", "segments", "current"])
def test_a_version_that_no_packs_mend_is_told_apart_and_all_else_is_imported(
    scene: Scene, out: Path, tmp_path: Path, kind: str
) -> None:
    for path in (scene.core.state_directory / "store" / kind).rglob("*"):
        if path.is_file():
            path.unlink()
    assert len(export(scene, out).missing) > 0
    taken = take(out, tmp_path / "new")
    assert (taken.versions, len(taken.damages)) == (1, 1)
    assert "version golden/1" in taken.damages[0].what


def test_a_record_that_cannot_be_read_is_named_and_all_else_is_sealed(scene: Scene, out: Path, tmp_path: Path) -> None:
    scene.core.catalog.store.paths_of("golden", 1)[0].write_bytes(b"{garbage")
    (missing,) = export(scene, out).missing
    assert "version golden/1" in missing
    assert [fault.what for fault in take(out, tmp_path / "new").damages] == ["version golden/1"]


def test_a_record_that_is_missing_is_named_by_export_and_import(scene: Scene, out: Path, tmp_path: Path) -> None:
    scene.core.catalog.store.paths_of("golden", 1)[0].unlink()
    made = export(scene, out, has_packs=True)
    assert (made.versions, made.missing) == (1, ("version golden/1: its record is missing",))
    taken = take(out, tmp_path / "new")
    assert (taken.versions, [(fault.what, fault.why) for fault in taken.damages]) == (
        1,
        [("version golden/1", "its record is missing")],
    )


def test_a_version_that_is_removed_after_the_database_was_copied_is_exported(
    scene: Scene, out: Path, tmp_path: Path
) -> None:
    scene.core.catalog.store.remove_version("golden", 1)  # the database that is copied still shows it
    assert export(scene, out, has_packs=True).missing == ()
    taken = take(out, tmp_path / "new")
    assert (taken.versions, taken.faults, taken.damages) == (1, (), ())


def test_packs_that_an_export_should_have_are_no_packs_to_come(scene: Scene, out: Path, tmp_path: Path) -> None:
    lost = scene.image.packs[0].digest.hex()
    (scene.core.state_directory / "store" / "packs" / lost[:2] / lost).unlink()
    export(scene, out, has_packs=True)
    taken = take(out, tmp_path / "new")
    assert (taken.faults, [fault.what for fault in taken.damages]) == ((), [f"version golden/1, pack {lost}"])


def test_work_is_frozen_for_it_may_have_ended_since(scene: Scene, out: Path, tmp_path: Path) -> None:
    for name, mac in (("n01", "52:54:00:00:00:01"), ("n02", "52:54:00:00:00:02")):
        scene.add_node(name, mac)
        scene.arm(name)
    agent = Agent(scene)
    agent.hello()
    export(scene, out, has_packs=True)
    assert take(out, tmp_path / "new").frozen == ("n01", "n02")
    again = open_scene(tmp_path / "new")
    assert [again.task(number).state for number in ("1", "2")] == [TaskState.FROZEN] * 2
    assert [again.netboot(name) for name in ("n01", "n02")] == ["local", "local"]
    agent.scene = again
    assert agent.beat().order == "hold"
    again.admin("POST", "/tasks/1/retry")
    assert again.netboot() == "cloner"
    again.core.database.close()


def test_sessions_are_stopped_or_go_on_as_their_tasks_do(scene: Scene, out: Path, tmp_path: Path) -> None:
    scene.add_node()
    Sessions(scene).arm("n01")
    export(scene, out, has_packs=True)
    for name, is_resuming, state in (("new", False, SessionState.STOPPED), ("same", True, SessionState.QUEUED)):
        take(out, tmp_path / name, is_resuming=is_resuming)
        again = open_scene(tmp_path / name)
        assert Sessions(again).state() is state
        again.core.database.close()


def test_work_goes_on_when_told_to(scene: Scene, out: Path, tmp_path: Path) -> None:
    scene.add_node()
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello()
    export(scene, out, has_packs=True)
    assert take(out, tmp_path / "new", is_resuming=True).frozen == ()
    again = open_scene(tmp_path / "new")
    agent.scene = again
    agent.deploy()
    assert again.task(task_id).state is TaskState.UNCONFIRMED
    again.core.database.close()


def test_a_dry_run_reads_all_of_it_and_changes_nothing(scene: Scene, out: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    wanted = making.Wanted(scene.core.state_directory, tmp_path / "none", out, "t", is_dry=True)
    assert export_state(wanted, b"", cost=CHEAP).dry_run
    assert tree(tmp_path) == before
    export(scene, out)
    before = tree(tmp_path)
    assert take(out, tmp_path / "new", is_dry=True).dry_run
    out.write_bytes(out.read_bytes()[:-1])
    with pytest.raises(IntegrityError):
        take(out, tmp_path / "new", is_dry=True)
    assert tree(tmp_path) | {"out/cloner.state": b""} == before | {"out/cloner.state": b""}


def test_an_export_is_not_replaced_unasked_and_never_half(
    scene: Scene, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(scene, out)
    first = out.read_bytes()
    with pytest.raises(ConflictError, match="exists"):
        export(scene, out)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", _no_room)
        with pytest.raises(OSError, match="No space"):
            export(scene, out, is_forced=True)
    assert out.read_bytes() == first
    assert sorted(path.name for path in out.parent.iterdir()) == ["cloner.state", "server.toml"]
    assert list(scene.core.state_directory.glob(".export-*")) == []
    export(scene, out, is_forced=True)
    assert out.read_bytes() != first


def _no_room(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_where_there_is_no_state_or_no_room_it_says_so(
    scene: Scene, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = making.Wanted(tmp_path / "nothing", tmp_path / "none", out, "t")
    with pytest.raises(NotFoundError, match="no state"):
        export_state(wanted, PASS, cost=CHEAP)
    assert not (tmp_path / "nothing").exists()
    export(scene, out)
    small = os.statvfs_result((4096, 4096, 1000, 10, 10, 100, 50, 50, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    with pytest.raises(RefusedError, match=r"40\.0 KiB free"):
        export(scene, out, is_forced=True)
    with pytest.raises(RefusedError, match=r"40\.0 KiB free"):
        take(out, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_export_beside_the_state_leaves_the_server_its_reserve(
    scene: Scene, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = making.Wanted(scene.core.state_directory, out, out, "t", is_dry=True, reserve_bytes=100 << 20)
    free = (64 << 20) // 4096
    status = os.statvfs_result((4096, 4096, 1 << 20, free, free, 100, 50, 50, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: status)
    with pytest.raises(RefusedError, match=r"64\.0 MiB free, of which 100\.0 MiB are the server's \(reserve_mib\)"):
        export_state(wanted, PASS, cost=CHEAP)
    assert export_state(dataclasses.replace(wanted, reserve_bytes=0), PASS, cost=CHEAP).dry_run
    elsewhere = dataclasses.replace(wanted, target=Path("/dev/shm/none"))
    assert export_state(elsewhere, PASS, cost=CHEAP).dry_run, "another filesystem"


def rewrap(change: Callable[[dict[str, bytes]], None]) -> Callable[[bytes], bytes]:
    """Return what seals the content of an export again after `change`."""

    def do(sealed: bytes) -> bytes:
        content = open_reader(io.BytesIO(sealed), PASS).read()
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            members = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
        change(members)
        file = io.BytesIO()
        writer = open_writer(file, PASS, bytes(16), CHEAP)
        with tarfile.open(fileobj=writer, mode="w|") as tar:  # type: ignore[call-overload]
            for name, data in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        writer.close()
        return file.getvalue()

    return do


def newer(members: dict[str, bytes]) -> None:
    text = members["export.json"]
    start = text.index(b'"schema":"') + 10
    members["export.json"] = text[:start] + b"9999" + text[start + 4 :]


def other_keys(members: dict[str, bytes]) -> None:
    members["site/vault.key"] = b"00" * 32


def climbing(members: dict[str, bytes]) -> None:
    members["store/../../evil"] = b"x"


def no_database(members: dict[str, bytes]) -> None:
    del members["cloner.db"]


def broken_database(members: dict[str, bytes]) -> None:
    members["cloner.db"] = members["cloner.db"][:5000]


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda data: data[:-1], IntegrityError, "cut off"),
        (lambda data: data[: len(data) // 2], IntegrityError, "cut off|damaged"),
        (lambda data: data[:30], InvalidError, "not an export"),
        (lambda data: data[:1000] + bytes([data[1000] ^ 4]) + data[1001:], IntegrityError, "piece 1 .*damaged"),
        (lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:], IntegrityError, "damaged"),
        (lambda data: data + b"x", IntegrityError, "damaged"),
        (lambda data: b"#!/bin/sh\n" * 50, InvalidError, "not an export"),
        (rewrap(newer), RefusedError, "newer Cloner"),
        (rewrap(other_keys), IntegrityError, "n01"),
        (rewrap(climbing), IntegrityError, "no export does"),
        (rewrap(no_database), IntegrityError, "lacks"),
        (rewrap(broken_database), ClonerError, "cannot be used|damaged"),
    ],
    ids=[
        "last byte",
        "half",
        "header",
        "bit",
        "last piece",
        "longer",
        "script",
        "newer",
        "vault",
        "path",
        "db",
        "torn",
    ],
)
def test_a_spoilt_export_leaves_nothing(
    scene: Scene, out: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], error: type[ClonerError], says: str
) -> None:
    export(scene, out, has_packs=True)
    out.write_bytes(spoil(out.read_bytes()))
    before = tree(tmp_path)
    with pytest.raises(error, match=says):
        take(out, tmp_path / "new")
    assert tree(tmp_path) == before


def test_a_wrong_passphrase_leaves_nothing(scene: Scene, out: Path, tmp_path: Path) -> None:
    export(scene, out)
    with pytest.raises(RefusedError, match="passphrase is wrong"):
        take(out, tmp_path / "new", b"wrong, wrong and wrong")
    assert not (tmp_path / "new").exists()


def test_only_a_blank_directory_is_taken(scene: Scene, out: Path, tmp_path: Path) -> None:
    export(scene, out)
    new = tmp_path / "new"
    (new / "lost+found").mkdir(parents=True)
    (new / "keep").write_text("mine")
    with pytest.raises(RefusedError, match="not blank: it has keep"):
        take(out, new)
    assert (new / "keep").read_text() == "mine"
    with pytest.raises(RefusedError, match="not blank"):
        take(out, scene.core.state_directory)
    (new / "keep").unlink()
    take(out, new)
    with pytest.raises(RefusedError, match="not blank"):
        take(out, new)


def test_settings_that_are_there_stay(scene: Scene, out: Path, tmp_path: Path) -> None:
    export(scene, out)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "server.toml").write_text("tls_port = 1\n")
    assert "stays" in take(out, tmp_path / "new").config
    assert (tmp_path / "etc" / "server.toml").read_text() == "tls_port = 1\n"
    assert (tmp_path / "new" / "server.toml.imported").read_text() == "tls_port = 9443\n"


@pytest.mark.parametrize("calls", range(7))
def test_an_import_killed_while_it_places_is_done_again(
    scene: Scene, out: Path, tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the n-th rename or removal of what is placed: settings, four parts, `.import`; the last one is not killed."""
    with_shelf(scene, tmp_path / "installer")
    assert put_installer(scene).status_code == 200
    export(scene, out, has_packs=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "server.toml").write_text("tls_port = 1\n")
    new, left = tmp_path / "new", calls

    class Killed(BaseException):
        pass

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def do(*arguments: object, **more: object) -> object:
            nonlocal left
            if "new" in str(arguments[-1]) and (new / ".import").is_dir() and left == 0:
                raise Killed
            left -= "new" in str(arguments[-1])
            return real(*arguments, **more)

        return do

    real_place = importing._place

    def place(work: Path, wanted: importing.Wanted) -> str:
        with monkeypatch.context() as mortal:
            mortal.setattr(os, "rename", dying(os.rename))
            mortal.setattr(shutil, "rmtree", dying(shutil.rmtree))
            return real_place(work, wanted)

    monkeypatch.setattr(importing, "_place", place)
    was_killed = False
    try:
        take(out, new)
    except Killed:
        was_killed = True
        with pytest.raises(ClonerError, match="not finished"):
            open_scene(new)
        monkeypatch.setattr(importing, "_place", real_place)
        take(out, new)
    assert was_killed == (calls < 6)
    assert tree(new / "installers") == tree(scene.core.state_directory / "installers") != {}
    again = open_scene(new)
    assert len(again.core.catalog.store.numbers("golden")) == 1
    again.core.database.close()
    assert not (new / ".import").exists()


def test_an_export_of_an_older_database_is_brought_to_the_present_form(scene: Scene, out: Path, tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    from cloner_server.state import migrations

    state = tmp_path / "old"
    shutil.copytree(scene.core.state_directory, state)
    for path in state.glob("cloner.db*"):
        path.unlink()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{state / 'cloner.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    engine.dispose()
    wanted = making.Wanted(state, tmp_path / "none", out, "t")
    assert export_state(wanted, PASS, cost=CHEAP).schema == "0003"
    assert take(out, tmp_path / "new").nodes == 0
    open_scene(tmp_path / "new").core.database.close()
