"""Parts of installers are large and come from whoever holds a token: they go to the disk, and whole or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import tracemalloc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from cloner_server.shelf import MOST_PART_BYTES
from initramfsbench.node_parts import RELEASE, digest, drivers_part, kernel_part
from serverbench.installers import put_installer, with_shelf
from serverbench.scene import Scene

BLOCK = bytes(range(256)) * 256  # 64 KiB, as the network brings it
DISCONNECT = {"type": "http.disconnect"}


@pytest.fixture
def parts(scene: Scene, tmp_path: Path) -> Path:
    """Return where the server keeps parts."""
    with_shelf(scene, tmp_path / "installer")
    assert scene.core.shelf is not None
    scene.core.shelf.parts.mkdir(exist_ok=True)
    return scene.core.shelf.parts


def sent(scene: Scene, name: str, blocks: Iterable[bytes], *, is_whole: bool = True, announced: int = 0) -> list[int]:
    """Put a part block by block; return the status of the answer, none when there was none."""
    coming, answers = iter(blocks), list[int]()

    async def receive() -> dict[str, Any]:
        if (block := next(coming, None)) is None and not is_whole:
            return DISCONNECT
        return {"type": "http.request", "body": block or b"", "more_body": block is not None}

    async def send(message: dict[str, Any]) -> None:
        answers.extend([message["status"]] if message["type"] == "http.response.start" else [])

    path = f"/v1/installer-parts/{name}"
    headers = [(b"content-length", b"%d" % announced)] if announced else []
    scope = {"type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "root_path": "", "state": {}}
    scope |= {"query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http", "extensions": {}}
    scope |= {"server": ("cloner", 80), "asgi": {"version": "3.0"}}
    asyncio.run(scene.admins.app(scope, receive, send))
    return answers


def test_a_part_goes_to_the_disk_as_it_comes_and_the_memory_holds_a_piece_of_it(scene: Scene, parts: Path) -> None:
    count, seen = 400, list[int]()

    def blocks() -> Iterator[bytes]:
        for _ in range(count):
            seen.append(sum(one.stat().st_size for one in parts.iterdir()))
            yield BLOCK

    name = blake3(BLOCK * count).hexdigest()
    tracemalloc.start()
    try:
        assert sent(scene, name, blocks()) == [200]
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen[-1] > (count - 40) * len(BLOCK)
    assert most_bytes < 16 << 20 < count * len(BLOCK)
    assert [(one.name, one.stat().st_size) for one in parts.iterdir()] == [(name, count * len(BLOCK))]


BROKEN: dict[str, dict[str, Any]] = {
    "more than was named": {"blocks": [BLOCK] * 21},
    "less than was named": {"blocks": [BLOCK] * 19},
    "a connection that ends": {"is_whole": False},
    "more than any part has": {"announced": MOST_PART_BYTES + 1},
    "a name that is no digest": {"name": "z" * 64},
    "a name that is a path": {"name": "..%2f" + "0" * 59},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=list(BROKEN))
def test_a_part_that_does_not_come_whole_leaves_nothing(scene: Scene, parts: Path, change: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"name": blake3(BLOCK * 20).hexdigest(), "blocks": [BLOCK] * 20}
    answers = sent(scene, **{**whole, **change})
    assert all(status >= 400 for status in answers)
    assert answers or change == BROKEN["a connection that ends"]
    assert list(parts.iterdir()) == []
    assert sent(scene, **whole) == [200]


def with_free_bytes(patch: pytest.MonkeyPatch, free_bytes: int) -> None:
    free = free_bytes // 4096
    found = os.statvfs_result((4096, 4096, 1 << 20, free, free, 1 << 20, 1000, 1000, 0, 255))
    patch.setattr(os, "statvfs", lambda path: found)


def test_parts_end_where_the_reserve_of_the_deploys_begins(
    scene: Scene, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scene.core.shelf is not None
    scene.core = dataclasses.replace(scene.core, shelf=dataclasses.replace(scene.core.shelf, reserve_bytes=50 << 20))
    name = blake3(BLOCK * 20).hexdigest()
    with_free_bytes(monkeypatch, (50 << 20) + 10 * len(BLOCK))
    assert sent(scene, name, [BLOCK] * 20) == [507]
    assert list(parts.iterdir()) == []
    with_free_bytes(monkeypatch, (50 << 20) + 20 * len(BLOCK))
    assert sent(scene, name, [BLOCK] * 20) == [200]


def test_an_installer_is_not_put_together_on_the_reserve(
    scene: Scene, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scene.core.shelf is not None
    assert put_installer(scene).status_code == 200
    shelf = dataclasses.replace(scene.core.shelf, reserve_bytes=50 << 20)
    scene.core = dataclasses.replace(scene.core, shelf=shelf)
    spec = {"release": RELEASE, "kernel": digest(kernel_part()), "drivers": digest(drivers_part())}
    with_free_bytes(monkeypatch, 50 << 20)
    assert scene.admin("POST", "/installers/again", spec).status_code == 200, "its files are there"
    for path in shelf.boot.glob("node-initramfs-*"):
        path.unlink()
    assert scene.admin("POST", "/installers/third", spec).status_code == 507
    assert list(shelf.boot.glob("node-initramfs-*")) == []


def test_of_one_part_sent_twice_at_once_both_are_whole(scene: Scene, parts: Path) -> None:
    name = blake3(BLOCK * 40).hexdigest()

    def blocks() -> Iterator[bytes]:
        yield from [BLOCK] * 30
        with ThreadPoolExecutor(1) as beside:  # with a loop of its own
            assert beside.submit(sent, scene, name, [BLOCK] * 40).result() == [200]
        yield from [BLOCK] * 10

    assert sent(scene, name, blocks()) == [200]
    assert [(one.name, one.stat().st_size) for one in parts.iterdir()] == [(name, 40 * len(BLOCK))]
