"""Parts and verifications of versions over the API of admins: only what is published, and only while somebody waits."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import msgspec
import pytest

from cloner_core.admin.images import SignedVersion, VerifyProgress
from cloner_core.image.digest import digest
from cloner_core.image.version import verify_map, verify_version
from cloner_server.api.looking import image_verify
from serverbench.scene import Scene


def signed(scene: Scene) -> SignedVersion:
    return msgspec.json.decode(scene.admin("GET", "/images/golden/signed").content, type=SignedVersion)


def test_a_version_is_told_with_signatures_that_its_key_made(scene: Scene) -> None:
    told = signed(scene)
    key, version = bytes.fromhex(told.server_key), bytes.fromhex(told.version.digest)
    assert key == scene.core.site.public_key
    verify_version(version, bytes.fromhex(told.version.signature), key)
    data = scene.admin("GET", f"/versions/{version.hex()}/{told.version.pack_map}/packmap/{told.version.pack_map}")
    verify_map(data.content, bytes.fromhex(told.version.pack_map_signature), version, key)


def test_every_part_of_a_version_is_sent_as_it_is_stored(scene: Scene) -> None:
    told, store = signed(scene).version, scene.core.catalog.store
    base = f"/versions/{told.digest}/{told.pack_map}"
    assert scene.admin("GET", f"{base}/root/{told.digest}").content == store.root(bytes.fromhex(told.digest))
    for segment in scene.image.segments:
        name = segment.ref.digest
        assert scene.admin("GET", f"{base}/segment/{name.hex()}").content == store.segment_path(name).read_bytes()
    for ordinal, pack in enumerate(scene.image.packs):
        assert scene.admin("GET", f"{base}/pack/{pack.digest.hex()}").content == pack.stored
        placement = store.placement(bytes.fromhex(told.pack_map), ordinal)
        assert scene.admin("GET", f"{base}/placement/{pack.digest.hex()}").content == placement


ZERO = "0" * 64


@pytest.mark.parametrize(
    "path",
    [
        lambda told, pack: f"/versions/{ZERO}/{told.pack_map}/pack/{pack}",
        lambda told, pack: f"/versions/{told.digest}/{ZERO}/pack/{pack}",
        lambda told, pack: f"/versions/{told.digest}/{told.pack_map}/pack/{ZERO}",
        lambda told, pack: f"/versions/{told.digest}/{told.pack_map}/segment/{pack}",
        lambda told, pack: f"/versions/{told.digest}/{told.pack_map}/record/{pack}",
    ],
    ids=["version", "map", "pack", "kind", "no-kind"],
)
def test_what_is_not_of_the_version_is_not_found(scene: Scene, path: Callable[[Any, str], str]) -> None:
    answer = scene.admin("GET", path(signed(scene).version, scene.image.packs[0].digest.hex()))
    assert answer.status_code == 404


def test_what_is_stored_and_not_published_is_not_sent(scene: Scene) -> None:
    told, stray = signed(scene).version, b"stray"
    scene.core.catalog.store.put_pack(digest(stray), stray)
    answer = scene.admin("GET", f"/versions/{told.digest}/{told.pack_map}/pack/{digest(stray).hex()}")
    assert answer.status_code == 404


class Endless:
    """A store whose verification goes on until its watcher ends it."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def verify(self, image: str, number: int, watch: Callable[[VerifyProgress], None]) -> None:
        try:
            done = 0
            while not self.ended.wait(0.001):
                done += 1
                watch(VerifyProgress("packs", done, 1 << 40))
        finally:
            self.ended.set()


def test_a_verification_ends_when_nobody_waits_for_it(scene: Scene) -> None:
    store = Endless()
    core = dataclasses.replace(scene.core, catalog=dataclasses.replace(scene.core.catalog, store=cast(Any, store)))

    async def look_and_leave() -> bytes:
        answer = await image_verify.fn(core, "golden")
        lines = cast(AsyncIterator[bytes], answer.iterator)
        first = await anext(lines)
        await cast(Any, lines).aclose()
        return first

    first = asyncio.run(look_and_leave())
    assert msgspec.json.decode(first, type=VerifyProgress).part == "packs"
    assert store.ended.wait(30)
