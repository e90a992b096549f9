"""Which image nodes have and are to get, told by their names or addresses; and all that an image brings to a node."""

from __future__ import annotations

from sqlalchemy import Connection

from cloner_core.admin.configs import ConfigFilesystem, Identified, IdentifyRequest, ImageConfig, Installed, NodeImage
from cloner_core.admin.images import LayoutView
from cloner_core.admin.nodes import NodeView
from cloner_core.erasing.words import EraseReceipt
from cloner_core.errors import NotFoundError
from cloner_core.facts import normalize_mac
from cloner_core.image.diffing import shown
from cloner_core.image.version import VersionRecord
from cloner_core.scripts import ScriptSetView
from cloner_server.catalog import Version
from cloner_server.state import images, nodes
from cloner_server.state import tasks as rows
from cloner_server.tasks import endings


def identify(connection: Connection, request: IdentifyRequest) -> Identified:
    """Return the image data of the nodes that `request` names, each once, in the order of the values."""
    asked: dict[str, list[str]] = {}
    unknown = []
    names = {node.name for node in nodes.list_nodes(connection)} if request.method == "node" else set()
    for value in dict.fromkeys(request.values):
        name = _owner(connection, value) if request.method == "mac" else value if value in names else ""
        if name:
            asked.setdefault(name, []).append(value)
        else:
            unknown.append(value)
    found = tuple(_node_image(connection, nodes.get_node(connection, name), asked[name]) for name in asked)
    return Identified(nodes=found, unknown=tuple(unknown))


def describe(
    record: VersionRecord,
    version: Version,
    *,
    newest: int,
    published_s: float,
    author: str,
    scripts: ScriptSetView,
    layout: LayoutView,
) -> ImageConfig:
    """Return what a node with this version and this layout gets."""
    root = version.root
    return ImageConfig(
        image=record.image,
        number=record.number,
        newest=newest,
        digest=record.version,
        published_s=published_s,
        author=author,
        message=record.message,
        source=record.source,
        system=f"{root.facts.os_id} {root.facts.os_version}".strip(),
        architecture=root.facts.architecture,
        left_out=root.facts.left_out,
        filesystems=tuple(
            ConfigFilesystem(
                mount=shown(each.mount),
                role=each.role,
                type=each.type,
                inodes=each.inodes,
                data_bytes=each.data_bytes,
                allocated_bytes=each.allocated_bytes,
            )
            for each in root.filesystems
        ),
        inodes=root.inodes,
        data_bytes=root.data_bytes,
        packs=len(version.pack_map.packs),
        stored_bytes=sum(pack.stored_size for pack in version.pack_map.packs),
        scripts=tuple(f"{script.type}-script {script.name}" for script in scripts.scripts),
        scripts_number=scripts.number,
        layout=layout,
    )


def _owner(connection: Connection, text: str) -> str:
    try:
        return nodes.name_of_mac(connection, normalize_mac(text))
    except ValueError:
        return ""


def _node_image(connection: Connection, node: NodeView, asked: list[str]) -> NodeImage:
    number, digest = None, ""
    if node.image:
        try:
            row = images.get_version(connection, node.image, node.version)
            number, digest = row.number, row.digest
        except NotFoundError:  # removed, or not yet captured
            pass
    return NodeImage(
        node=node.name,
        asked=tuple(asked),
        image=node.image,
        version=node.version,
        number=number,
        layout=node.layout,
        netboot=node.netboot,
        installed=_installed(connection, node.name, digest),
    )


def _installed(connection: Connection, name: str, wanted: str) -> Installed | None:
    receipt = endings.receipt_of_node(connection, name)
    if receipt is None or isinstance(receipt, EraseReceipt):
        return None
    task = rows.get_task(connection, receipt.body.task_id)
    return Installed(
        image=task.image,
        number=task.number,
        digest=receipt.body.version_digest,
        layout=f"{task.layout}:{task.layout_number}",
        accepted_s=receipt.accepted_s,
        confirmed_s=receipt.confirmed_s,
        is_wanted=receipt.body.version_digest == wanted,
    )
