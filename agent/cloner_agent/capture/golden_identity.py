"""The identity of the golden node: the closed list of what must never be in an image, by what the lint calls it.

A clone gets its own from the server or makes it at its first boot. Keeping this list in one place lets a person
read in a minute what a capture leaves out.
"""

from __future__ import annotations

from cloner_agent.capture.rules import Action, Rule
from cloner_core.image.linting import kinds

_MADE_ANEW = "each node makes or gets its own"

# systemd makes a machine-id only where the file is empty or missing; many images mount it read-only, so it stays.
_EMPTIED = {kinds.MACHINE_ID: (b"etc/machine-id",)}

_OMITTED = {
    kinds.MACHINE_ID: (b"var/lib/dbus/machine-id",),
    kinds.HOST_KEY: (
        b"etc/ssh/ssh_host_*_key",
        b"etc/ssh/ssh_host_*_key-cert.pub",
        b"etc/ssh/ssh_host_*_key.pub",
        b"etc/ssh/ssh_host_key",
        b"etc/ssh/ssh_host_key.pub",
    ),
    kinds.HOST_ID: (
        b"etc/hostid",
        b"etc/iscsi/initiatorname.iscsi",
        b"etc/nvme/hostid",
        b"etc/nvme/hostnqn",
    ),
    kinds.DHCP_LEASE: (
        b"etc/dhcpcd.duid",
        b"var/lib/dhclient/*.lease",
        b"var/lib/dhclient/*.leases",
        b"var/lib/dhcp/*.lease",
        b"var/lib/dhcp/*.leases",
        b"var/lib/dhcpcd/*.lease",
        b"var/lib/dhcpcd/*.lease6",
        b"var/lib/dhcpcd/duid",
        b"var/lib/dhcpcd/secret",
        b"var/lib/dhcpv6/dhcp6c_duid",
        b"var/lib/dibbler/client-duid",
        b"var/lib/wicked/duid.xml",
        b"var/lib/wicked/iaid.xml",
        b"var/lib/wicked/lease-*.xml",
    ),
    kinds.HOST_KEYTAB: (b"etc/krb5.keytab",),
    kinds.LVM_DEVICES: (
        b"etc/lvm/devices/backup/*",
        b"etc/lvm/devices/system.devices",
    ),
    kinds.NETWORK_STATE: (
        b"var/lib/NetworkManager/*.lease",
        b"var/lib/NetworkManager/secret_key",
        b"var/lib/NetworkManager/seen-bssids",
        b"var/lib/NetworkManager/timestamps",
    ),
    kinds.PERSISTENT_NAMES: (
        b"etc/udev/rules.d/70-persistent-cd.rules",
        b"etc/udev/rules.d/70-persistent-net.rules",
    ),
    kinds.CLOUD_INIT: (
        b"var/lib/cloud/data/*",
        b"var/lib/cloud/sem/*",
        b"var/log/cloud-init*.log",
    ),
    kinds.RANDOM_SEED: (
        b"boot/efi/loader/random-seed",
        b"boot/loader/random-seed",
        b"efi/loader/random-seed",
        b"var/lib/systemd/random-seed",
        b"var/lib/urandom/random-seed",
    ),
    kinds.CREDENTIAL_SECRET: (b"var/lib/systemd/credential.secret",),
    kinds.CAPTURE_TOKEN: (b"etc/cloner/node.toml",),
    # of a clone that is captured in its turn
    kinds.CLONE_SETTINGS: (
        b"etc/NetworkManager/system-connections/cloner-*.nmconnection",
        b"etc/cloner/image.json",
        b"etc/netplan/90-cloner.yaml",
        b"etc/ssh/sshd_config.d/05-cloner.conf",
        b"etc/systemd/network/*-cloner-*.link",
        b"etc/systemd/network/*-cloner-*.netdev",
        b"etc/systemd/network/*-cloner-*.network",
    ),
}

# cloud-init's link to the directory of the instance it took this machine for
_OMITTED_LINKS = {kinds.CLOUD_INIT: (b"var/lib/cloud/instance",)}

# What cloud-init was given for that instance, at any depth: user data with its passwords, tokens and scripts.
_HOLLOWED = {kinds.CLOUD_INIT: (b"var/lib/cloud/instances",)}

RULES = tuple(
    Rule(path, action, _MADE_ANEW, files_only=files_only, kind=kind)
    for action, listed, files_only in (
        (Action.EMPTY, _EMPTIED, True),
        (Action.OMIT, _OMITTED, True),
        (Action.OMIT, _OMITTED_LINKS, False),
        (Action.HOLLOW, _HOLLOWED, False),
    )
    for kind, paths in listed.items()
    for path in paths
)
