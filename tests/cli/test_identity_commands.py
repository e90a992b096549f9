"""Identity at the command line: preview, known_hosts, renewal, networks and files of nodes."""

from __future__ import annotations

from pathlib import Path

from clibench.desk import Desk
from cloner_core.errors import ExitStatus

NETWORK = """
interfaces: [{mac: "52:54:00:00:00:01", dhcp: false, addresses: [10.1.0.5/24]}]
vlans: [{name: lab, id: 7, parent: "52:54:00:00:00:01"}]
"""


def test_a_network_is_said_by_a_document_and_its_host_name_stays(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "n01.yaml").write_text(NETWORK)
    desk.scene.add_node("n01")
    view = desk.json("node", "set", "n01", "--network", str(tmp_path / "n01.yaml"))[0]
    assert view["network"]["hostname"] == "n01"
    assert view["network"]["vlans"][0]["name"] == "lab"
    assert "lab, 7 on 52:54:00:00:00:01: dhcp" in desk.run("node", "show", "n01").stdout
    kept = desk.json("node", "set", "n01", "--dns", "10.1.0.2")[0]
    assert kept["network"]["vlans"] == view["network"]["vlans"]


def test_faults_of_a_document_and_of_options_are_told_together(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(NETWORK.replace("id: 7", "id: 4095").replace("/24", ""))
    desk.scene.add_node("n01")
    words = ("--network", str(tmp_path / "bad.yaml"), "--gateway", "10.1.0.1", "--file", "/etc/motd")
    result = desk.refused("node", "set", "n01", *words)
    assert result.exit_code == ExitStatus.USAGE
    for part in ("VLAN id", "ADDRESS/PREFIX", "--gateway: --network says it already", "want PATH=TEMPLATE"):
        assert part in result.stderr


def test_a_set_of_nodes_gets_a_file_with_the_permissions_of_its_template(desk: Desk, tmp_path: Path) -> None:
    template = tmp_path / "motd"
    template.write_text("this is ${node}\n")
    template.chmod(0o640)
    desk.scene.add_node("n01")
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    views = desk.json("node", "set", "n[01-02]", "--file", f"/etc/motd={template}")
    assert [view["files"][0]["mode"] for view in views] == [0o640, 0o640]
    assert "==> /etc/motd (0640)\nthis is n02\n" in desk.run("identity", "n02").stdout
    assert desk.json("node", "set", "n01", "--file", "")[0]["files"] == []


def test_the_preview_shows_secrets_as_stars(desk: Desk) -> None:
    desk.scene.add_node("n01")
    shown = desk.run("identity", "n01").stdout
    assert "==> /etc/ssh/ssh_host_ed25519_key (0600)\n***\n" in shown
    assert "PRIVATE KEY" not in shown
    assert desk.refused("identity", "n07").exit_code == ExitStatus.NOT_FOUND


def test_known_hosts_is_one_line_of_openssh(desk: Desk) -> None:
    desk.scene.add_node("n01")
    marker, names, kind, key = desk.run("known-hosts").stdout.split()
    assert (marker, names, kind) == ("@cert-authority", "n01", "ssh-ed25519")
    wide = desk.run("known-hosts", "--pattern", "*.example.org", "--pattern", "n*").stdout.split()
    assert wide == ["@cert-authority", "*.example.org,n*", kind, key]
    assert desk.refused("known-hosts", "--pattern", "a b").exit_code == ExitStatus.USAGE


def test_a_new_identity_is_announced_before_it_is_made(desk: Desk) -> None:
    desk.scene.add_node("n01")
    words = ("deploy", "--nodes", "n01", "--new-identity")
    before = desk.scene.state_dump()
    assert "NEW IDENTITY" in desk.run(*words, "--dry-run").stdout
    assert desk.scene.state_dump() == before
    assert "NEW IDENTITY" in desk.run(*words, "--yes").stderr
    assert "identity renewed" in desk.run("events").stdout
