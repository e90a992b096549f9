"""Extra files of a node: templates the site gives, with named fields of the node in them.

The language is `${field}` and `$$` for a dollar sign; any other `$` is a fault, so nothing is left unfilled by a typo.
There are no conditions, no loops and no escape: what a node cannot say of itself does not belong in a template.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cloner_core.network import NodeNetwork

MAX_BYTES = 64 << 10  # of one template
MAX_FILES = 64
_FIELD = re.compile(r"\$(?:\$|\{([a-z_0-9]*)\}|)")
_OWN = re.compile(
    r"/etc/(hostname|hosts|hostid|machine-id|ssh/ssh_host_.*|network/interfaces|netplan/.*|iscsi/initiatorname\.iscsi"
    r"|nvme/host(id|nqn)|systemd/network/.*-cloner-.*)|/var/lib/systemd/random-seed|/(proc|sys|dev|run)(/.*)?"
)


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
    elif _OWN.fullmatch(path):
        yield "is written by Cloner itself, or not on a disk"
    if not 0 <= file.mode <= 0o777:
        yield f"mode {file.mode:o} is not from 0 to 777"
    if len(file.content.encode(errors="surrogatepass")) > MAX_BYTES:
        yield f"longer than {MAX_BYTES} bytes"


def _template_faults(template: str, fields: Mapping[str, str]) -> Iterator[str]:
    for number, line in enumerate(template.split("\n"), 1):
        for match in _FIELD.finditer(line):
            if match[0] == "$":
                yield f"line {number}: '$' stands alone: write $$ for a dollar sign, ${{field}} for a field"
            elif match[0] != "$$" and match[1] not in fields:
                known = ", ".join(sorted(fields))
                yield f"line {number}: the node has no '{match[1]}' (it has {known})"
