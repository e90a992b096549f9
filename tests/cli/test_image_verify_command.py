"""`cloner image-verify`: a whole version is said to be, a damaged one has status 7 and names what is wrong."""

from __future__ import annotations

import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_server.store.local import LocalStore


def test_a_whole_version_has_no_faults(desk: Desk) -> None:
    told = desk.json("image-verify", "--image", "golden")
    assert (told["faults"], told["number"], told["packs"]) == ([], 1, len(desk.scene.image.packs))
    assert told["server_key"] == desk.scene.core.site.public_key.hex()
    assert "faults     none" in desk.run("image-verify", "--image", "golden:1").stdout


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_pack_is_named(desk: Desk, damage: str) -> None:
    pack = desk.scene.image.packs[0].digest
    path = desk.scene.core.catalog.store.pack_path(pack)
    data = path.read_bytes()
    path.unlink()
    if damage == "flipped":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = desk.run("image-verify", "--image", "golden")
    assert result.exit_code == ExitStatus.INTEGRITY
    assert pack.hex() in result.stderr
    assert "1 faults in golden:1" in result.stderr
    assert pack.hex() in desk.run("image-verify", "--image", "golden", "--json").stdout


def test_a_record_that_cannot_be_read_is_a_fault(desk: Desk) -> None:
    store = desk.scene.core.catalog.store
    assert isinstance(store, LocalStore)
    store.record_path("golden", 1).write_bytes(b"{")
    result = desk.run("image-verify", "--image", "golden:1")
    assert result.exit_code == ExitStatus.INTEGRITY


def test_a_record_that_cannot_be_read_is_told_where_images_are_listed(desk: Desk) -> None:
    desk.scene.core.catalog.store.paths_of("golden", 1)[0].write_bytes(b"{garbage")
    listed = desk.run("image-list")
    assert (listed.exit_code, "golden:1" in listed.stdout) == (0, True)
    assert "note: golden:1: the record of version golden/1 cannot be read" in listed.stderr
    details = desk.run("image-details", "--image", "golden").stdout
    assert desk.scene.image.version.hex() in details
    assert "cannot be read" in details


def test_a_record_of_another_tree_than_was_published_is_a_fault(desk: Desk) -> None:
    from cloner_server.state.tables import versions

    with desk.scene.core.database.write() as connection:
        connection.execute(versions.update().values(digest="0" * 64))
    result = desk.run("image-verify", "--image", "golden")
    assert result.exit_code == ExitStatus.INTEGRITY
    assert "0" * 64 in result.stderr


def test_a_version_that_is_not_there_is_not_found(desk: Desk) -> None:
    assert desk.refused("image-verify", "--image", "golden:2").exit_code == ExitStatus.NOT_FOUND


def test_a_server_that_ends_early_has_verified_nothing(desk: Desk) -> None:
    desk.scene.core.stopping.set()
    result = desk.run("image-verify", "--image", "golden")
    assert (result.exit_code, result.stdout) == (ExitStatus.UNREACHABLE, "")
