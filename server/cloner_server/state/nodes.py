"""Nodes: adding, changing by compare-and-swap, finding by key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, delete, insert, select, update

from cloner_core.admin.nodes import Hardware, NodePatch, NodeSpec, NodeView
from cloner_core.errors import ConflictError, InvalidError, NotFoundError, RefusedError
from cloner_core.extrafiles import ExtraFile, extra_faults, template_fields
from cloner_core.facts import Dmi, Facts, normalize_mac
from cloner_core.groups import group_faults
from cloner_core.lldp import Neighbor
from cloner_core.models import setting_of
from cloner_core.network import Interface, NodeNetwork, network_faults
from cloner_server.state import consoles, events, groups, installers, machines, models
from cloner_server.state.database import Act
from cloner_server.state.tables import machines as machine_rows
from cloner_server.state.tables import node_keys, nodes

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_ARGUMENT = re.compile(r"[0-9A-Za-z._:/=,+@%~\-]+")
_JSON_COLUMNS = ("network", "kernel_arguments", "protected_serials", "files", "groups", "neighbors")
_SWITCH_CHARACTERS = 100
_MOST_NAMED = 500  # in one query; above, reading all nodes costs no more
_SERIAL_CHARACTERS = 200
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SETTINGS = ("local_method", "boot_order")  # that may come from a hardware model
_ANY_MACHINE_ID = "0" * 32  # templates are tried before the vault is opened


def add_node(connection: Connection, act: Act, spec: NodeSpec) -> NodeView:
    """Add a node in netboot `local`.

    Raises InvalidError with every fault, ConflictError when the name or a MAC is taken.
    """
    macs, faults = _macs(spec.macs)
    if not _NAME.fullmatch(spec.name) or len(spec.name) > 253:
        faults.append(f"name: '{spec.name}' is not a host name (lower-case letters, digits, hyphens, dots)")
    network = spec.network or NodeNetwork(spec.name, tuple(Interface(mac) for mac in macs[:1]))
    faults += [f"network.{fault}" for fault in network_faults(network)] if spec.network else []
    faults += _argument_faults(spec.kernel_arguments)
    faults += group_faults(spec.groups)
    faults += _switch_faults(spec.switch)
    uuid, serial = _dmi(spec.uuid, spec.serial, faults)
    faults += _file_faults(spec.name, network, spec.files) if not faults else []
    if faults:
        raise InvalidError(f"the node '{spec.name}' cannot be added", faults=faults)
    if connection.execute(select(nodes.c.name).where(nodes.c.name == spec.name)).first():
        raise ConflictError(f"the node '{spec.name}' exists already", hint=f"change it: cloner node set {spec.name} …")
    installers.require_known(connection, spec.installer)
    values = msgspec.structs.asdict(spec) | {"revision": 1, "created_s": act.now_s, "network": network}
    values |= {"groups": sorted(set(spec.groups)), "uuid": uuid, "serial": serial}
    del values["macs"]
    connection.execute(insert(nodes).values(_columns(values)))
    _set_macs(connection, spec.name, macs)
    if (told := machines.take_over(connection, act, macs, spec.name)) is not None:
        known = dict(zip(("facts", "facts_s"), told, strict=True))
        connection.execute(update(nodes).where(nodes.c.name == spec.name).values(known))
    events.record(connection, act, f"node/{spec.name}", "added", revision=1, macs=macs, image=spec.image)
    return get_node(connection, spec.name)


def change_node(connection: Connection, act: Act, name: str, patch: NodePatch) -> NodeView:
    """Apply `patch`; raises ConflictError when it names another revision than the node has."""
    before = get_node(connection, name)
    if patch.revision is not UNSET and patch.revision != before.revision:
        raise ConflictError(
            f"the node '{name}' has revision {before.revision}, not {patch.revision}", hint="read it again"
        )
    asked = {k: v for k, v in msgspec.structs.asdict(patch).items() if v is not UNSET and k != "revision"}
    if "groups" in asked:
        asked["groups"] = tuple(sorted(set(asked["groups"])))
    dmi_faults: list[str] = []
    dmi = zip(("uuid", "serial"), _dmi(asked.get("uuid", ""), asked.get("serial", ""), dmi_faults), strict=True)
    asked |= {k: v for k, v in dmi if k in asked}
    changes = {k: v for k, v in asked.items() if own_value(before, k) != v}
    macs, faults = _macs(changes["macs"]) if "macs" in changes else ((), [])
    faults += dmi_faults
    if isinstance(network := changes.get("network"), NodeNetwork):
        faults += [f"network.{fault}" for fault in network_faults(network)]
    faults += _argument_faults(changes.get("kernel_arguments", ()))
    faults += group_faults(changes.get("groups", ()))
    faults += _switch_faults(changes.get("switch", ""))
    if not faults:
        faults += _file_faults(name, changes.get("network", before.network), changes.get("files", before.files))
    if faults:
        raise InvalidError(f"the node '{name}' cannot be changed", faults=faults)
    installers.require_known(connection, changes.get("installer", ""))
    if changes.pop("macs", None) is not None:
        _set_macs(connection, name, macs)
    elif not changes:
        return before
    told = {k: [file.path for file in v] if k == "files" else msgspec.to_builtins(v) for k, v in asked.items()}
    if "fingerprint" in changes:
        changes["offered"] = None
    return _update(connection, act, before, changes, what="changed", detail=told)


def release_macs(connection: Connection, names: Iterable[str]) -> None:
    """Take their MACs from nodes that are given others in the same transaction: two of them may swap."""
    connection.execute(delete(node_keys).where(node_keys.c.kind == "mac", node_keys.c.node.in_(list(names))))


def set_netboot(connection: Connection, act: Act, name: str, value: str, *, why: str) -> NodeView:
    """Set the field netboot; arming a task is the caller's part."""
    before = get_node(connection, name)
    if before.netboot == value:
        return before
    detail = {"value": value, "before": before.netboot, "why": why}
    return _update(connection, act, before, {"netboot": value}, what="netboot", detail=detail)


