"""Identities over the API of admins: what would be written to a node, and how clients come to believe its host keys."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery

from cloner_core.admin.identities import IdentityView, KnownHosts, RecoveryKey, RecoveryKeys
from cloner_core.errors import RefusedError
from cloner_core.identity import Origin
from cloner_core.image.reference import parse_version
from cloner_core.messages import ConfirmWay, Secret
from cloner_server import hostcertificates, identities, recoverykeys, vault
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import images, nodes
from cloner_server.tasks import claims

_OK = 200


@get("/identity/{name:str}", sync_to_thread=True)
def identity_show(
    core: CoreDependency, name: FromPath[str], image: FromQuery[str] = "", version: FromQuery[str] = ""
) -> IdentityView:
    """Show what the identity stage would write to a node; secrets as ***."""
    key, rules = core.site.vault_key, core.rules
    with core.database.read() as connection:
        node = nodes.get_node(connection, name)
        if not (wanted := image or node.image):
            raise RefusedError(f"{name} has no image to fit an identity into", hint="--image NAME")
        row = images.get_version(connection, wanted, parse_version(version) or (None if image else node.version))
        held = vault.open_identity(connection, name, key) if vault.has_identity(connection, name) else None
    vaulted = None if held is None else hostcertificates.certified(held, node, key)
    confirm = claims.confirm_to(rules, ConfirmWay(node.confirm or rules.confirm), Secret("0"))
    looked = identities.look_at(core.catalog, core.catalog.find(core.catalog.version_ref(row.image, row.number)))
    origin = Origin(name, row.image, row.number, row.digest, node.layout, task="")
    made = identities.preview(node, vaulted, looked, confirm, origin)
    notes = [*made.notes, "lines of the image's own /etc/hosts stay; they are not shown here"]
    if vaulted is None:
        notes.append("the vault holds no identity yet: machine-id, keys and what derives from them come with a deploy")
    return IdentityView(
        node=name,
        image=row.image,
        version=row.number,
        network_systems=tuple(looked.network_systems),
        removals=tuple(removal.path for removal in made.removals),
        files=tuple(map(identities.shown_file, made.files)),
        notes=tuple(notes),
    )


@post("/recovery-key/{name:str}", sync_to_thread=True, status_code=_OK)
def recovery_key_show(core: CoreDependency, request: AnyRequest, name: FromPath[str]) -> RecoveryKeys:
    """Show what opens a node's encrypted disks; that it was shown, and to whom, is an event."""
    with core.database.write() as connection:
        found = recoverykeys.show_keys(connection, who(core, request), name, core.site.vault_key)
    keys = tuple(RecoveryKey(one.number, one.key.value, one.made_s) for one in found)
    return RecoveryKeys(node=name, keys=keys)


@get("/known-hosts", sync_to_thread=True)
def known_hosts(core: CoreDependency) -> KnownHosts:
    """Show the site's SSH CA and every name its certificates are for."""
    with core.database.read() as connection:
        names = [name for node in nodes.list_nodes(connection) for name in hostcertificates.principals(node)]
    return KnownHosts(hostcertificates.authority_line(core.site.vault_key), tuple(dict.fromkeys(names)))


def identity_handlers() -> list[Any]:
    """Return the handlers of identities."""
    return [identity_show, recovery_key_show, known_hosts]
