"""The identity of a node: its own names and keys, none of the golden node's, and no secret in a repr."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.confirmation import SETTINGS, WANTS, settings_content
from cloner_core.errors import InvalidError
from cloner_core.identity import (
    ORIGIN_PATH,
    REMOVALS,
    IdentityFile,
    IdentityLink,
    ImageIdentity,
    Origin,
    identity_files,
    parse_origin,
    ssh_fingerprint,
)
from cloner_core.identity.hosts import hosts_content
from cloner_core.identity.networkd import network_content
from cloner_core.messages import ConfirmTo, HostKey, Secret, Vaulted
from cloner_core.network import Interface, NodeNetwork

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
MAC = "52:54:00:00:00:01"
NETWORK = NodeNetwork(hostname="node01", interfaces=(Interface(mac=MAC),))
VAULTED = Vaulted(
    machine_id="0123456789abcdef0123456789abcdef",
    host_keys=(HostKey("ed25519", Secret("PRIVATE-CANARY\n"), PUBLIC),),
    random_seed=Secret("ab" * 512),
)
CONFIRM = ConfirmTo("10.77.0.1", 8080, Secret("SECRET-CANARY"))
IMAGE = ImageIdentity(hosts=b"127.0.0.1\tlocalhost\n127.0.1.1\tgolden\n", hostname="golden\n", has_dbus_machine_id=True)


def files(image: ImageIdentity = IMAGE, confirm: ConfirmTo | None = CONFIRM) -> dict[str, IdentityFile]:
    made = identity_files(NETWORK, VAULTED, image, confirm)
    return {one.path: one for one in made.files if isinstance(one, IdentityFile)}


def test_the_clone_gets_the_nodes_names_and_keys() -> None:
    made = files()
    assert made["/etc/hostname"].content == b"node01\n"
    assert made["/etc/machine-id"].content == b"0123456789abcdef0123456789abcdef\n"
    assert made["/var/lib/dbus/machine-id"].content == made["/etc/machine-id"].content
    key = made["/etc/ssh/ssh_host_ed25519_key"]
    assert (key.content, key.mode, key.uid, key.gid) == (b"PRIVATE-CANARY\n", 0o600, 0, 0)
    public = made["/etc/ssh/ssh_host_ed25519_key.pub"]
    assert (public.content, public.mode) == (f"{PUBLIC} root@node01\n".encode(), 0o644)
    assert len(made["/var/lib/systemd/random-seed"].content) == 512


def test_every_file_with_a_secret_is_for_root_alone_and_no_repr_shows_it() -> None:
    for one in files().values():
        has_canary = b"CANARY" in one.content
        assert one.is_secret == (has_canary or one.path.endswith("random-seed"))
        assert not one.is_secret or one.mode == 0o600
        assert "CANARY" not in repr(one)
    assert "CANARY" not in repr(identity_files(NETWORK, VAULTED, IMAGE, CONFIRM))
    assert "CANARY" not in repr(VAULTED)


def test_the_one_shot_is_wanted_at_boot_and_only_when_asked_for() -> None:
    made = identity_files(NETWORK, VAULTED, IMAGE, CONFIRM)
    assert IdentityLink(WANTS, "../cloner-confirm.service") in made.files
    assert SETTINGS in files()
    assert SETTINGS not in files(confirm=None)
    without = identity_files(NETWORK, VAULTED, msgspec.structs.replace(IMAGE, has_bash=False), CONFIRM)
    assert not any(isinstance(one, IdentityLink) for one in without.files)
    assert without.notes


@pytest.mark.parametrize(
    "path",
    [
        "/etc/ssh/ssh_host_*",
        "/etc/hostid",
        "/etc/lvm/devices/system.devices",
        "/etc/udev/rules.d/70-persistent-net.rules",
        "/var/lib/dhcp/*.leases",
        "/var/lib/systemd/random-seed",
    ],
)
def test_what_machines_must_not_share_is_removed(path: str) -> None:
    assert path in [one.path for one in REMOVALS]


def test_cloud_init_is_told_to_leave_the_identity_alone() -> None:
    path = "/etc/cloud/cloud.cfg.d/99-cloner.cfg"
    assert path not in files()
    assert b"ssh_deletekeys: false" in files(msgspec.structs.replace(IMAGE, has_cloud_init=True))[path].content


@pytest.mark.parametrize(
    ("old", "hostname", "new"),
    [
        pytest.param(
            b"127.0.0.1\tlocalhost\n127.0.1.1\tgolden\n\n# lab\n10.0.0.1 files\n",
            "node01",
            b"127.0.0.1\tlocalhost\n127.0.1.1\tnode01\n\n# lab\n10.0.0.1 files\n",
            id="debian",
        ),
        pytest.param(
            b"127.0.0.1 localhost golden\n::1 golden\n",
            "node01.example.org",
            b"127.0.0.1\tlocalhost\n127.0.1.1\tnode01.example.org node01\n",
            id="golden on loopback",
        ),
        pytest.param(
            b"",
            "node01",
            b"127.0.0.1\tlocalhost\n127.0.1.1\tnode01\n::1\tlocalhost ip6-localhost ip6-loopback\n",
            id="no hosts",
        ),
        pytest.param(b"10.0.0.1 golden\n", "node01", b"127.0.1.1\tnode01\n10.0.0.1 golden\n", id="no loopback"),
    ],
)
def test_hosts_names_this_node_and_keeps_the_rest(old: bytes, hostname: str, new: bytes) -> None:
    assert hosts_content(old, hostname, "golden") == new


@given(st.binary(max_size=200), st.sampled_from(["", "golden", "localhost", "golden.example.org"]))
def test_any_hosts_file_names_this_node_once_and_again_changes_nothing(old: bytes, old_hostname: str) -> None:
    once = hosts_content(old, "node01", old_hostname)
    assert once.splitlines().count(b"127.0.1.1\tnode01") == 1
    assert hosts_content(once, "node01", "node01x") == once


def test_an_interface_is_matched_by_mac_and_asks_dhcp_by_mac() -> None:
    assert network_content(Interface(mac=MAC)).decode() == (
        f"# Written by Cloner.\n[Match]\nMACAddress={MAC}\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n"
    )


def test_a_static_interface_has_its_addresses() -> None:
    interface = Interface(
        mac=MAC,
        dhcp=False,
        addresses=("10.1.0.11/24", "2001:db8::b/64"),
        gateway="10.1.0.1",
        dns=("10.1.0.2", "10.1.0.3"),
        domains=("lab.example", "example"),
    )
    lines = network_content(interface).decode().splitlines()
    assert lines[lines.index("[Network]") :] == [
        "[Network]",
        "DHCP=no",
        "Address=10.1.0.11/24",
        "Address=2001:db8::b/64",
        "Gateway=10.1.0.1",
        "DNS=10.1.0.2",
        "DNS=10.1.0.3",
        "Domains=lab.example example",
    ]


def test_every_fault_of_an_identity_is_told_at_once() -> None:
    network = NodeNetwork(hostname="Node_1", interfaces=(Interface(mac="x"),))
    with pytest.raises(InvalidError) as caught:
        identity_files(network, msgspec.structs.replace(VAULTED, machine_id="X"), IMAGE, None)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    "confirm",
    [
        ConfirmTo("a b", 80, Secret("s")),
        ConfirmTo("$(reboot)", 80, Secret("s")),
        ConfirmTo("h", 0, Secret("s")),
        ConfirmTo("h", 80, Secret("s;reboot")),
        ConfirmTo("h", 80, Secret("s\n")),
    ],
)
def test_the_settings_of_the_one_shot_hold_plain_words_only(confirm: ConfirmTo) -> None:
    with pytest.raises(InvalidError) as caught:
        settings_content(confirm)
    assert "reboot" not in caught.value.message or "reboot" in confirm.host


def test_a_fingerprint_is_as_ssh_keygen_prints_it() -> None:
    # ssh-keygen -lf of PUBLIC
    assert ssh_fingerprint(PUBLIC) == "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"
    with pytest.raises(InvalidError, match="not an OpenSSH public key"):
        ssh_fingerprint("ssh-ed25519")


@given(st.text(max_size=40))
def test_any_text_has_a_fingerprint_or_is_refused(text: str) -> None:
    try:
        found = ssh_fingerprint(text)
    except InvalidError:
        return
    assert found.startswith("SHA256:")


def test_a_clone_says_which_image_it_is_of_and_a_newer_one_may_say_more() -> None:
    origin = Origin("n01", "debian", 3, "a" * 64, "simple", "12")
    made = identity_files(NETWORK, VAULTED, IMAGE, None, origin=origin)
    (file,) = (file for file in made.files if file.path == ORIGIN_PATH)
    assert isinstance(file, IdentityFile)
    assert (file.mode, file.is_secret) == (0o644, False)
    assert parse_origin(file.content) == origin
    assert parse_origin(file.content.replace(b'"node"', b'"since": 1, "node"')) == origin
    assert ORIGIN_PATH not in [file.path for file in identity_files(NETWORK, VAULTED, IMAGE, None).files]
    assert ORIGIN_PATH in [removal.path for removal in made.removals]
