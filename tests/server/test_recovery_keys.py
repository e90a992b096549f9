"""Recovery keys: made once, kept for ever, sealed, shown to people who are noted."""

from __future__ import annotations

import re
from itertools import pairwise

import msgspec
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import update

from cloner_core.admin.identities import RecoveryKeys
from cloner_core.admin.tasks import EventView
from cloner_core.errors import IntegrityError
from cloner_server import recoverykeys
from cloner_server.state.database import Act
from cloner_server.state.tables import recovery_keys
from serverbench.scene import Scene

ACT = Act("admin", 1000.0)


def ensured(scene: Scene, name: str = "n01") -> str:
    with scene.core.database.write() as connection:
        return recoverykeys.ensure_key(connection, ACT, name, scene.core.site.vault_key).value


def shown(scene: Scene, name: str = "n01") -> tuple[str, ...]:
    answer = scene.admin("POST", f"/recovery-key/{name}")
    return tuple(one.key for one in msgspec.json.decode(answer.content, type=RecoveryKeys).keys)


def test_a_key_has_128_bits_and_only_letters_that_lie_alike_on_keyboards() -> None:
    keys = {recoverykeys.make_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(re.fullmatch(r"([cbdefghijklnrtuv]{4} ){7}[cbdefghijklnrtuv]{4}", key) for key in keys)
    assert len(set("".join(keys)) - {" "}) == 16


def test_a_node_keeps_its_key_and_no_two_have_one(scene: Scene) -> None:
    key = ensured(scene)
    assert ensured(scene) == key
    assert ensured(scene, "n02") != key
    assert shown(scene) == (key,)


def test_a_new_identity_brings_a_new_key_and_keeps_the_former_one(scene: Scene) -> None:
    scene.add_node()
    scene.add_node("n02", "52:54:00:00:00:02")
    before = ensured(scene)
    assert scene.admin("POST", "/deploy", {"nodes": ["n01", "n02"], "new_identity": True}).status_code == 200
    newest, former = shown(scene)
    assert former == before != newest
    assert ensured(scene) == newest
    assert scene.admin("POST", "/recovery-key/n02").status_code == 404, "it never had one, so it needs none"


def test_who_was_shown_a_key_is_noted_and_the_key_is_in_no_event(scene: Scene) -> None:
    key = ensured(scene)
    shown(scene)
    answer = scene.admin("GET", "/events")
    told = [one for one in msgspec.json.decode(answer.content, type=list[EventView]) if "recovery" in one.what]
    assert [(one.what, one.author) for one in told] == [
        ("recovery key made", "admin"),
        ("recovery key shown", "root"),
    ]
    groups = key.split()
    # Two on end: one alone may be a part of a digest.
    assert not any(
        f"{one}{between}{following}" in answer.text for one, following in pairwise(groups) for between in (" ", "")
    )


def test_a_key_lies_sealed_and_opens_for_its_node_and_number_alone(scene: Scene) -> None:
    key = ensured(scene)
    ensured(scene, "n02")
    with scene.core.database.write() as connection:
        (row,) = connection.execute(recovery_keys.select().where(recovery_keys.c.node == "n01"))
        assert key.encode() not in row.sealed
        with pytest.raises(InvalidTag):
            AESGCM(bytes(32)).decrypt(row.nonce, row.sealed, b"recovery key\0n01\x001")
        stolen = update(recovery_keys).where(recovery_keys.c.node == "n02")
        connection.execute(stolen.values(nonce=row.nonce, sealed=row.sealed))
        with pytest.raises(IntegrityError, match="recovery key 1 of 'n02' does not open"):
            recoverykeys.list_keys(connection, "n02", scene.core.site.vault_key)


def test_a_node_without_a_key_is_told_so(scene: Scene) -> None:
    answer = scene.admin("POST", "/recovery-key/n09")
    assert answer.status_code == 404
    assert "no recovery key was made for n09" in answer.text