def remember_facts(connection: Connection, act: Act, name: str, facts: Facts) -> None:
    """Keep what the machine told last: the inventory plans are printed from."""
    text = msgspec.json.encode(facts).decode()
    connection.execute(update(nodes).where(nodes.c.name == name).values(facts=text, facts_s=act.now_s))


def remember_neighbors(connection: Connection, act: Act, name: str, neighbors: Sequence[Neighbor]) -> None:
    """Keep which switch ports the machine is plugged into; an event tells when that has changed."""
    text = msgspec.json.encode(neighbors).decode()
    changed = nodes.c.name == name, nodes.c.neighbors != text
    if connection.execute(update(nodes).where(*changed).values(neighbors=text)).rowcount:
        plugged = [f"{one.interface}: {one.switch} {one.port}" for one in neighbors]
        events.record_seldom(connection, act, f"node/{name}", "switch told", is_network=True, neighbors=plugged)


def remember_relay(connection: Connection, act: Act, name: str, relay: str) -> None:
    """Keep the DHCP relay the machine asked through, "" when it asked directly; an event tells a change."""
    changed = nodes.c.name == name, nodes.c.relay != relay
    if connection.execute(update(nodes).where(*changed).values(relay=relay)).rowcount:
        events.record_seldom(connection, act, f"node/{name}", "relay told", is_network=True, relay=relay)


def accept_fingerprint(connection: Connection, act: Act, name: str, fingerprint: str, *, why: str) -> NodeView:
    """Accept this hardware as the node's: the vault opens to it from now on."""
    before, values = get_node(connection, name), {"fingerprint": fingerprint}
    return _update(
        connection, act, before, values | {"offered": None}, what="hardware accepted", detail=values | {"why": why}
    )


def offer_hardware(connection: Connection, name: str, hardware: Hardware) -> None:
    """Keep the machine that was turned away, for an admin to look at."""
    text = msgspec.json.encode(hardware).decode()
    connection.execute(update(nodes).where(nodes.c.name == name).values(offered=text))


def offered_hardware(connection: Connection, name: str) -> Hardware | None:
    """Return the machine that was turned away last; None when there is none to decide about."""
    text = connection.execute(select(nodes.c.offered).where(nodes.c.name == name)).scalar_one_or_none()
    return None if text is None else msgspec.json.decode(text, type=Hardware)


def remove_node(connection: Connection, act: Act, name: str) -> None:
    """Remove a node; its events and receipts stay. The caller has made sure that no task is live."""
    node = get_node(connection, name)
    refuse_protected(node)
    connection.execute(delete(nodes).where(nodes.c.name == name))
    events.record(connection, act, f"node/{name}", "removed", revision=node.revision)


