"""Eight admins change options, channels, keep rules and scripts of one image at once, by compare-and-swap over the API.

Each writer notes what it was granted. In the end the objects, and the audit, must be just that: every granted change
under a revision of its own, none skipped, the last of them in force.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from litestar.testing import TestClient

from cloner_server.api.app import admin_app
from cloner_server.state import images
from serverbench.scene import Scene, make_template, open_scene
from soak.law import Case, Figures, Law, require

WRITERS = 8
CHANGES = 1000
_IMAGE = "golden"
_SHOWN = 10_000


@dataclass(frozen=True)
class _Object:
    """Something with a revision: how it is read, and the request that gives it another value."""

    events: str  # object and word of its events
    what: str
    read: Callable[[TestClient[Any]], tuple[int, Any]]  # revision (0: none yet) and value
    write: Callable[[Any, int, random.Random], tuple[str, str, Any, Any]]  # method, path, body, value it stands for


def _channel(name: str) -> _Object:
    def read(client: TestClient[Any]) -> tuple[int, Any]:
        views = client.get("/v1/channels", params={"image": _IMAGE}).json()
        return next(((view["revision"], view["version"]) for view in views if view["channel"] == name), (0, None))

    def write(value: Any, revision: int, _: random.Random) -> tuple[str, str, Any, Any]:
        other = 2 if value == 1 else 1
        return "PATCH", f"/v1/images/{_IMAGE}/channels/{name}", {"version": other, "revision": revision}, other

    return _Object(f"channel/{_IMAGE}:{name}", "set", read, write)


def _read_rule(client: TestClient[Any]) -> tuple[int, Any]:
    views = client.get("/v1/keep-rules", params={"image": _IMAGE}).json()
    return next(((view["revision"], view["rule"]["last"]) for view in views if not view["channel"]), (0, None))


def _write_rule(value: Any, revision: int, chance: random.Random) -> tuple[str, str, Any, Any]:
    last = chance.choice([number for number in range(1, 100) if number != value])
    return "PATCH", f"/v1/images/{_IMAGE}/keep-rule", {"rule": {"last": last}, "revision": revision}, last


def _read_scripts(client: TestClient[Any]) -> tuple[int, Any]:
    view = client.get(f"/v1/images/{_IMAGE}/scripts", params={"version": "1"}).json()
    return view["number"], view["scripts"][0]["content"] if view["scripts"] else None


def _write_scripts(_: Any, revision: int, chance: random.Random) -> tuple[str, str, Any, Any]:
    content = f"#!/bin/sh\n# {chance.getrandbits(64):016x}\n"
    put = {"type": "post", "name": "site", "content": content}
    return "POST", f"/v1/images/{_IMAGE}/scripts?version=1", {"put": put, "number": revision}, content


def _read_options(client: TestClient[Any]) -> tuple[int, Any]:
    view = client.get(f"/v1/images/{_IMAGE}/options").json()
    return view["revision"], view["options"]["exclude_paths"] if view["options"] else None


def _write_options(_: Any, revision: int, chance: random.Random) -> tuple[str, str, Any, Any]:
    paths = [f"/srv/{chance.getrandbits(64):016x}"]
    body = {"options": {"exclude_paths": paths}, "revision": revision}
    return "PATCH", f"/v1/images/{_IMAGE}/options", body, paths


_OBJECTS = (
    _Object(f"image/{_IMAGE}", "options changed", _read_options, _write_options),
    _channel("prod"),
    _channel("test"),
    _Object(f"image/{_IMAGE}", "keep rule set", _read_rule, _write_rule),
    _Object(f"image/{_IMAGE}:1", "scripts changed", _read_scripts, _write_scripts),
)


@dataclass(frozen=True)
class _Granted:
    place: int  # of the object
    revision: int
    author: str
    value: Any


def contend(scene: Scene, seed: int, changes: int) -> Figures:
    """Have the writers make `changes` changes together; raises LawBrokenError when one of them was lost."""
    share, late, app = changes // WRITERS, [0] * WRITERS, admin_app(lambda: scene.core)

    def write(writer: int) -> list[_Granted]:
        chance, author, granted = random.Random(seed * WRITERS + writer), f"writer{writer}", list[_Granted]()
        client = TestClient(app)
        while len(granted) < share:
            place = chance.randrange(len(_OBJECTS))
            revision, value = _OBJECTS[place].read(client)
            method, path, body, wanted = _OBJECTS[place].write(value, revision, chance)
            headers = {"content-type": "application/json", "cloner-author": author}
            answer = client.request(method, path, content=msgspec.json.encode(body), headers=headers)
            require(answer.status_code in (200, 409), f"{method} {path}: {answer.status_code} {answer.text}")
            if answer.status_code == 409:
                late[writer] += 1
                continue
            granted.append(_Granted(place, revision + 1, author, wanted))
        return granted

    with ThreadPoolExecutor(WRITERS) as pool:
        granted = [one for each in pool.map(write, range(WRITERS)) for one in each]
    client = TestClient(app)
    for place, thing in enumerate(_OBJECTS):
        own = sorted((one for one in granted if one.place == place), key=lambda one: one.revision)
        revisions = [one.revision for one in own]
        require(revisions == list(range(1, len(own) + 1)), f"{thing.events}: granted as revisions {revisions}")
        told = client.get("/v1/events", params={"subject": thing.events, "limit": _SHOWN}).json()
        audit = [(one["revision"], one["author"]) for one in told if one["what"] == thing.what]
        require(audit == [(one.revision, one.author) for one in own], f"{thing.events}: the audit tells others")
        if own:
            require(
                thing.read(client) == (own[-1].revision, own[-1].value), f"{thing.events}: the last one is not in force"
            )
    return {"granted": len(granted), "refused as too late": sum(late)}


def add_version(scene: Scene) -> None:
    """Give the image a second version, for channels to move to."""
    record = scene.core.catalog.store.publish(scene.image.draft)
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("test"), record.image, record.number, record.version)


@contextmanager
def open_lost_updates(work: Path) -> Iterator[Case]:
    """Every case has a server of its own, over a copy of one state."""
    make_template(work / "template")

    def case(seed: int) -> Figures:
        with tempfile.TemporaryDirectory(dir=work) as directory:
            state = Path(directory) / "state"
            shutil.copytree(work / "template", state)
            scene = open_scene(state)
            try:
                add_version(scene)
                return contend(scene, seed, CHANGES)
            finally:
                scene.core.database.close()

    yield case


LAW = Law(
    "lost-updates",
    "8 writers, 1000 changes to options, channels, keep rules and scripts of one image: none is lost, all are audited",
    8,
    open_lost_updates,
)
