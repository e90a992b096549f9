"""Making an identity: every file of one node's clone, from what the server knows and the vault holds."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from cloner_core import confirmation
from cloner_core.errors import InvalidError
from cloner_core.extrafiles import ExtraFile, extra_faults, fill, template_fields
from cloner_core.identity.hosts import hosts_content
from cloner_core.identity.origin import Origin, origin_file
from cloner_core.identity.regeneration import REMOVALS, derived_files
from cloner_core.identity.sshd import certificate_part
from cloner_core.identity.systems import network_files
from cloner_core.identity.values import IdentityFile, IdentityLink, IdentityMade, ImageIdentity
from cloner_core.messages import ConfirmTo, Vaulted
from cloner_core.network import NodeNetwork, network_faults

_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_SEED_BYTES = 512
_RESOLV = "/etc/resolv.conf"  # of ours alone a file of the site may stand in for it


def identity_files(
    network: NodeNetwork,
    vaulted: Vaulted,
    image: ImageIdentity,
    confirm: ConfirmTo | None,
    *,
    node: str = "",
    origin: Origin | None = None,
    extra_files: Sequence[ExtraFile] = (),
) -> IdentityMade:
    """Return the files that make a restored image the node of `network` and `vaulted`.

    `node` is its name, which templates may use; "" takes the host name. `origin` is told in a file of its own.
    Raises InvalidError naming every fault when they cannot be written as they are.
    """
    fields = template_fields(node or network.hostname, network, vaulted.machine_id)
    faults = [*network_faults(network), *extra_faults(extra_files, fields)]
    if not _MACHINE_ID.fullmatch(vaulted.machine_id):
        faults.append(f"machine_id: '{vaulted.machine_id}' is not 32 lower-case hexadecimal digits (machine-id(5))")
    if faults:
        raise InvalidError("the identity cannot be written", faults=faults)
    machine_id = f"{vaulted.machine_id}\n".encode()
    files: list[IdentityFile | IdentityLink] = [
        IdentityFile("/etc/hostname", f"{network.hostname}\n".encode()),
        IdentityFile("/etc/hosts", hosts_content(image.hosts, network.hostname, image.hostname.strip())),
        IdentityFile("/etc/machine-id", machine_id, mode=0o444),
    ]
    if image.has_dbus_machine_id:
        files.append(IdentityFile("/var/lib/dbus/machine-id", machine_id))
    files += derived_files(vaulted.machine_id, image)
    files += _host_key_files(vaulted, network.hostname)
    files += [origin_file(origin)] if origin is not None else []
    removals, written, notes = network_files(network, image, vaulted.machine_id)
    files += written
    if any(key.certificate for key in vaulted.host_keys):
        if image.has_sshd_parts:
            files.append(certificate_part(vaulted))
        else:
            notes.append("sshd of the image reads no sshd_config.d: it does not offer its host certificates")
    if image.has_systemd:
        seed = bytes.fromhex(vaulted.random_seed.value)[:_SEED_BYTES]
        files.append(IdentityFile("/var/lib/systemd/random-seed", seed, mode=0o600, is_secret=True))
    if image.has_cloud_init:
        files.append(IdentityFile("/etc/cloud/cloud.cfg.d/99-cloner.cfg", _CLOUD_INIT))
    if confirm is not None and image.has_systemd and image.has_bash:
        files += _confirm_files(confirm)
    elif confirm is not None:
        notes.append("the image has no systemd or no bash: the clone cannot report that it booted")
    given = {extra.path for extra in extra_files}
    if taken := sorted(given & {file.path for file in files} - {_RESOLV}):  # what `extra_faults` does not know of
        raise InvalidError(
            "the identity cannot be written", faults=[f"files: {path} is Cloner's own" for path in taken]
        )
    files = [file for file in files if file.path not in given]
    files += [IdentityFile(extra.path, fill(extra.content, fields), extra.mode) for extra in extra_files]
    return IdentityMade((*REMOVALS, *removals), tuple(files), tuple(notes))


def ssh_fingerprint(public: str) -> str:
    """Return "SHA256:…" of a public key line, as `ssh-keygen -l` prints it.

    Raises InvalidError when `public` is no OpenSSH public key.
    """
    words = public.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, ValueError) as error:
        raise InvalidError(f"'{public[:40]}' is not an OpenSSH public key") from error
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()


def _host_key_files(vaulted: Vaulted, hostname: str) -> list[IdentityFile]:
    files = []
    for key in vaulted.host_keys:
        path = f"/etc/ssh/ssh_host_{key.algorithm}_key"
        files.append(IdentityFile(path, key.private.value.encode(), mode=0o600, is_secret=True))
        files.append(IdentityFile(f"{path}.pub", f"{key.public.strip()} root@{hostname}\n".encode()))
        if key.certificate:
            files.append(IdentityFile(f"{path}-cert.pub", f"{key.certificate.strip()} root@{hostname}\n".encode()))
    return files


def _confirm_files(confirm: ConfirmTo) -> list[IdentityFile | IdentityLink]:
    content = confirmation.settings_content(confirm)
    return [
        IdentityFile(confirmation.SETTINGS, content, mode=0o600, is_secret=True),
        IdentityFile(confirmation.SCRIPT, confirmation.SCRIPT_CONTENT, mode=0o755),
        IdentityFile(confirmation.UNIT, confirmation.UNIT_CONTENT),
        IdentityLink(confirmation.WANTS, "../cloner-confirm.service"),
    ]


_CLOUD_INIT = b"""# Written by Cloner: cloud-init sees a new machine, and would replace the identity it was given.
ssh_deletekeys: false
ssh_genkeytypes: []
preserve_hostname: true
manage_etc_hosts: false
network: {config: disabled}
"""
