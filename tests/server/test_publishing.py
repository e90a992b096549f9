"""A version and the options it brings are shown together, or not at all, wherever the server was killed."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from cloner_core.image.options import StoredOptions
from cloner_core.image.version import Base
from cloner_server.publishing import without_record
from cloner_server.store.local import LocalStore
from serverbench.scene import Scene, open_scene
from store_images import BOOTABLE, make_image, some_contents

OPTIONS = StoredOptions("simple", ("/srv/data",), ())


def killed_before_it_is_shown(scene: Scene, *, revision: int, options: StoredOptions = OPTIONS) -> None:
    """Leave a version in the store that the database does not know, as a kill in a publish does."""
    image = make_image(some_contents(2) | BOOTABLE)
    image.put(scene.core.catalog.store)
    draft = msgspec.structs.replace(image.draft, options=options, options_revision=revision)
    scene.core.catalog.store.publish(draft)


@pytest.mark.parametrize("revision", [0, 1], ids=["as the capture found them", "changed meanwhile"])
def test_a_version_of_a_killed_server_brings_its_options_or_does_not_appear(scene: Scene, revision: int) -> None:
    killed_before_it_is_shown(scene, revision=revision)
    scene.core.database.close()
    again = open_scene(scene.core.state_directory)
    shown = [one["number"] for one in again.admin("GET", "/images").json() if one["image"] == "golden"]
    options = again.admin("GET", "/images/golden/options").json()["options"]
    kept = [] if options is None else options["exclude_paths"]
    assert (shown, kept) == (([1, 2], ["/srv/data"]) if revision == 0 else ([1], []))
    assert again.core.catalog.store.numbers("golden") == shown
    again.core.database.close()
    once_more = open_scene(scene.core.state_directory)
    assert once_more.admin("GET", "/images/golden/options").json()["revision"] == len(kept), "nothing is done twice"
    once_more.core.database.close()


def test_a_version_for_a_layout_that_is_gone_keeps_no_server_from_starting(scene: Scene) -> None:
    killed_before_it_is_shown(scene, revision=0, options=StoredOptions("gone"))
    scene.core.database.close()
    again = open_scene(scene.core.state_directory)
    assert again.core.catalog.store.numbers("golden") == [1]
    again.core.database.close()


@pytest.mark.parametrize("number", [1, 2], ids=["of a version that is shown", "of one that is not yet"])
def test_a_record_that_cannot_be_read_hides_no_other_version(scene: Scene, number: int) -> None:
    killed_before_it_is_shown(scene, revision=0)
    scene.core.catalog.store.paths_of("golden", number)[0].write_bytes(b"{garbage")
    scene.core.database.close()
    again = open_scene(scene.core.state_directory)
    shown = {one["number"]: one for one in again.admin("GET", "/images").json()}
    assert list(shown) == ([1, 2] if number == 1 else [1])
    assert ["fault" in one["detail"] for one in shown.values()] == ([True, False] if number == 1 else [False])
    if number == 1:
        assert shown[1]["digest"] == scene.image.version.hex()
        assert "record of version golden/1 cannot be read" in shown[1]["detail"]["fault"]
        assert "fault" in again.admin("GET", "/images/golden", number=1).json()["detail"]
    alarms = [one["object"] for one in again.admin("GET", "/events").json() if one["what"] == "version not shown"]
    assert alarms == (["image/golden:2"] if number == 2 else [])
    stats = again.admin("GET", "/store/stats").json()
    assert [share["number"] for share in stats["versions"]] == [3 - number]
    assert stats["unread"][0].startswith(f"golden:{number}: ")
    again.core.database.close()


def publish(scene: Scene, seed: int, name: str = "fresh", **changes: Any) -> httpx.Response:
    image = make_image(some_contents(seed) | BOOTABLE, name)
    image.put(scene.core.catalog.store)
    draft = msgspec.structs.replace(image.draft, options=OPTIONS, **changes)
    return scene.admins.post("/v1/publish", content=msgspec.msgpack.encode(draft))


def test_the_second_of_two_first_captures_is_told_of_the_first_and_what_it_sent_is_kept(scene: Scene) -> None:
    assert publish(scene, 2, after=0, source="one").status_code == 200
    late = publish(scene, 3, after=0, source="two")
    assert late.status_code == 409
    assert "fresh:1 (from one) was published while this capture ran" in late.json()["error"]
    known = msgspec.msgpack.decode(scene.admins.get("/v1/chunks/known", params={"image": "fresh"}).content, type=Base)
    assert known.also == (make_image(some_contents(3) | BOOTABLE, "fresh").version,)
    assert publish(scene, 3, after=1, source="two", options_revision=1).status_code == 200


def test_options_that_were_changed_meanwhile_are_told_before_anything_is_checked(scene: Scene) -> None:
    assert publish(scene, 2, after=0).status_code == 200
    refused = publish(scene, 3, after=1, options_revision=7)
    assert refused.status_code == 409
    assert "have revision 1, wanted 7" in refused.json()["error"]
    assert scene.core.catalog.store.numbers("fresh") == [1]


def lose_the_record(scene: Scene) -> None:
    scene.core.catalog.store.paths_of("golden", 1)[0].unlink()


def test_a_published_version_without_a_record_is_a_fault_and_no_gc_takes_what_it_needs(scene: Scene) -> None:
    packs = [scene.core.catalog.store.pack_path(pack.digest) for pack in scene.image.packs]
    lose_the_record(scene)
    told = scene.admin("POST", "/store/check").json()
    assert (told["versions"], told["faults"]) == (1, [{"what": "version golden/1", "why": "its record is missing"}])
    assert scene.admin("GET", "/store/stats").json()["unread"] == ["golden:1: its record is missing"]
    for method, path in (("POST", "/store/gc"), ("GET", "/store/plan-gc")):
        refused = scene.admin(method, path, grace_s=0)
        assert (refused.status_code, "version golden/1" in refused.json()["error"]) == (409, True)
    assert all(path.is_file() for path in packs)
    assert scene.admin("DELETE", "/images/golden/versions/1").status_code == 200
    assert scene.admin("POST", "/store/gc", grace_s=0).status_code == 200
    assert not any(path.is_file() for path in packs)


def test_a_removal_at_the_moment_of_the_look_is_no_fault(scene: Scene) -> None:
    class Beside(LocalStore):
        """A store of which a version is removed as it is looked at."""

        def listed(self) -> list[tuple[str, int]]:
            assert scene.admin("DELETE", "/images/golden/versions/1").status_code == 200
            return super().listed()

    assert without_record(scene.core.database, Beside(scene.core.catalog.store.files_root)) == []


def test_a_version_that_is_not_shown_yet_is_no_fault(scene: Scene) -> None:
    killed_before_it_is_shown(scene, revision=0)
    assert without_record(scene.core.database, scene.core.catalog.store) == []


def test_the_number_of_a_version_whose_record_is_lost_is_given_to_no_other(scene: Scene) -> None:
    lose_the_record(scene)
    refused = publish(scene, 2, "golden")
    assert (refused.status_code, "golden:1 was published before" in refused.json()["error"]) == (409, True)
    assert scene.core.catalog.store.images() == []
    scene.admin("DELETE", "/images/golden/versions/1")
    assert publish(scene, 2, "golden").json()["number"] == 2
    assert [one["number"] for one in scene.admin("GET", "/images").json()] == [2]
