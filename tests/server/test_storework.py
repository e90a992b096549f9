"""However long the store is held or read, boot scripts are served: nothing of it takes the threads that all share."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import httpx
import msgspec
import pytest

from cloner_core.admin.images import CheckReport
from cloner_core.admin.store import Repacked
from cloner_core.image.compression import compress
from cloner_pxe.decision import BootPolicy
from cloner_server.api.boot import boot_app
from cloner_server.boot import BootDesk
from cloner_server.store.local import LocalStore
from serverbench.scene import Scene

THREADS = 6  # that all share on a machine with two CPUs


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cloner", timeout=60)


def ended_beside_a_boot(scene: Scene, release: Callable[[], object], method: str, path: str, **sent: Any) -> set[int]:
    """Send more requests than there are threads, get a boot script while they wait, have them go on: how they end."""
    policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080")
    boot = boot_app(scene.core, BootDesk(scene.core, policy, None, "https://10.77.0.1:8443"), {})

    async def course() -> set[int]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        async with client(scene.admins.app) as admins, client(boot) as nodes:
            asking = [asyncio.create_task(admins.request(method, f"/v1{path}", **sent)) for _ in range(THREADS + 1)]
            try:
                await asyncio.sleep(0.3)
                script = nodes.get("/boot/ipxe", params={"mac": "52-54-00-00-00-01", "platform": "efi"})
                assert (await asyncio.wait_for(script, 10)).status_code == 200
                assert not any(one.done() for one in asking)
            finally:
                release()
            return {(await one).status_code for one in asking}

    return asyncio.run(course())


def of_image(part: str, scene: Scene) -> tuple[str, str, dict[str, Any]]:
    segment, pack = scene.image.segments[0], scene.image.packs[0]
    name, raw = segment.ref.digest.hex(), segment.raw
    match part:
        case "pack":
            return "PUT", f"/packs/{pack.digest.hex()}", {"content": pack.stored}
        case "segment":
            return "PUT", f"/segments/{name}", {"params": {"raw_size": len(raw)}, "content": compress(raw)}
        case "missing":
            return "POST", "/packs/missing", {"json": {"packs": {pack.digest.hex(): 1}}}
        case _:
            return "POST", "/publish", {"content": msgspec.msgpack.encode(scene.image.draft)}


@pytest.mark.parametrize("part", ["pack", "segment", "missing", "publish"])
def test_a_boot_script_is_served_while_captures_wait_for_a_gc(scene: Scene, part: str) -> None:
    files = cast(LocalStore, scene.core.catalog.store).files
    with ExitStack() as held:
        held.enter_context(files.locked(exclusive=True))
        method, path, sent = of_image(part, scene)
        assert ended_beside_a_boot(scene, held.close, method, path, **sent) == {200}


@pytest.mark.parametrize(
    ("method", "path", "is_alone"),
    [
        ("POST", "/store/gc", False),
        ("POST", "/store/gc?dry_run=true", True),
        ("GET", "/store/plan-gc", True),
        ("GET", "/store/stats", True),
    ],
)
def test_a_boot_script_is_served_while_upkeep_waits(scene: Scene, method: str, path: str, *, is_alone: bool) -> None:
    files = cast(LocalStore, scene.core.catalog.store).files
    files.patience_s = 60.0
    with ExitStack() as held:
        held.enter_context(files.locked(exclusive=is_alone))
        assert ended_beside_a_boot(scene, held.close, method, path) == {200}


class Slow:
    """A store on a disk that takes its time."""

    def __init__(self) -> None:
        self.is_read = threading.Event()

    def listed(self) -> list[tuple[str, int]]:
        return [("golden", 1)]

    def check(self, *, read_data: bool) -> CheckReport:
        self.is_read.wait(60)
        return CheckReport((), 0, 0, 0, 0)

    def repack_sparse(self, below: float, *, dry_run: bool) -> Repacked:
        self.is_read.wait(60)
        return Repacked(0, 0, 0, 0, 0, 0, dry_run=dry_run)


@pytest.mark.parametrize("path", ["/store/check?read_data=true", "/store/repack"])
def test_a_boot_script_is_served_while_the_store_is_read(scene: Scene, path: str) -> None:
    store = Slow()
    catalog = dataclasses.replace(scene.core.catalog, store=cast(Any, store))
    scene.core = dataclasses.replace(scene.core, catalog=catalog)
    assert ended_beside_a_boot(scene, store.is_read.set, "POST", path) == {200}


def test_a_gc_beside_an_export_is_refused_and_a_dry_run_is_not(scene: Scene) -> None:
    files = cast(LocalStore, scene.core.catalog.store).files
    files.patience_s = 0.05
    with files.locked():
        refused = scene.admin("POST", "/store/gc")
        assert (refused.status_code, "state export" in refused.json()["error"]) == (409, True)
        assert scene.admin("POST", "/store/gc", dry_run=True).status_code == 200
        assert scene.admin("GET", "/store/plan-gc").status_code == 200
    assert scene.admin("POST", "/store/gc").status_code == 200
