"""The network of a node as options and documents say it, and as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloner_cli.checking import Checks
from cloner_cli.documents import read_document
from cloner_core.admin.nodes import NodeView
from cloner_core.errors import InvalidError
from cloner_core.network import Addressing, Interface, NodeNetwork, network_faults

_OPTIONS = {"addresses": "--address", "gateway": "--gateway", "dns": "--dns", "domains": "--domain"}


def asked_network(
    checks: Checks, name: str, macs: Sequence[str], before: NodeView | None, given: dict[str, Any]
) -> NodeNetwork | None:
    """Return the network that options ask for; None when they name nothing of it. Its faults go to `checks`.

    --network FILE says all of it but, if it leaves that out, the host name; the other options speak of the first
    interface, which is that of the first of `macs` (what the node has, or will have) unless it has another of them.
    """
    asked = {key: given[key] for key in _OPTIONS if given[key]}
    hostname = given["hostname"] or (before.network.hostname if before else name)
    network = None
    if given["network"] is not None:
        if asked:
            checks.wrong.append(f"{', '.join(_OPTIONS[key] for key in asked)}: --network says it already")
        network = _read(checks, given["network"], hostname)
    elif macs and (asked or given["hostname"] or _is_moved(macs, before)):
        network = _with_first(macs, hostname, before, asked)
    if network is not None:
        checks.wrong += [fault for fault in network_faults(network) if fault not in checks.wrong]
    return network


def network_fields(network: NodeNetwork) -> list[tuple[str, str]]:
    """Return the links of a node as text."""
    shown = [("interface", f"{one.mac}: {_addresses(one)}") for one in network.interfaces]
    shown += [("bond", f"{b.name} of {', '.join(b.members)} ({b.mode}): {_addresses(b)}") for b in network.bonds]
    return shown + [("vlan", f"{v.name}, {v.id} on {v.parent}: {_addresses(v)}") for v in network.vlans]


def _is_moved(macs: Sequence[str], before: NodeView | None) -> bool:
    """Whether the first interface is one the node had and has no longer: its card was replaced."""
    first = before.network.interfaces[0].mac if before and before.network.interfaces else ""
    return before is not None and first in before.macs and first not in macs


def _with_first(macs: Sequence[str], hostname: str, before: NodeView | None, asked: dict[str, Any]) -> NodeNetwork:
    old = before.network if before else NodeNetwork(hostname)
    mac = next((one.mac for one in old.interfaces[:1] if one.mac in macs), macs[0])
    first = msgspec.structs.replace(old.interfaces[0] if old.interfaces else Interface(mac), mac=mac)
    if asked:
        addresses = asked.get("addresses", first.addresses)
        first = msgspec.structs.replace(first, dhcp=not addresses, **asked)
    return msgspec.structs.replace(old, hostname=hostname, interfaces=(first, *old.interfaces[1:]))


def _read(checks: Checks, path: Path, hostname: str) -> NodeNetwork | None:
    try:
        document = read_document(path)
        if not isinstance(document, dict):
            raise InvalidError(f"{path} does not hold a network", hint="docs/identity.md")
        return msgspec.convert({"hostname": hostname} | document, NodeNetwork)
    except InvalidError as fault:
        checks.wrong += [fault.message.partition("\n")[0], *fault.faults]
    except msgspec.ValidationError as fault:
        checks.wrong.append(f"{path}: {fault}")
    return None


def _addresses(link: Addressing) -> str:
    return ", ".join((*(["dhcp"] if link.dhcp else []), *link.addresses)) or "no address of its own"
