"""Identities from the server's side: certificates, renewal, preview; twenty of them share nothing."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType, load_ssh_public_identity
from sqlalchemy import update

from cloner_core.admin.deploying import Intent
from cloner_core.admin.identities import IdentityView, KnownHosts
from cloner_core.admin.nodes import NodeView
from cloner_core.extrafiles import ExtraFile
from cloner_core.identity import IdentityFile, ImageIdentity, identity_files
from cloner_core.messages import Secret, Vaulted
from cloner_core.network import Interface, NodeNetwork
from cloner_server import hostcertificates, vault
from cloner_server.state.tables import nodes
from serverbench.scene import Agent, Scene

STATIC = NodeNetwork("web.example.org", (Interface("52:54:00:00:00:01", dhcp=False, addresses=("10.1.0.5/24",)),))
IMAGE = ImageIdentity(has_dbus_machine_id=True, has_nvme=True, has_iscsi=True, has_sshd_parts=True)


def released(scene: Scene) -> Vaulted:
    agent = Agent(scene)
    agent.hello()
    agent.confirm_plan()
    return agent.told("identity", Vaulted)


def vaulted(scene: Scene, name: str = "n01") -> Vaulted:
    with scene.core.database.read() as connection:
        return vault.open_identity(connection, name, scene.core.site.vault_key)


def test_each_host_key_is_certified_for_the_names_of_its_node_by_the_sites_authority(scene: Scene) -> None:
    scene.add_node(network=STATIC)
    scene.arm()
    known = msgspec.json.decode(scene.admin("GET", "/known-hosts").content, type=KnownHosts)
    for key in released(scene).host_keys:
        certificate = load_ssh_public_identity(key.certificate.encode())
        assert isinstance(certificate, SSHCertificate)
        certificate.verify_cert_signature()
        assert certificate.type is SSHCertificateType.HOST
        assert certificate.valid_principals == [b"n01", b"web.example.org", b"web", b"10.1.0.5"]
        assert certificate.public_key() == load_ssh_public_identity(key.public.encode())
        authority = load_ssh_public_identity(known.authority.encode())
        assert certificate.signature_key() == authority
    assert set(known.names) == {"n01", "web.example.org", "web", "10.1.0.5"}


def test_a_node_whose_identity_cannot_be_written_is_not_armed(scene: Scene) -> None:
    """It was given when the rules were others; told by the agent it would be told when the disk is wiped."""
    scene.add_node()
    with scene.core.database.write() as connection:
        network = {"hostname": "n01", "interfaces": [{"mac": "52:54:00:00:00:01", "dhcp": False}]}
        files = [{"path": "/var/lib/cloner/x", "content": ""}]
        values = {"network": json.dumps(network), "files": json.dumps(files)}
        connection.execute(update(nodes).values(values))
    answer = scene.admin("POST", "/deploy", {"nodes": ["n01"]})
    assert answer.status_code == 409
    for words in ("network.interfaces[0]: neither dhcp nor addresses", "files: /var/lib/cloner/x: cannot be beside"):
        assert words in answer.json()["error"]


def test_two_sites_have_different_authorities_and_one_keeps_its_own() -> None:
    assert hostcertificates.authority_line(bytes(32)) == hostcertificates.authority_line(bytes(32))
    assert hostcertificates.authority_line(bytes(32)) != hostcertificates.authority_line(b"\1" * 32)


def test_a_deploy_keeps_the_identity_and_a_deploy_with_a_new_one_renews_it(scene: Scene) -> None:
    scene.add_node()
    before = vaulted(scene)
    shown = scene.admin("POST", "/deploy", {"nodes": ["n01"], "new_identity": True, "dry_run": True})
    assert msgspec.json.decode(shown.content, type=list[Intent])[0].is_new_identity
    assert vaulted(scene).machine_id == before.machine_id
    task = msgspec.json.decode(scene.admin("POST", "/deploy", {"nodes": ["n01"]}).content, type=list[Intent])[0]
    assert vaulted(scene).host_keys == before.host_keys
    refused = scene.admin("POST", "/deploy", {"nodes": ["n01"], "new_identity": True})
    assert refused.status_code == 409
    assert vaulted(scene).machine_id == before.machine_id
    assert scene.admin("POST", f"/tasks/{task.task_id}/abort").status_code == 200
    assert scene.admin("POST", "/deploy", {"nodes": ["n01"], "new_identity": True}).status_code == 200
    after = vaulted(scene)
    assert after.machine_id != before.machine_id
    assert {key.public for key in after.host_keys}.isdisjoint({key.public for key in before.host_keys})
    assert released(scene).machine_id == after.machine_id


def test_the_preview_names_every_file_and_holds_no_secret(scene: Scene) -> None:
    scene.add_node(network=STATIC, files=(ExtraFile("/etc/motd", "${node} at ${address}\n"),))
    held = vaulted(scene)
    answer = scene.admin("GET", "/identity/n01")
    view = msgspec.json.decode(answer.content, type=IdentityView)
    files = {file.path: file for file in view.files}
    assert files["/etc/machine-id"].content == f"{held.machine_id}\n"
    assert files["/etc/motd"].content == "n01 at 10.1.0.5\n"
    key = files["/etc/ssh/ssh_host_ed25519_key"]
    assert (key.content, key.is_secret, key.mode) == ("***", True, 0o600)
    for secret in (held.random_seed, *(key.private for key in held.host_keys)):
        assert secret.value not in answer.text
    assert "/etc/ssh/ssh_host_*" in view.removals


def test_the_preview_of_a_node_never_armed_makes_no_identity(scene: Scene) -> None:
    scene.add_node("n09", "52:54:00:00:00:09")
    before = scene.state_dump()
    view = msgspec.json.decode(scene.admin("GET", "/identity/n09").content, type=IdentityView)
    assert any("holds no identity yet" in note for note in view.notes)
    assert scene.state_dump() == before


def test_a_template_that_a_node_cannot_fill_is_refused_also_when_its_network_changes(scene: Scene) -> None:
    scene.add_node(network=STATIC)
    files = [{"path": "/etc/motd", "content": "${address}"}]
    assert (
        scene.admin("PATCH", "/nodes/n01", {"files": [{"path": "/etc/motd", "content": "${x} $"}]}).status_code == 400
    )
    view = msgspec.json.decode(scene.admin("PATCH", "/nodes/n01", {"files": files}).content, type=NodeView)
    assert [file.path for file in view.files] == ["/etc/motd"]
    dhcp = {"network": {"hostname": "n01", "interfaces": [{"mac": "52:54:00:00:00:01"}]}}
    before = scene.state_dump()
    assert scene.admin("PATCH", "/nodes/n01", dhcp).status_code == 400
    assert scene.state_dump() == before


def test_the_attempt_is_told_the_files_of_its_node(scene: Scene) -> None:
    scene.add_node(files=(ExtraFile("/etc/motd", "${node}"),))
    scene.arm()
    assert [file.path for file in Agent(scene).hello().task.files] == ["/etc/motd"]


@pytest.mark.slow
def test_twenty_identity_stages_share_none_of_what_machines_must_not_share() -> None:
    made = {}
    for number in range(20):
        name, mac = f"n{number:02}", f"52:54:00:00:00:{number:02x}"
        network = NodeNetwork(name, (Interface(mac),))
        identity = vault.make_identity()
        node = msgspec.convert(_node(name, network), NodeView)
        held = Vaulted(identity.machine_id, identity.host_keys, Secret(f"{number:02x}" * 512))
        files = identity_files(network, hostcertificates.certified(held, node, bytes(32)), IMAGE, None, node=name).files
        made[name] = {file.path: file.content for file in files if isinstance(file, IdentityFile)}
    alike = {"/etc/ssh/sshd_config.d/05-cloner.conf"}  # names the certificates' files, nothing of the node
    for one, other in itertools.combinations(made.values(), 2):
        assert one.keys() == other.keys()
        assert [path for path in one.keys() - alike if one[path] == other[path]] == []
    assert {"/etc/hostid", "/etc/nvme/hostnqn", "/etc/iscsi/initiatorname.iscsi"} <= made["n00"].keys()


def _node(name: str, network: NodeNetwork) -> dict[str, object]:
    empty = dict.fromkeys(("kernel_arguments", "protected_serials", "files", "macs", "groups", "protected_groups"), ())
    words = {"netboot": "local", "local_method": "exit", "boot_order": "network-first", "confirm": ""}
    texts = dict.fromkeys(("image", "layout", "fingerprint"), "")
    rest = {"version": None, "seen_s": None, "is_protected": False, "revision": 1}
    return {"name": name, "network": network} | empty | words | texts | rest
