"""Many nodes at once, from a file: added and changed in one transaction, or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection

from cloner_core.admin.nodes import ImportedNode, ImportRequest, ImportResult, NodePatch, NodeSpec, NodeView
from cloner_core.errors import ClonerError, ConflictError, InvalidError, NotFoundError
from cloner_server.state import nodes
from cloner_server.state.database import Act
from cloner_server.state.references import check_patch, check_references

_ONLY_CHANGES = ("fingerprint", "revision")  # fields of a patch that a new node has none of
_HINT = "--update changes nodes that exist"


def import_nodes(connection: Connection, act: Act, request: ImportRequest) -> list[ImportResult]:
    """Add the nodes there are none of, and with `update` change those that differ.

    Raises InvalidError, NotFoundError or ConflictError (whichever comes first of what was found) naming every fault;
    the caller's transaction must then be rolled back.
    """
    known = {node.name: node for node in nodes.list_nodes(connection)}
    differing = {one.name: _differing(known[one.name], one.patch) for one in request.nodes if one.name in known}
    moved = [name for name, fields in differing.items() if "macs" in fields]
    if request.update:
        nodes.release_macs(connection, moved)
    faults: list[tuple[ClonerError, str]] = []
    results = []
    for one in request.nodes:
        try:
            if (before := known.get(one.name)) is None:
                results.append(_add(connection, act, one))
            elif not differing[one.name]:
                results.append(ImportResult(one.name, "unchanged", (), before))
            elif not request.update:
                names = ", ".join(differing[one.name])
                raise ConflictError(f"the node '{one.name}' exists and differs in: {names}", hint=_HINT)
            else:
                results.append(_change(connection, act, one, before, differing[one.name]))
        except InvalidError as fault:
            faults += [(fault, f"{one.where}: {one.name}: {each}") for each in fault.faults or (fault.message,)]
        except (NotFoundError, ConflictError) as fault:
            faults.append((fault, f"{one.where}: {one.name}: {fault.message}"))
    if faults:
        raise _all_of(faults)
    return results


def _add(connection: Connection, act: Act, one: ImportedNode) -> ImportResult:
    given = _given(one.patch)
    check_references(connection, given.get("image", ""), given.get("version"), given.get("layout", ""))
    said = {name: value for name, value in given.items() if name not in _ONLY_CHANGES}
    spec = msgspec.convert(msgspec.to_builtins(said) | {"name": one.name, "macs": given.get("macs", ())}, NodeSpec)
    return ImportResult(one.name, "added", (), nodes.add_node(connection, act, spec))


def _change(
    connection: Connection, act: Act, one: ImportedNode, before: NodeView, fields: tuple[str, ...]
) -> ImportResult:
    check_patch(connection, before, one.patch)
    return ImportResult(one.name, "changed", fields, nodes.change_node(connection, act, one.name, one.patch))


def _given(patch: NodePatch) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(patch).items() if value is not UNSET}


def _differing(before: NodeView, patch: NodePatch) -> tuple[str, ...]:
    """Return the fields in which a node is not yet as `patch` says; the order of MACs and groups says nothing."""
    fields = []
    for name, value in _given(patch).items():
        if name == "revision":
            continue
        there: Any = nodes.own_value(before, name)
        is_same = set(there) == set(value) if name in ("macs", "groups") else there == value
        fields += [] if is_same else [name]
    return tuple(fields)


def _all_of(faults: list[tuple[ClonerError, str]]) -> ClonerError:
    lines = [line for _, line in faults]
    hint = next((fault.hint for fault, _ in faults if fault.hint), "")
    if any(isinstance(fault, InvalidError) for fault, _ in faults):
        return InvalidError("no node was imported", faults=lines, hint=hint)
    kind = NotFoundError if any(isinstance(fault, NotFoundError) for fault, _ in faults) else ConflictError
    return kind("\n  - ".join(("no node was imported", *lines)), hint=hint)
