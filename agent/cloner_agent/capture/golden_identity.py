"""The identity of the golden node: the closed list of what must never be in an image.

A clone gets its own from the server or makes it at its first boot. Keeping this list in one place lets a person
read in a minute what a capture leaves out.
"""

from __future__ import annotations

from cloner_agent.capture.rules import Action, Rule

_MADE_ANEW = "each node makes or gets its own"

# systemd makes a machine-id only where the file is empty or missing; many images mount it read-only, so it stays.
EMPTIED = (b"etc/machine-id",)

OMITTED = (
    b"boot/efi/loader/random-seed",
    b"boot/loader/random-seed",
    b"efi/loader/random-seed",
    b"etc/cloner/node.toml",  # the token this machine captures by
    b"etc/dhcpcd.duid",
    b"etc/hostid",
    b"etc/iscsi/initiatorname.iscsi",
    b"etc/krb5.keytab",
    b"etc/lvm/devices/backup/*",
    b"etc/lvm/devices/system.devices",
    b"etc/nvme/hostid",
    b"etc/nvme/hostnqn",
    b"etc/ssh/ssh_host_*_key",
    b"etc/ssh/ssh_host_*_key-cert.pub",
    b"etc/ssh/ssh_host_*_key.pub",
    b"etc/ssh/ssh_host_key",
    b"etc/ssh/ssh_host_key.pub",
    # of a clone that is captured in its turn
    b"etc/NetworkManager/system-connections/cloner-*.nmconnection",
    b"etc/netplan/90-cloner.yaml",
    b"etc/ssh/sshd_config.d/05-cloner.conf",
    b"etc/systemd/network/*-cloner-*.link",
    b"etc/systemd/network/*-cloner-*.netdev",
    b"etc/systemd/network/*-cloner-*.network",
    b"etc/udev/rules.d/70-persistent-cd.rules",
    b"etc/udev/rules.d/70-persistent-net.rules",
    b"var/lib/NetworkManager/*.lease",
    b"var/lib/NetworkManager/secret_key",
    b"var/lib/NetworkManager/seen-bssids",
    b"var/lib/NetworkManager/timestamps",
    b"var/lib/cloud/data/*",
    b"var/lib/cloud/sem/*",
    b"var/lib/dbus/machine-id",
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
    b"var/lib/systemd/credential.secret",
    b"var/lib/systemd/random-seed",
    b"var/lib/urandom/random-seed",
    b"var/log/cloud-init*.log",
)

# cloud-init's link to the directory of the instance it took this machine for
OMITTED_LINKS = (b"var/lib/cloud/instance",)

# What cloud-init was given for that instance, at any depth: user data with its passwords, tokens and scripts.
HOLLOWED = (b"var/lib/cloud/instances",)

RULES = tuple(
    Rule(path, action, _MADE_ANEW, files_only=files_only, is_identity=True)
    for action, paths, files_only in (
        (Action.EMPTY, EMPTIED, True),
        (Action.OMIT, OMITTED, True),
        (Action.OMIT, OMITTED_LINKS, False),
        (Action.HOLLOW, HOLLOWED, False),
    )
    for path in paths
)
