"""Tokens: what a command on another machine may do with one, and for how long."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from cloner_core.image.compression import compress
from cloner_core.layout import parse_layout
from serverbench.scene import LAYOUT, Scene
from store_images import BOOTABLE, Image, make_image, some_contents

OTHER = LAYOUT.replace('"simple"', '"other"')
CHANGED = LAYOUT.replace("512MiB", "600MiB")


def make(scene: Scene, image: str = "golden", **fields: Any) -> dict[str, Any]:
    answer = scene.admin("POST", "/tokens", {"image": image, **fields})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def ask(scene: Scene, token: str, method: str, path: str, **sent: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}", "cloner-author": "anna"} if token else {}
    return scene.agents.request(method, f"/v1{path}", headers=headers, **sent)


def publish(scene: Scene, token: str, image: Image) -> httpx.Response:
    for segment in image.segments:
        path = f"/segments/{segment.ref.digest.hex()}"
        put = ask(scene, token, "PUT", path, params={"raw_size": len(segment.raw)}, content=compress(segment.raw))
        assert put.status_code == 200, put.text
    for pack in image.packs:
        put = ask(scene, token, "PUT", f"/packs/{pack.digest.hex()}", content=pack.stored)
        assert put.status_code == 200, put.text
    return ask(scene, token, "POST", "/publish", content=msgspec.msgpack.encode(image.draft))


def layout(scene: Scene, token: str, text: str) -> httpx.Response:
    return ask(scene, token, "POST", "/layouts", content=msgspec.json.encode(parse_layout(text)))


def test_a_token_captures_a_version_of_its_image(scene: Scene) -> None:
    made = make(scene)
    record = publish(scene, made["token"], make_image(some_contents() | BOOTABLE | {b"etc/new": b"new"}))
    assert (record.status_code, record.json()["number"]) == (200, 2)
    assert ask(scene, made["token"], "GET", "/images/golden").json()["author"] == f"token {made['id']} (anna)"
    assert ask(scene, made["token"], "GET", "/chunks/known", params={"image": "golden"}).status_code == 200


@pytest.mark.parametrize("onto", ["0" * 64, f"{'0' * 64}:", f"{'0' * 64}:-1", f"{'0' * 64}:{'9' * 5000}", "x:1"])
def test_a_segment_that_builds_on_nonsense_is_refused(scene: Scene, onto: str) -> None:
    query = {"raw_size": 10, "onto": onto}
    answer = ask(scene, make(scene)["token"], "PUT", f"/segments/{'1' * 64}", params=query, content=b"x")
    assert answer.status_code == 400, answer.text
    assert "is not" in answer.json()["error"]


def test_a_token_opens_no_other_image(scene: Scene) -> None:
    token = make(scene, "other")["token"]
    refused = publish(scene, token, make_image(some_contents() | BOOTABLE))
    assert (refused.status_code, refused.json()["error"]) == (409, "this token is for the image 'other' and no other")
    assert ask(scene, token, "GET", "/images/golden").status_code == 409
    assert ask(scene, token, "GET", "/chunks/known", params={"image": "golden"}).status_code == 409
    assert len(scene.admin("GET", "/images").json()) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/images"), ("GET", "/nodes"), ("POST", "/deploy"), ("GET", "/tokens"), ("POST", "/store/gc")],
)
def test_the_port_of_nodes_has_nothing_else_of_the_admins(scene: Scene, method: str, path: str) -> None:
    assert ask(scene, make(scene)["token"], method, path).status_code == 404


@pytest.mark.parametrize("method", ["unknown", "none", "scheme"])
def test_without_a_token_nothing_is_looked_at(scene: Scene, method: str) -> None:
    token = make(scene)["token"]
    headers = {"unknown": f"Bearer {token}x", "none": "", "scheme": f"Basic {token}"}[method]
    answer = scene.agents.put(f"/v1/packs/{'0' * 64}", headers={"authorization": headers}, content=b"x" * 1000)
    assert answer.status_code == 401
    assert "cloner token create" in answer.json()["hint"]


def test_a_token_ends(scene: Scene) -> None:
    made = make(scene, lifetime_s=60.0)
    path = "/images/golden"
    assert ask(scene, made["token"], "GET", path).status_code == 200
    scene.clock.now_s += 61
    gone = ask(scene, made["token"], "GET", path)
    assert (gone.status_code, gone.json()["error"], gone.json()["status"]) == (401, "the token is no longer good", 4)


def test_a_token_is_withdrawn(scene: Scene) -> None:
    made = make(scene)
    assert scene.admin("DELETE", f"/tokens/{made['id']}").status_code == 200
    assert ask(scene, made["token"], "GET", "/images/golden").status_code == 401
    assert scene.admin("DELETE", f"/tokens/{made['id']}").status_code == 404
    told = scene.admin("GET", "/events", subject=f"token/{made['id']}").json()
    assert [(one["what"], one["detail"]["image"]) for one in told] == [("made", "golden"), ("withdrawn", "golden")]


def test_a_token_is_told_once(scene: Scene) -> None:
    made = make(scene, note="rack 7", layouts=["simple"])
    (view,) = scene.admin("GET", "/tokens").json()
    assert view == made | {"token": ""}
    assert all(made["token"] not in str(row) for row in scene.state_dump())


def test_use_is_noted(scene: Scene) -> None:
    made = make(scene)
    scene.clock.now_s += 100
    ask(scene, made["token"], "GET", "/images/golden")
    scene.clock.now_s += 10  # thousands of packs are no thousand writes
    ask(scene, made["token"], "GET", "/images/golden")
    (view,) = scene.admin("GET", "/tokens").json()
    assert view["used_s"] == made["created_s"] + 100


def test_a_token_adds_a_layout_and_changes_none_it_was_not_given(scene: Scene) -> None:
    token = make(scene)["token"]
    assert layout(scene, token, OTHER).json()["number"] == 1
    refused = layout(scene, token, CHANGED)
    assert refused.status_code == 409
    assert refused.json()["error"] == "this token may not change the layout 'simple'"
    assert layout(scene, make(scene, layouts=["simple"])["token"], CHANGED).json()["number"] == 2


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"image": "a b"}, "image"),
        ({"image": "golden", "layouts": ["../x"]}, "layouts"),
        ({"image": "golden", "lifetime_s": 0}, "lifetime_s"),
        ({"image": "golden", "lifetime_s": 1e9}, "lifetime_s"),
    ],
)
def test_a_token_that_cannot_be(scene: Scene, fields: dict[str, Any], path: str) -> None:
    answer = scene.admin("POST", "/tokens", fields)
    assert answer.status_code == 400
    assert scene.admin("GET", "/tokens").json() == [], path


def test_a_token_is_told_what_it_is_for(scene: Scene) -> None:
    made = make(scene, layouts=["simple"])
    told = ask(scene, made["token"], "GET", "/token").json()
    assert (told["id"], told["image"], told["layouts"], told["token"]) == (made["id"], "golden", ["simple"], "")
    assert ask(scene, "nonsense", "GET", "/token").status_code == 401
    assert ask(scene, "", "GET", "/token").status_code == 401
    assert scene.admin("GET", "/token").status_code == 404, "root has none"
