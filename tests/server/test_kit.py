"""The kit on the plain port: its files and the CA, and nothing else of the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cloner_initramfs.kit import ARCHIVE, INSTALL, archive_name, install_name
from cloner_server.api.kit import kit_routes
from initramfsbench.kits import make_kit
from serverbench.scene import Scene


@pytest.fixture
def http(scene: Scene) -> TestClient:
    return TestClient(Starlette(routes=kit_routes(scene.core)))


def test_without_a_kit_there_is_the_ca_alone(scene: Scene, http: TestClient) -> None:
    assert http.get("/kit/ca.pem").content == scene.core.site.ca_pem
    assert http.get(f"/kit/{INSTALL}").status_code == 404
    assert scene.admin("GET", "/kit").status_code == 404


def test_a_kit_is_given_away_by_the_names_of_its_digests(scene: Scene, http: TestClient) -> None:
    place = Path(scene.core.state_directory, "kit")
    manifest = make_kit(place)
    (place / ARCHIVE).rename(place / archive_name(manifest))
    (place / INSTALL).rename(place / install_name(manifest))
    assert http.get(f"/kit/{archive_name(manifest)}").content == b"an archive"
    shown = scene.admin("GET", "/kit").json()
    script = http.get(shown["install_path"])
    assert script.content == (place / install_name(manifest)).read_bytes()
    assert shown["install_digest"] == manifest.install_digest


@pytest.mark.parametrize("name", ["kit.json", "..%2fsite%2fca.key", "%2e%2e/site/ca.key", "install", "kit-0.tar.gz"])
def test_nothing_else_is(scene: Scene, http: TestClient, name: str) -> None:
    make_kit(Path(scene.core.state_directory, "kit"))
    assert http.get(f"/kit/{name}").status_code == 404
