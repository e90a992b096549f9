"""A version and the options it brings are shown together, or not at all, wherever the server was killed."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.image.options import StoredOptions
from serverbench.scene import Scene, open_scene
from store_images import BOOTABLE, make_image, some_contents

OPTIONS = StoredOptions("simple", ("/srv/data",), ())


def killed_before_it_is_shown(scene: Scene, *, revision: int) -> None:
    """Leave a version in the store that the database does not know, as a kill in a publish does."""
    image = make_image(some_contents(2) | BOOTABLE)
    image.put(scene.core.catalog.store)
    draft = msgspec.structs.replace(image.draft, options=OPTIONS, options_revision=revision)
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
