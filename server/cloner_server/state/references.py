"""What a node names beside itself: its image and its layout must exist when they are named."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from cloner_core.admin.nodes import NodePatch, NodeView
from cloner_core.errors import NotFoundError
from cloner_core.image.reference import VersionName
from cloner_server.state import images, layouts


def check_references(connection: Connection, image: str, version: VersionName | None, layout: str) -> None:
    """Raise NotFoundError naming the image and the layout that do not exist; "" names none."""
    faults = []
    looks: list[Callable[[], object]] = [lambda: images.get_version(connection, image, version)] if image else []
    looks += [lambda: layouts.get_layout(connection, layout)] if layout else []
    for look in looks:
        try:
            look()
        except NotFoundError as fault:
            faults.append(str(fault))
    if faults:
        raise NotFoundError("; ".join(faults))


def check_patch(connection: Connection, before: NodeView, patch: NodePatch) -> None:
    """Raise NotFoundError when `patch` names an image, a version or a layout that does not exist."""
    is_named = patch.image is not UNSET or patch.version is not UNSET
    image = before.image if isinstance(patch.image, UnsetType) else patch.image
    version = before.version if isinstance(patch.version, UnsetType) else patch.version
    layout = "" if isinstance(patch.layout, UnsetType) else patch.layout
    check_references(connection, image if is_named else "", version, layout)
