"""Two published versions compared over the API: lists of packages are read out of packs, the rest out of trees."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.admin.differences import Difference, ImageDiff
from cloner_core.errors import ExitStatus
from cloner_core.image.compression import compress
from serverbench.scene import Scene
from store_images import BOOTABLE, make_image, some_contents

STATUS = b"Package: bash\nStatus: install ok installed\nVersion: %s\nArchitecture: amd64\n\n"
RELEASE = b'PRETTY_NAME="Debian GNU/Linux %s"\n'


def publish(scene: Scene, contents: dict[bytes, bytes], name: str = "golden") -> int:
    """Publish a version as a capture does; return its number."""
    image = make_image(contents, name)
    for segment in image.segments:
        scene.core.catalog.store.put_segment(segment.ref.digest, len(segment.raw), compress(segment.raw))
    for pack in image.packs:
        scene.core.catalog.store.put_pack(pack.digest, pack.stored)
    answer = scene.admins.post("/v1/publish", content=msgspec.msgpack.encode(image.draft))
    assert answer.status_code == 200, answer.text
    number: int = answer.json()["number"]
    return number


def compare(scene: Scene, name: str, **query: object) -> ImageDiff:
    answer = scene.admin("GET", f"/images/{name}/diff", **query)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=ImageDiff)


def test_packages_and_system_are_read_out_of_both_versions(scene: Scene) -> None:
    before = some_contents() | BOOTABLE | {b"var/lib/dpkg/status": STATUS % b"5.1" + b"x" * (1 << 20)}
    after = some_contents() | BOOTABLE | {b"var/lib/dpkg/status": STATUS % b"5.2" + b"y" * (3 << 20)}
    publish(scene, before | {b"usr/lib/os-release": RELEASE % b"12"})
    publish(scene, after | {b"usr/lib/os-release": RELEASE % b"13", b"etc/motd": b"hello"})
    told = compare(scene, "golden", number=2, other="golden")
    assert told.packages == (Difference("bash", "5.1", "5.2"),)
    assert (told.before.system, told.after.system) == ("Debian GNU/Linux 12", "Debian GNU/Linux 13")
    assert (told.before.number, told.after.number) == (2, 3)
    assert (told.before.packages, told.unread) == (1, ())
    assert [each.path for each in told.etc] == ["/etc", "/etc/motd"]
    assert (told.counts.added, told.counts.removed, told.counts.changed) == (2, 0, 2)
    assert 0 < told.new_stored_bytes < told.after.stored_bytes


def test_a_version_does_not_differ_from_itself(scene: Scene) -> None:
    told = compare(scene, "golden", other="golden")
    assert (told.new_stored_bytes, told.counts.same) == (0, told.after.inodes)
    assert told.unread == (
        "dpkg (/var/lib/dpkg/status): golden:1 has none, or one of more than 64.0 MiB",
        "dpkg (/var/lib/dpkg/status): golden:1 has none, or one of more than 64.0 MiB",
    )


def test_lists_of_others_are_named_and_not_read(scene: Scene) -> None:
    publish(scene, {b"var/lib/rpm/rpmdb.sqlite": b"1", b"var/lib/rpm/Packages": b"1"}, "el")
    publish(scene, {b"var/lib/rpm/rpmdb.sqlite": b"2", b"lib/apk/db/installed": b"1"}, "el")
    unread = compare(scene, "el", number=1, other="el", other_number=2).unread
    assert "rpm (/var/lib/rpm/rpmdb.sqlite): not read; it differs" in unread
    assert "rpm (/var/lib/rpm/Packages): not read; only the first version has it" in unread
    assert "apk (/lib/apk/db/installed): not read; only the second version has it" in unread


@pytest.mark.parametrize(
    ("name", "query"),
    [("nosuch", {"other": "golden"}), ("golden", {"other": "nosuch"}), ("golden", {"other": "golden", "number": 9})],
)
def test_what_is_not_published_is_not_found(scene: Scene, name: str, query: dict[str, object]) -> None:
    answer = scene.admin("GET", f"/images/{name}/diff", **query)
    assert (answer.status_code, answer.json()["status"]) == (404, ExitStatus.NOT_FOUND)


def test_a_damaged_tree_is_no_difference_but_a_fault(scene: Scene) -> None:
    segment = scene.core.catalog.store.segment_path(scene.image.segments[0].ref.digest)
    segment.write_bytes(compress(b"another tree"))
    answer = scene.admin("GET", "/images/golden/diff", other="golden")
    assert answer.json()["status"] == ExitStatus.INTEGRITY
