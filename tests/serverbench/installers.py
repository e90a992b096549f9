"""Installers in a scene: a server with a userland, and what a node sends to make one of its kernel."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import httpx

from cloner_server.installer import Installer, assemble
from cloner_server.serve import ready_shelf
from initramfsbench.node_parts import RELEASE, built_installer, digest, drivers_part, kernel_part
from serverbench.scene import Scene


def with_shelf(scene: Scene, directory: Path) -> Installer:
    """Give the scene's server an installer of its own, made in `directory`; return it."""
    boot = scene.core.state_directory / "boot"
    boot.mkdir(exist_ok=True)
    built = assemble(built_installer(directory), scene.core.site, boot)
    scene.core = dataclasses.replace(scene.core, installer=built.initramfs, shelf=ready_shelf(directory, scene.core))
    return built


def put_installer(
    scene: Scene, name: str = "site", *, kernel: bytes = b"", drivers: bytes = b"", **more: Any
) -> httpx.Response:
    """Put an installer as a node does, and return the answer."""
    parts = kernel or kernel_part(), drivers or drivers_part()
    for part in parts:
        answer = scene.admins.put(f"/v1/installer-parts/{digest(part)}", content=part)
        assert answer.status_code == 200, answer.text
    spec = {"release": RELEASE, "kernel": digest(parts[0]), "drivers": digest(parts[1]), "source": "golden"} | more
    return scene.admin("POST", f"/installers/{name}", spec)
