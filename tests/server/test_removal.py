"""A version is removed only when nothing uses it, for good, and its bytes go with the next gc."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from cloner_server.export import importing, making
from cloner_server.export.importing import import_state
from cloner_server.export.making import export_state
from cloner_server.export.sealing import Cost
from cloner_server.state import images, removal
from cloner_server.store.local import LocalStore
from serverbench.scene import Scene, open_scene
from store_images import BOOTABLE, Image, Key, files_from, make_image, some_contents


def publish(scene: Scene, seed: int = 2) -> Image:
    image = make_image(some_contents(seed) | BOOTABLE)
    image.put(scene.core.catalog.store)
    record = scene.core.catalog.store.publish(image.draft)
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("test"), record.image, record.number, record.version)
    return image


def remove(scene: Scene, number: int, status: int = 200) -> dict[str, object]:
    answer = scene.admin("DELETE", f"/images/golden/versions/{number}")
    assert answer.status_code == status, answer.text
    told: dict[str, object] = answer.json()
    return told


def age(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))


def test_what_was_removed_is_nowhere_and_its_number_is_never_given_again(scene: Scene) -> None:
    publish(scene)
    assert remove(scene, 2)["newest"] == 1
    assert [one["number"] for one in scene.admin("GET", "/images").json()] == [1]
    assert scene.admin("GET", "/images/golden", number=2).status_code == 404
    assert scene.core.catalog.store.numbers("golden") == [1]
    publish(scene, 3)
    assert [one["number"] for one in scene.admin("GET", "/images").json()] == [1, 3]
    (event,) = [e for e in scene.admin("GET", "/events", subject="image/golden:2").json() if e["what"] == "removed"]
    assert event["author"] == "root"
    remove(scene, 2, status=404)


def test_only_what_nothing_uses_is_removed_and_all_that_does_is_named(scene: Scene) -> None:
    publish(scene)
    scene.admin("PATCH", "/images/golden/channels/prod", {"version": 2})
    scene.add_node("n01", version=2)
    scene.add_node("n02", "52:54:00:00:00:02")
    task = scene.arm("n02")
    before = scene.state_dump()
    told = str(remove(scene, 2, status=409)["error"])
    for user in ("channel golden:prod", "node n01", f"task {task} on n02, which is queued"):
        assert user in told
    assert scene.state_dump() == before
    scene.admin("POST", f"/tasks/{task}/abort")
    scene.admin("PATCH", "/nodes/n01", {"version": None})
    scene.admin("DELETE", "/images/golden/channels/prod")
    told_of = remove(scene, 2)
    assert (told_of["newest"], told_of["nodes"]) == (1, ["n01", "n02"])


def test_the_last_version_of_an_image_that_nodes_have_stays(scene: Scene) -> None:
    scene.add_node()
    assert "n01, whose image has no other version" in str(remove(scene, 1, status=409)["error"])
    scene.admin("PATCH", "/nodes/n01", {"image": ""})
    assert remove(scene, 1)["newest"] == 0
    assert scene.admin("GET", "/images").json() == []
    publish(scene)
    assert [one["number"] for one in scene.admin("GET", "/images").json()] == [2]


def test_a_task_of_a_removed_version_is_not_queued_again(scene: Scene) -> None:
    scene.add_node()
    task = scene.arm()
    publish(scene)
    scene.admin("POST", f"/tasks/{task}/abort")
    remove(scene, 1)
    answer = scene.admin("POST", f"/tasks/{task}/retry")
    assert answer.status_code == 409
    assert "golden:1" in answer.json()["error"]
    assert "cloner deploy --nodes n01" in answer.json()["hint"]


def test_a_dry_run_removes_nothing(scene: Scene) -> None:
    publish(scene)
    before = scene.state_dump()
    assert scene.admin("DELETE", "/images/golden/versions/2", dry_run="true").status_code == 200
    assert scene.state_dump() == before
    assert scene.core.catalog.store.numbers("golden") == [1, 2]


def test_a_kill_between_database_and_store_is_made_up_for_at_the_next_start(scene: Scene) -> None:
    publish(scene)
    with scene.core.database.write() as connection:
        removal.remove_version(connection, scene.core.act("test"), "golden", 2)
    scene.core.database.close()
    again = open_scene(scene.core.state_directory)
    assert [one["number"] for one in again.admin("GET", "/images").json()] == [1]
    assert again.core.catalog.store.numbers("golden") == [1]
    again.core.database.close()


def test_a_start_beside_an_export_makes_up_for_a_removal_at_once(scene: Scene) -> None:
    publish(scene)
    with scene.core.database.write() as connection:
        removal.remove_version(connection, scene.core.act("test"), "golden", 2)
    scene.core.database.close()
    beside = LocalStore(scene.core.state_directory / "store")
    with ThreadPoolExecutor(1) as pool, beside.files.locked():
        again = pool.submit(open_scene, scene.core.state_directory).result(timeout=20)
    assert again.core.catalog.store.numbers("golden") == [1]
    again.core.database.close()


def test_a_version_that_is_removed_while_it_is_exported_is_exported(scene: Scene, tmp_path: Path) -> None:
    publish(scene)
    target, passphrase = tmp_path / "cloner.state", b"correct horse battery"
    wanted = making.Wanted(scene.core.state_directory, tmp_path / "none.toml", target, "tester", has_packs=True)

    def remove_it(done: int, total: int) -> None:
        if 2 in scene.core.catalog.store.numbers("golden"):
            remove(scene, 2)

    export_state(wanted, passphrase, cost=Cost(4, 1, 1), progress=remove_it)
    assert scene.core.catalog.store.numbers("golden") == [1]
    import_state(importing.Wanted(target, tmp_path / "new", tmp_path / "etc" / "server.toml", "tester"), passphrase)
    again = open_scene(tmp_path / "new")
    assert again.core.catalog.store.numbers("golden") == [1, 2]
    assert again.core.catalog.store.check(read_data=True).faults == ()
    again.core.database.close()


def test_a_spent_number_stays_spent_in_an_exported_state(scene: Scene, tmp_path: Path) -> None:
    publish(scene)
    remove(scene, 2)
    target = tmp_path / "cloner.state"
    wanted = making.Wanted(scene.core.state_directory, tmp_path / "none.toml", target, "tester", has_packs=True)
    export_state(wanted, b"correct horse battery", cost=Cost(4, 1, 1))
    import_state(
        importing.Wanted(target, tmp_path / "new", tmp_path / "etc" / "server.toml", "tester"), b"correct horse battery"
    )
    again = open_scene(tmp_path / "new")
    publish(again, 3)
    assert [one["number"] for one in again.admin("GET", "/images").json()] == [1, 3]
    again.core.database.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", Key())


def published(store: LocalStore, seed: int = 0) -> Image:
    image = make_image(some_contents(seed))
    image.put(store)
    store.publish(image.draft)
    return image


def test_the_bytes_of_a_removed_version_go_with_the_next_gc(store: LocalStore) -> None:
    image, other = published(store), published(store, 1)
    age(store.files.root)
    store.remove_version("golden", 1)
    store.remove_version("golden", 1)  # sent again after a lost answer
    store.gc(3600)
    assert {name for name, _ in store.packs.names()} == {pack.digest for pack in other.packs}
    assert image.packs[0].digest not in {pack.digest for pack in other.packs}
    assert store.check(read_data=True).faults == ()


def test_who_reads_the_store_for_hours_holds_up_no_removal(store: LocalStore) -> None:
    published(store)
    with ThreadPoolExecutor(1) as pool, store.files.locked():
        pool.submit(store.remove_version, "golden", 1).result(timeout=20)
    assert store.spent_numbers("golden") == [1]


def test_nobody_gives_a_number_while_a_version_is_taken_away(store: LocalStore) -> None:
    published(store)
    with ThreadPoolExecutor(2) as pool:
        with store.files.numbering():
            both: list[Future[Any]] = [
                pool.submit(published, store, 1),
                pool.submit(store.remove_version, "golden", 1),
            ]
            assert wait(both, timeout=0.5).done == set()
        for one in both:
            one.result(timeout=20)
    assert (store.numbers("golden"), store.spent_numbers("golden")) == ([2], [1])


def test_gc_keeps_the_base_of_a_capture_that_runs_though_it_was_removed(store: LocalStore) -> None:
    image = published(store)
    age(store.files.root)
    base = store.base("golden")
    assert base is not None
    store.remove_version("golden", 1)
    assert store.gc(3600).files == 0
    capture = make_image(some_contents())
    store.publish(type(capture.draft)("golden", capture.draft.root, (), base.version))
    assert store.version("golden").number == 2
    assert files_from(store, image.version) == some_contents()
    store.remove_version("golden", 2)
    age(store.files.root)
    store.gc(3600)
    assert list(store.packs.names()) == []


def test_a_publish_that_was_undone_gives_its_number_back(store: LocalStore) -> None:
    published(store)
    store.take_back("golden", 1)
    published(store, 1)
    assert store.numbers("golden") == [1]
