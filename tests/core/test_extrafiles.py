"""Templates: filled in from the node alone, and every fault told before anything is kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_core.extrafiles import MAX_BYTES, ExtraFile, extra_faults, fill, template_fields
from cloner_core.identity import IdentityFile, ImageIdentity, NetworkSystem, Origin, identity_files
from cloner_core.messages import ConfirmTo, HostKey, Secret, Vaulted
from cloner_core.network import Bond, Interface, NodeNetwork, Vlan

RESOLV_CONF = "/etc/resolv.conf"
CLOSED = ("/etc/netplan", "/usr/lib/cloner", "/var/lib/cloner")  # directories with nothing but ours
MAC = "52:54:00:00:00:01"
MACHINE_ID = "0123456789abcdef0123456789abcdef"
STATIC = NodeNetwork("n01.example.org", (Interface(MAC, dhcp=False, addresses=("10.1.0.5/24",), gateway="10.1.0.1"),))
FIELDS = template_fields("n01", STATIC, MACHINE_ID)


def test_fields_are_the_nodes_and_two_dollars_are_one() -> None:
    template = "${node} ${hostname} ${short_hostname}.${domain} ${mac} ${address}/${prefix_length}"
    template += " via ${gateway} $$HOME $$${node}"
    assert extra_faults([ExtraFile("/etc/motd", template)], FIELDS) == []
    assert fill(template, FIELDS).decode() == (
        f"n01 n01.example.org n01.example.org {MAC} 10.1.0.5/24 via 10.1.0.1 $HOME $n01"
    )


def test_what_the_node_has_no_value_for_is_a_fault_and_not_an_empty_word() -> None:
    fields = template_fields("n01", NodeNetwork("n01", (Interface(MAC),)), MACHINE_ID)
    (fault,) = extra_faults([ExtraFile("/etc/motd", "a\nb ${address}")], fields)
    assert "line 2: the node has no 'address'" in fault


@pytest.mark.parametrize(
    "path",
    [
        *("", "etc/motd", "/etc/../motd", "/", "//etc/motd", "/etc/", "/etc/a\nb", "/proc/x", "/run", "/home"),
        *(
            "/etc/machine-id",
            "/etc/hosts/x",
            "/etc/ssh",
            "/var/lib/cloner/x/y",
            "/usr/lib/cloner",
            "/etc/netplan/50.yaml",
        ),
        *("/srv/" + "x" * 256, "/srv" + "/x" * 2000),
    ],
)
def test_paths_are_plain_and_none_of_ours(path: str) -> None:
    assert extra_faults([ExtraFile(path, "")], FIELDS)


def test_every_fault_is_told_at_once() -> None:
    files = [
        ExtraFile("/a", "$ ${nothing} ${}\n$x"),
        ExtraFile("/a", "", mode=0o4755),
        ExtraFile("/b", "x" * (MAX_BYTES + 1)),
    ]
    assert len(extra_faults(files, FIELDS)) == 7


@given(st.text(max_size=80))
def test_any_template_is_refused_or_filled_to_the_last_dollar(template: str) -> None:
    if extra_faults([ExtraFile("/x", template)], FIELDS):
        return
    assert fill(template, FIELDS).decode().count("$") == template.count("$$")


def vaulted() -> Vaulted:
    return Vaulted(machine_id=MACHINE_ID, host_keys=(), random_seed=Secret("00" * 512))


def test_an_extra_file_is_written_after_all_else_with_its_mode() -> None:
    extra = ExtraFile("/etc/cron.daily/x", "#!/bin/sh\necho ${node} ${machine_id}\n", mode=0o755)
    made = identity_files(STATIC, vaulted(), ImageIdentity(), None, node="n01", extra_files=[extra])
    last = made.files[-1]
    assert isinstance(last, IdentityFile)
    assert (last.path, last.mode) == (extra.path, 0o755)
    assert last.content == f"#!/bin/sh\necho n01 {MACHINE_ID}\n".encode()


EVERYTHING = NodeNetwork(
    "n01",
    (Interface(MAC, dhcp=False, addresses=("10.1.0.5/24",), dns=("10.1.0.2",)),),
    (Bond("bond0", ("52:54:00:00:00:02", "52:54:00:00:00:03"), dhcp=False, addresses=("10.2.0.5/24",)),),
    (Vlan("lab.7", 7, MAC, dhcp=False, addresses=("10.3.0.5/24",)),),
)


def every_file_of_ours() -> set[str]:
    """Return every path of an identity, whatever the image: all that its description may say is said."""
    keys = tuple(
        HostKey(algorithm, Secret("x"), "ssh-ed25519 AAAA", certificate="ssh-ed25519-cert-v01@openssh.com AAAA")
        for algorithm in ("ed25519", "ecdsa", "rsa")
    )
    known = msgspec.structs.replace(vaulted(), host_keys=keys)
    has_all: dict[str, Any] = {
        field.name: True for field in msgspec.structs.fields(ImageIdentity) if field.name.startswith("has_")
    }
    found: set[str] = set()
    for system in NetworkSystem:
        image = ImageIdentity(**has_all | {"has_resolvconf": False, "network_systems": (system,)})
        origin = Origin("n01", "golden", 1, "a" * 64, "simple", "1")
        made = identity_files(EVERYTHING, known, image, ConfirmTo("10.77.0.1", 8080, Secret("s")), origin=origin)
        found |= {file.path for file in made.files}
    assert len(found) > 30
    return found - {RESOLV_CONF}


@pytest.mark.parametrize("path", sorted(every_file_of_ours()))
def test_no_extra_file_is_at_above_or_beneath_one_of_ours(path: str) -> None:
    above = path.rpartition("/")[0]
    for meant in (path, f"{path}/x"):
        assert extra_faults([ExtraFile(meant, "")], FIELDS), meant
    assert extra_faults([ExtraFile(above, "")], FIELDS), above
    assert extra_faults([ExtraFile(f"{above}/other", "")], FIELDS) == [] or above in CLOSED


@pytest.mark.parametrize(
    "path",
    [
        "/.autorelabel",
        "/etc/krb5.keytab",
        "/etc/motd",
        "/etc/ssh/ssh_known_hosts",
        "/etc/systemd/network/10-lan.network",
    ],
)
def test_what_is_the_sites_own_is_taken(path: str) -> None:
    assert extra_faults([ExtraFile(path, "")], FIELDS) == []


def test_a_file_is_not_beneath_another() -> None:
    files = [ExtraFile(path, "") for path in ("/srv/a", "/srv/a/b/c", "/srv/a-b", "/srv/c/d")]
    assert extra_faults(files, FIELDS) == ["files: /srv/a/b/c lies beneath /srv/a, which is a file"]


def test_a_resolv_conf_of_the_site_stands_in_for_ours() -> None:
    image = ImageIdentity(network_systems=(NetworkSystem.IFUPDOWN,), has_resolvconf=False)
    ours = identity_files(EVERYTHING, vaulted(), image, None)
    assert RESOLV_CONF in {file.path for file in ours.files}
    extra = ExtraFile(RESOLV_CONF, "nameserver 10.9.9.9\n")
    made = identity_files(EVERYTHING, vaulted(), image, None, extra_files=[extra])
    (file,) = (one for one in made.files if one.path == RESOLV_CONF)
    assert isinstance(file, IdentityFile)
    assert file.content == b"nameserver 10.9.9.9\n"


def test_an_identity_is_not_made_with_an_extra_file_among_ours() -> None:
    extra = ExtraFile("/etc/cloud/cloud.cfg.d/99-cloner.cfg", "")
    with pytest.raises(InvalidError) as told:
        identity_files(STATIC, vaulted(), ImageIdentity(), None, extra_files=[extra])
    assert "written by Cloner itself" in told.value.faults[0]


def test_what_the_list_of_ours_forgets_is_refused_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloner_core.identity.making.extra_faults", lambda files, fields: [])
    with pytest.raises(InvalidError, match="/etc/machine-id"):
        identity_files(
            NodeNetwork("node01", (Interface("52:54:00:00:00:01"),)),
            vaulted(),
            ImageIdentity(),
            None,
            node="node01",
            extra_files=(ExtraFile("/etc/machine-id", "0" * 32),),
        )