def refuse_protected(node: NodeView) -> None:
    """Raise RefusedError, naming every remedy, when the node or a group it is in is protected."""
    reasons, remedies = [], []
    if node.is_protected:
        reasons.append(f"{node.name} is protected")
        remedies.append(f"cloner node set {node.name} --no-protected")
    for group in node.protected_groups:
        reasons.append(f"{node.name} is in the protected group '{group}'")
        remedies.append(f"cloner group unprotect {group}")
    if reasons:
        raise RefusedError("; ".join(reasons), hint=f"first: {'; '.join(remedies)}")


def refuse_unwritable(node: NodeView) -> None:
    """Raise RefusedError when no identity of the node can be written: its network may be older than the rules."""
    faults = [f"network.{fault}" for fault in network_faults(node.network)]
    faults += _file_faults(node.name, node.network, node.files)
    if faults:
        raise RefusedError(
            f"{node.name} would get no identity: {'; '.join(faults)}", hint=f"correct it: cloner node set {node.name} …"
        )


def get_node(connection: Connection, name: str) -> NodeView:
    """Return the node `name`; raises NotFoundError."""
    return get_nodes(connection, [name])[0]


def get_nodes(connection: Connection, names: Sequence[str]) -> list[NodeView]:
    """Return the nodes in the order of `names`; raises NotFoundError naming every one that does not exist."""
    found = {node.name: node for node in list_nodes(connection, names if len(names) < _MOST_NAMED else None)}
    missing = [name for name in names if name not in found]
    if missing:
        raise NotFoundError(f"no such node: {', '.join(missing)}", hint="cloner node list shows all")
    return [found[name] for name in names]


def list_nodes(connection: Connection, names: Sequence[str] | None = None) -> list[NodeView]:
    """Return every node, or those of `names` that there are, by name."""
    of_keys, of_nodes = select(node_keys).where(node_keys.c.kind == "mac"), select(nodes)
    if names is not None:
        of_keys, of_nodes = of_keys.where(node_keys.c.node.in_(names)), of_nodes.where(nodes.c.name.in_(names))
    macs: dict[str, list[str]] = {}
    for row in connection.execute(of_keys.order_by(node_keys.c.value)):
        macs.setdefault(row.node, []).append(row.value)
    protected = groups.protected_groups(connection)
    passwords = consoles.kept_passwords(connection)
    rules = models.kept_models(connection)
    views = []
    for columns in connection.execute(of_nodes.order_by(nodes.c.name)).mappings():
        # msgspec wants plain strings, SQLAlchemy's names are a subclass
        fields = {str(name): value for name, value in columns.items()}
        fields |= {column: msgspec.json.decode(columns[column]) for column in _JSON_COLUMNS}
        fields["version"] = fields.pop("channel") or fields["version"]
        fields |= {"macs": macs.get(columns["name"], []), "seen_s": columns["facts_s"]}
        fields["protected_groups"] = [group for group in fields["groups"] if group in protected]
        fields["console_password"], _ = consoles.source_of(passwords, columns["name"], fields["groups"])
        dmi = _dmi_of(columns["facts"]) if rules else None
        for name in _SETTINGS:
            found = setting_of(name, columns[name], dmi, rules)
            fields |= {name: found.value, f"{name}_from": found.source}
        for unseen in ("facts", "facts_s", "created_s", "offered"):
            del fields[unseen]
        views.append(msgspec.convert(fields, NodeView))
    return views


class _WithDmi(msgspec.Struct):
    """Facts, read no further than to who made the machine."""

    dmi: Dmi = Dmi()


def _dmi_of(facts: str | None) -> Dmi | None:
    return None if facts is None else msgspec.json.decode(facts, type=_WithDmi).dmi


def own_value(node: NodeView, field: str) -> object:
    """Return what is set for the node itself; "" where it takes what its model or the site has."""
    value: object = getattr(node, field)
    return "" if field in _SETTINGS and getattr(node, f"{field}_from") != "node" else value


def find_by_mac(connection: Connection, mac: str) -> NodeView | None:
    """Return the node that owns `mac` (lower case, colons); None when nobody does."""
    name = name_of_mac(connection, mac)
    return get_node(connection, name) if name else None


