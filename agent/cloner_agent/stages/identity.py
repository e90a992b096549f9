"""The node's own identity, from the vault into the clone.

Must not decide what belongs to an identity (`cloner_core.identity`); its secrets go into files and nowhere else.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Sequence

from blake3 import blake3

from cloner_agent.attempt import Attempt
from cloner_agent.rooted import Rooted
from cloner_agent.stages.listed import beneath, expand
from cloner_core.identity import (
    IdentityFile,
    IdentityLink,
    ImageIdentity,
    Origin,
    Removal,
    identity_files,
    reads_parts,
    ssh_fingerprint,
    systems_of,
)
from cloner_core.messages import Task
from cloner_core.steps import Identity

log = logging.getLogger(__name__)


def write_identity(attempt: Attempt, action: Identity) -> None:
    """Take the vaulted half from the server, remove what is the golden node's, write what is this node's."""
    vaulted = attempt.tools.server.vaulted()
    record, attempt.recovery_key = attempt.record, vaulted.recovery_key
    with Rooted(attempt.tools.target) as tree:
        task = attempt.task
        made = identity_files(
            task.network,
            vaulted,
            look(tree),
            task.confirm,
            node=task.node,
            origin=_origin(task),
            extra_files=task.files,
        )
        removed = remove(tree, made.removals)
        for file in made.files:
            tree.mkdir(os.path.dirname(file.path))
            match file:
                case IdentityFile():
                    tree.write(file.path, file.content, mode=file.mode, uid=file.uid, gid=file.gid)
                    record.written_identity[os.fsencode(file.path.lstrip("/"))] = blake3(file.content).digest()
                case IdentityLink():
                    tree.unlink(file.path, missing_ok=True)
                    tree.symlink(file.target, file.path)
    for note in made.notes:
        attempt.tools.reporter.note(note)
    record.identity = tuple(file.path for file in made.files)
    record.machine_id = vaulted.machine_id
    record.host_key_fingerprints = tuple(ssh_fingerprint(key.public) for key in vaulted.host_keys)
    log.info("identity: %d files written, removed: %s", len(made.files), ", ".join(removed) or "nothing")


def _origin(task: Task) -> Origin:
    version = task.version
    return Origin(task.node, version.image, version.number, version.digest, task.layout.name, task.task_id)


def remove(tree: Rooted, removals: Sequence[Removal]) -> list[str]:
    """Remove what `removals` stand for and return what of it there was."""
    removed = []
    for path in (removal.path for removal in removals):
        if path.endswith("/**"):
            removed += [path] if _remove_beneath(tree, path.removesuffix("/**")) else []
        else:
            removed += [found for found in expand(tree, path) if _remove(tree, found)]
    return removed


def look(tree: Rooted) -> ImageIdentity:
    """Return what the restored image says of itself."""
    return ImageIdentity(
        hosts=_content(tree, "etc/hosts"),
        hostname=_content(tree, "etc/hostname").decode(errors="replace"),
        has_dbus_machine_id=_is_regular(tree, "var/lib/dbus/machine-id"),
        has_cloud_init=tree.exists("etc/cloud"),
        has_systemd=tree.exists("etc/systemd"),
        has_bash=tree.exists("bin/bash"),
        has_resolvconf=tree.exists("sbin/resolvconf") or tree.exists("usr/sbin/resolvconf"),
        has_nvme=tree.exists("etc/nvme"),
        has_iscsi=tree.exists("etc/iscsi"),
        has_sshd_parts=reads_parts(_content(tree, "etc/ssh/sshd_config")),
        network_systems=systems_of(tree.exists),
    )


def _content(tree: Rooted, path: str) -> bytes:
    return tree.read(path) if tree.exists(path) else b""


def _is_regular(tree: Rooted, path: str) -> bool:
    try:
        return stat.S_ISREG(tree.lstat(path).st_mode)
    except OSError:
        return False


def _remove(tree: Rooted, path: str) -> bool:
    """Remove a file or link; a directory of that name is none of ours, and what is not there is fine."""
    try:
        if stat.S_ISDIR(tree.lstat(path).st_mode):
            return False
        tree.unlink(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True


def _remove_beneath(tree: Rooted, directory: str) -> bool:
    found = beneath(tree, directory)
    for path in found:
        if not _remove(tree, path):
            tree.rmdir(path)
    return bool(found)
