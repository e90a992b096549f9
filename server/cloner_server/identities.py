"""The identity of a node before it is written: which files an image and the vault would give, with no secret in it."""

from __future__ import annotations

from cloner_core.admin.identities import IdentityPreview
from cloner_core.admin.nodes import NodeView
from cloner_core.identity import (
    IdentityFile,
    IdentityLink,
    IdentityMade,
    ImageIdentity,
    Origin,
    identity_files,
    systems_of,
)
from cloner_core.messages import ConfirmTo, HostKey, Secret, Vaulted
from cloner_server.catalog import Catalog, Version
from cloner_server.imagefiles import iter_inodes

_NO_MACHINE_ID = "0" * 32


def preview(
    node: NodeView, vaulted: Vaulted | None, image: ImageIdentity, confirm: ConfirmTo | None, origin: Origin
) -> IdentityMade:
    """Return what the identity stage would do; without an identity in the vault its files are told by name alone.

    Raises InvalidError naming every fault.
    """
    shown = vaulted or Vaulted(
        machine_id=_NO_MACHINE_ID,
        host_keys=tuple(HostKey(algorithm, Secret(""), "") for algorithm in ("ed25519", "ecdsa", "rsa")),
        random_seed=Secret(""),
    )
    network, files = node.network, node.files
    return identity_files(network, shown, image, confirm, node=node.name, origin=origin, extra_files=files)


def shown_file(file: IdentityFile | IdentityLink) -> IdentityPreview:
    """Return a file as a person may see it."""
    if isinstance(file, IdentityLink):
        return IdentityPreview(path=file.path, mode=0o777, content=f"-> {file.target}")
    if file.is_secret:
        return IdentityPreview(path=file.path, mode=file.mode, content="***", is_secret=True)
    try:
        content = file.content.decode()
    except UnicodeDecodeError:
        content = f"{len(file.content)} bytes: {file.content[:32].hex()}"
    if not content.isprintable() and any(not c.isprintable() and c not in "\n\t" for c in content):
        content = f"{len(file.content)} bytes: {file.content[:32].hex()}"
    return IdentityPreview(path=file.path, mode=file.mode, content=content)


def look_at(catalog: Catalog, version: Version) -> ImageIdentity:
    """Return what a published version says of itself by the names in its tree; contents are not read."""
    paths: set[bytes] = set()
    regular: set[bytes] = set()
    for inode in iter_inodes(catalog.store, version.root):
        if inode.path.startswith((b"etc/", b"usr/sbin/", b"usr/bin/", b"sbin/", b"bin/", b"var/lib/dbus/")):
            paths.add(inode.path)
            if not inode.target:
                regular.add(inode.path)

    def exists(path: str) -> bool:
        # where /bin and /sbin are links to /usr the tree has the latter's names
        return path.encode() in paths or f"usr/{path}".encode() in paths

    return ImageIdentity(
        has_dbus_machine_id=b"var/lib/dbus/machine-id" in regular,
        has_cloud_init=exists("etc/cloud"),
        has_systemd=exists("etc/systemd"),
        has_bash=exists("bin/bash"),
        has_resolvconf=exists("sbin/resolvconf"),
        has_nvme=exists("etc/nvme"),
        has_iscsi=exists("etc/iscsi"),
        has_sshd_parts=exists("etc/ssh/sshd_config.d"),
        network_systems=systems_of(exists),
    )
