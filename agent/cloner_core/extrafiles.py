"""Extra files of a node: templates the site gives, with named fields of the node in them.

The language is `${field}` and `$$` for a dollar sign; any other `$` is a fault, so nothing is left unfilled by a typo.
There are no conditions, no loops and no escape: what a node cannot say of itself does not belong in a template.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from cloner_core.network import NodeNetwork

MAX_BYTES = 64 << 10  # of one template
MAX_FILES = 64
_FIELD = re.compile(r"\$(?:\$|\{([a-z_0-9]*)\}|)")
_NAME_BYTES, _PATH_BYTES = 255, 4000  # NAME_MAX; PATH_MAX, less what stands before it on the node
_OWN = (
    *("/dev", "/proc", "/run", "/sys"),  # on no disk
    "/etc/NetworkManager/system-connections/cloner-*",
    "/etc/cloner/image.json",
    "/etc/cloud/cloud.cfg.d/99-cloner.cfg",
    "/etc/hostid",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/iscsi/initiatorname.iscsi",
    "/etc/machine-id",
    "/etc/netplan/*",
    "/etc/network/interfaces",
    "/etc/nvme/hostid",
    "/etc/nvme/hostnqn",
    "/etc/ssh/ssh_host_*",
    "/etc/ssh/sshd_config.d/05-cloner.conf",
    "/etc/systemd/network/*-cloner-*",
    "/etc/systemd/system/cloner-confirm.service",
    "/etc/systemd/system/multi-user.target.wants/cloner-confirm.service",
    "/usr/lib/cloner",
    "/var/lib/cloner",
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/random-seed",
)
"""What an identity writes whatever the image is; a test holds it against all that writes one.

Not /etc/resolv.conf, which only a static ifupdown gets: a file of the site's stands in for it.
"""
_DIRECTORIES = re.compile(r"/(bin|boot|etc|home|lib(32|64|x32)?|media|mnt|opt|root|sbin|srv|tmp|usr|var)")  # hier(7)


class ExtraFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the clone, owned by root; `content` is a template. It is no place for secrets: it is shown."""

    path: str  # absolute
    content: str
    mode: int = 0o644


def template_fields(node: str, network: NodeNetwork, machine_id: str) -> dict[str, str]:
    """Return what templates may name; a field the node has no value for is left out, so that using it is a fault."""
    short, _, domain = network.hostname.partition(".")
    links = (*network.interfaces, *network.bonds, *network.vlans)
    address = next((a for link in links for a in link.addresses), "")
    fields = {
        "node": node,
        "hostname": network.hostname,
        "short_hostname": short,
        "domain": domain,
        "machine_id": machine_id,
        "mac": next((interface.mac for interface in network.interfaces), ""),
        "address": address.partition("/")[0],
        "prefix_length": address.partition("/")[2],
        "gateway": next((link.gateway for link in links if link.gateway), ""),
    }
    return {name: value for name, value in fields.items() if value}


def extra_faults(files: Sequence[ExtraFile], fields: Mapping[str, str]) -> list[str]:
    """Return every fault of `files` for a node with these `fields`."""
    faults = [f"files: {len(files)} are given, at most {MAX_FILES} are taken"] if len(files) > MAX_FILES else []
    faults += [f"files: {p} is given {n} times" for p, n in Counter(file.path for file in files).items() if n > 1]
    faults += _nested_faults({file.path for file in files})
    for file in files:
        where = f"files: {file.path}"
        faults += [f"{where}: {fault}" for fault in (*_path_faults(file), *_template_faults(file.content, fields))]
    return faults


def fill(template: str, fields: Mapping[str, str]) -> bytes:
    """Return `template` with its fields filled in; `extra_faults` has found nothing wrong with it."""
    return _FIELD.sub(lambda match: fields[match[1]] if match[1] else "$", template).encode()


def _path_faults(file: ExtraFile) -> Iterator[str]:
    path = file.path
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path or path == "/":
        yield "want an absolute path without '.', '..' or doubled slashes"
    elif not path.isprintable():
        yield "the path has characters that do not print"
    elif _DIRECTORIES.fullmatch(path):
        yield "is a directory on every system"
    elif own := next((own for own in _OWN if _meet(path, own)), None):
        yield f"cannot be beside {own}, which is written by Cloner itself, or not on a disk"
    if len(path.encode(errors="surrogatepass")) > _PATH_BYTES or any(
        len(name.encode(errors="surrogatepass")) > _NAME_BYTES for name in path.split("/")
    ):
        yield f"longer than {_NAME_BYTES} bytes a name, or {_PATH_BYTES} in all"
    if not 0 <= file.mode <= 0o777:
        yield f"mode {file.mode:o} is not from 0 to 777"
    if len(file.content.encode(errors="surrogatepass")) > MAX_BYTES:
        yield f"longer than {MAX_BYTES} bytes"


def _meet(path: str, pattern: str) -> bool:
    """Tell whether the two are one, or one lies beneath the other, which is no directory then."""
    return all(map(fnmatchcase, path.split("/"), pattern.split("/")))


def _nested_faults(paths: set[str]) -> Iterator[str]:
    for path in sorted(paths):
        names = path.split("/")
        above = {"/".join(names[:count]) for count in range(1, len(names))}
        yield from (f"files: {path} lies beneath {one}, which is a file" for one in sorted(above & paths))


def _template_faults(template: str, fields: Mapping[str, str]) -> Iterator[str]:
    for number, line in enumerate(template.split("\n"), 1):
        for match in _FIELD.finditer(line):
            if match[0] == "$":
                yield f"line {number}: '$' stands alone: write $$ for a dollar sign, ${{field}} for a field"
            elif match[0] != "$$" and match[1] not in fields:
                known = ", ".join(sorted(fields))
                yield f"line {number}: the node has no '{match[1]}' (it has {known})"
