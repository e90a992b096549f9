"""What two machines must not share beyond names and keys: what is removed, and what derives from the machine-id.

What derives needs no place in the vault: it stays the same when a node is cloned again and changes with its identity.
"""

from __future__ import annotations

from collections.abc import Iterator

from blake3 import blake3

from cloner_core import confirmation
from cloner_core.identity.networkd import FOLDER
from cloner_core.identity.origin import ORIGIN_PATH
from cloner_core.identity.values import IdentityFile, ImageIdentity, Removal

REMOVALS = tuple(
    Removal(path)
    for path in (
        "/boot/efi/loader/random-seed",
        "/boot/loader/random-seed",
        "/efi/loader/random-seed",
        "/etc/ssh/ssh_host_*",
        "/etc/hostid",
        "/etc/dhcpcd.duid",
        "/etc/nvme/hostid",
        "/etc/nvme/hostnqn",
        "/etc/iscsi/initiatorname.iscsi",
        "/etc/krb5.keytab",
        # EL 9 and later refuse volumes of devices not listed there, and the list names the golden node's
        "/etc/lvm/devices/system.devices",
        "/etc/lvm/devices/backup/*",
        "/etc/udev/rules.d/70-persistent-cd.rules",
        "/etc/udev/rules.d/70-persistent-net.rules",
        # of the node this image was captured from
        "/etc/cloner/node.toml",
        ORIGIN_PATH,
        "/etc/NetworkManager/system-connections/cloner-*.nmconnection",
        "/etc/netplan/90-cloner.yaml",
        "/etc/ssh/sshd_config.d/05-cloner.conf",
        f"{FOLDER}/*-cloner-*.link",
        f"{FOLDER}/*-cloner-*.netdev",
        f"{FOLDER}/*-cloner-*.network",
        # What cloud-init did on the golden node, and the user data it was given, with scripts of it. The seed stays, as
        # with `cloud-init clean`: somebody put it into the image for its clones.
        "/var/lib/cloud/data/*",
        "/var/lib/cloud/instance",
        "/var/lib/cloud/instances/**",
        "/var/lib/cloud/sem/*",
        "/var/log/cloud-init*.log",
        "/var/lib/NetworkManager/*.lease",
        "/var/lib/NetworkManager/secret_key",
        "/var/lib/NetworkManager/seen-bssids",
        "/var/lib/NetworkManager/timestamps",
        "/var/lib/dhclient/*.lease",
        "/var/lib/dhclient/*.leases",
        "/var/lib/dhcp/*.lease",
        "/var/lib/dhcp/*.leases",
        "/var/lib/dhcpcd/*.lease",
        "/var/lib/dhcpcd/*.lease6",
        "/var/lib/dhcpcd/duid",
        "/var/lib/dhcpcd/secret",
        "/var/lib/dhcpv6/dhcp6c_duid",
        "/var/lib/dibbler/client-duid",
        "/var/lib/systemd/credential.secret",
        "/var/lib/systemd/random-seed",
        "/var/lib/urandom/random-seed",
        "/var/lib/wicked/duid.xml",
        "/var/lib/wicked/iaid.xml",
        "/var/lib/wicked/lease-*.xml",
        confirmation.SETTINGS,
    )
)
"""What a clone must not share with any other machine, as patterns."""


def derived_files(machine_id: str, image: ImageIdentity) -> Iterator[IdentityFile]:
    """Give the files of identifiers that a machine would otherwise share or lack."""
    # Without it gethostid(3) makes the id of the address of the host name: 127.0.1.1 on every Debian. ZFS asks for it.
    yield IdentityFile("/etc/hostid", _bytes(machine_id, "hostid", 4))
    if image.has_nvme:
        uuid = _uuid(_bytes(machine_id, "nvme", 16))
        yield IdentityFile("/etc/nvme/hostid", f"{uuid}\n".encode())
        yield IdentityFile("/etc/nvme/hostnqn", f"nqn.2014-08.org.nvmexpress:uuid:{uuid}\n".encode())
    if image.has_iscsi:
        name = f"iqn.1993-08.org.debian:01:{_bytes(machine_id, 'iscsi', 6).hex()}"  # as iscsi-iname(8) forms it
        yield IdentityFile("/etc/iscsi/initiatorname.iscsi", f"InitiatorName={name}\n".encode(), mode=0o600)


def _bytes(machine_id: str, what: str, count: int) -> bytes:
    # keyed, because machine-id itself is not to be told to other machines (machine-id(5))
    return blake3(f"{machine_id} {what}".encode(), derive_key_context="cloner 2026 machine identifiers").digest(count)


def _uuid(raw: bytes) -> str:
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