def name_of_mac(connection: Connection, mac: str) -> str:
    """Return the name of the node that owns `mac` (lower case, colons); "" when nobody does."""
    query = select(node_keys.c.node).where(node_keys.c.kind == "mac", node_keys.c.value == mac)
    return str(connection.execute(query).scalar_one_or_none() or "")


def last_facts(connection: Connection, name: str) -> tuple[Facts, float] | None:
    """Return the last inventory and its time; None when the machine was never seen."""
    row = connection.execute(select(nodes.c.facts, nodes.c.facts_s).where(nodes.c.name == name)).one_or_none()
    if row is None:
        raise NotFoundError(f"no such node: {name}", hint="cloner node list shows all")
    return None if row.facts is None else (msgspec.json.decode(row.facts, type=Facts), row.facts_s)


def all_facts(connection: Connection) -> Iterator[Facts]:
    """Give the last inventory of everything that has told one: nodes, and machines that are none."""
    for table in (nodes, machine_rows):
        for text in connection.execute(select(table.c.facts).where(table.c.facts.is_not(None))).scalars():
            yield msgspec.json.decode(text, type=Facts)


def _update(
    connection: Connection, act: Act, before: NodeView, values: dict[str, Any], *, what: str, detail: dict[str, Any]
) -> NodeView:
    after = before.revision + 1
    same = nodes.c.name == before.name, nodes.c.revision == before.revision
    done = connection.execute(update(nodes).where(*same).values(_columns(values | {"revision": after})))
    if done.rowcount != 1:
        raise ConflictError(f"the node '{before.name}' was changed meanwhile", hint="read it again")
    events.record(connection, act, f"node/{before.name}", what, revision=after, **detail)
    return get_node(connection, before.name)


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    kept = {k: msgspec.json.encode(v).decode() if k in _JSON_COLUMNS else v for k, v in values.items()}
    if "version" in kept:
        named = kept["version"]
        kept |= {"version": None, "channel": named} if isinstance(named, str) else {"channel": ""}
    return kept


def _set_macs(connection: Connection, name: str, macs: Iterable[str]) -> None:
    wanted = list(macs)
    query = select(node_keys).where(node_keys.c.kind == "mac", node_keys.c.value.in_(wanted), node_keys.c.node != name)
    taken = [f"{row.value} belongs to {row.node}" for row in connection.execute(query)]
    if taken:
        raise ConflictError("; ".join(taken), hint="a MAC belongs to one node")
    connection.execute(delete(node_keys).where(node_keys.c.kind == "mac", node_keys.c.node == name))
    connection.execute(insert(node_keys), [{"kind": "mac", "value": mac, "node": name} for mac in wanted])


def _macs(texts: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    macs, faults = [], []
    for text in texts:
        try:
            macs.append(normalize_mac(text))
        except ValueError as fault:
            faults.append(f"macs: {fault}")
    if not macs and not faults:
        faults.append("macs: a node needs at least one MAC address")
    return tuple(dict.fromkeys(macs)), faults


def _file_faults(name: str, network: NodeNetwork, files: Sequence[ExtraFile]) -> list[str]:
    return extra_faults(files, template_fields(name, network, _ANY_MACHINE_ID))


def _switch_faults(switch: str) -> list[str]:
    if switch.isprintable() and len(switch) <= _SWITCH_CHARACTERS and switch == switch.strip():
        return []
    return [f"switch: {switch[:_SWITCH_CHARACTERS]!r} is no name of at most {_SWITCH_CHARACTERS} printable characters"]


def _dmi(uuid: str, serial: str, faults: list[str]) -> tuple[str, str]:
    """Return both as `cloner_core.facts` has them; what is wrong is added to `faults`."""
    uuid, serial = uuid.strip().lower(), serial.strip()
    if uuid and not _UUID.fullmatch(uuid):
        faults.append(f"uuid: '{uuid}' is not the UUID of a machine: want 8-4-4-4-12 hexadecimal digits")
    if len(serial) > _SERIAL_CHARACTERS or not (serial.isprintable()):
        faults.append(f"serial: want at most {_SERIAL_CHARACTERS} printable characters")
    return uuid, serial


def _argument_faults(arguments: Iterable[str]) -> list[str]:
    return [f"kernel_arguments: '{a}' is not one plain word" for a in arguments if not _ARGUMENT.fullmatch(a)]
