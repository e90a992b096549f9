"""The kinds of what a capture finds: what each is called, what becomes of it, and what to do about it.

docs/capture.md lists them; a test compares it with this.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloner_core.image.linting.finding import Grade
from cloner_core.sizes import MIB


@dataclass(frozen=True, slots=True)
class LintKind:
    """One kind of finding."""

    name: str
    grade: Grade
    what: str  # for people
    advice: str
    least_bytes: int = 0  # told only when all its files together take that much


def _identity(name: str, what: str, instead: str) -> LintKind:
    return LintKind(name, Grade.IDENTITY, what, instead)


def _secret(name: str, what: str, advice: str) -> LintKind:
    return LintKind(name, Grade.SECRET, what, advice)


def _advice(name: str, what: str, advice: str, least_bytes: int = 0) -> LintKind:
    return LintKind(name, Grade.ADVICE, what, advice, least_bytes)


MACHINE_ID = _identity("machine-id", "machine-id, also D-Bus's copy", "each node has its own, kept in the vault")
HOST_KEY = _identity("ssh-host-key", "SSH host keys and their certificates", "each node has its own, kept in the vault")
HOST_ID = _identity(
    "host-id", "hostid, NVMe host id and NQN, iSCSI initiator name", "derived from the node's machine-id"
)
DHCP_LEASE = _identity("dhcp-lease", "DHCP leases, DUIDs and secrets of DHCP clients", "each node asks for its own")
HOST_KEYTAB = _identity(
    "host-keytab",
    "the Kerberos keytab of the machine",
    "join each node to its realm",
)
LVM_DEVICES = _identity("lvm-devices", "LVM's devices file", "names the golden node's disks; LVM does without it")
NETWORK_STATE = _identity("network-state", "leases, keys and memories of NetworkManager", "made anew by each node")
PERSISTENT_NAMES = _identity("persistent-names", "udev's persistent names", "names are the node's own")
CLOUD_INIT = _identity(
    "cloud-init", "cloud-init's state, user data and logs", "cloud-init takes each node for a new one"
)
RANDOM_SEED = _identity("random-seed", "random seeds", "each node gets a new one")
CREDENTIAL_SECRET = _identity(
    "credential-secret", "the key of systemd's credentials (credential.secret)", "each node makes its own"
)
CAPTURE_TOKEN = _identity(
    "capture-token", "the token this machine captures by", "captures nothing until it has its own"
)
CLONE_SETTINGS = _identity(
    "clone-settings", "network and sshd settings that a deploy wrote", "each deploy writes the node's own"
)

_HANDED_OUT = "whoever reads the image has it: hand it out after the deploy, as other settings of the site"

PRIVATE_KEY = _secret(
    "private-key",
    "private keys: PEM, OpenSSH, PuTTY, PGP, age, PKCS #12, OpenVPN, Dropbear",
    "every clone would have the same one, and so has whoever reads the image: make one on each node",
)
DISK_KEY = _secret(
    "disk-key",
    "key files of encrypted disks: what crypttab names, cryptsetup-keys.d",
    "it opens the golden node's disks; clones are encrypted with keys of their own (docs/encryption.md)",
)
KEYTAB = _secret("keytab", "Kerberos keytabs of services and users", "have each node fetch its own")
CLUSTER_KEY = _secret(
    "cluster-key",
    "keys that a cluster shares: MUNGE, Slurm, Ceph, corosync, pacemaker",
    _HANDED_OUT,
)
NETWORK_SECRET = _secret(
    "network-secret",
    "passwords of Wi-Fi, 802.1X, VPN and PPP: NetworkManager, netplan, wpa_supplicant, iwd, WireGuard, IPsec",
    _HANDED_OUT,
)
CREDENTIALS = _secret(
    "credentials",
    "tokens and passwords of people and clouds: .netrc, .aws, .kube, .docker, keyrings, …",
    "log out, or remove the file, on the golden node",
)
SERVICE_PASSWORD = _secret(
    "service-password",
    "passwords in settings: LDAP binds, mail relays, mounts, databases, repositories",
    _HANDED_OUT,
)
DOMAIN_SECRET = _secret(
    "domain-secret",
    "what this machine proves itself with to a domain (Samba, winbind, SSSD)",
    "leave the domain before the capture, have each node join it",
)
SUBSCRIPTION = _secret(
    "subscription",
    "the registration of this machine with its distributor",
    "subscription-manager unregister and clean, or SUSEConnect --deregister; register each node",
)
HISTORY_SECRET = _secret(
    "history-secret", "histories with passwords or tokens typed on a command line", "remove the history"
)
CORE_DUMP = _secret(
    "core-dump", "memory of programs or kernels that crashed", "remove it: memory holds keys and passwords"
)

LOCAL_KEY = _advice(
    "local-key",
    "keys that packages make for the machine they are installed on: snake oil, localhost, cups, fwupd, …",
    "every clone has the same one; nobody should trust it, else make it anew on each node",
)
SHELL_HISTORY = _advice(
    "shell-history", "histories of shells and clients", "remove it, or leave it out by --exclude-paths"
)
DEVICE_NAME = _advice(
    "device-name",
    "/dev/sda1, /dev/nvme0n1p2, /dev/vda, … in fstab, crypttab, GRUB's and the kernel's settings",
    "name it by UUID= or LABEL=: what is sda here is another disk on another machine. A deploy mends what its layout"
    " makes and no more",
)
HOSTONLY = _advice(
    "hostonly-initramfs",
    "an initramfs for this machine alone (MODULES=dep, hostonly, autodetect)",
    "each clone on other hardware makes it anew, which takes a minute or more: set MODULES=most, hostonly=no, or HOOKS"
    " without autodetect; make it anew, capture again",
)
STALE_RESUME = _advice(
    "stale-resume",
    "resume= that names no swap of fstab or of the layout, one that no clone has, or a place in a swap file",
    "clones wait for it at each boot: remove it, set RESUME=none, make the initramfs anew",
)
LARGE_LOG = _advice(
    "large-log", "logs of 64 MiB and more", "remove or rotate them, or leave them out by --exclude-paths"
)
JOURNAL = _advice(
    "journal",
    "journals of 64 MiB and more in all",
    "no clone reads them, they are of another machine-id: leave out /var/log/journal/* by --exclude-paths",
    64 * MIB,
)
PACKAGE_CACHE = _advice(
    "package-cache",
    "caches of package managers, of 16 MiB and more in all",
    "apt-get clean, dnf clean all, zypper clean, or pacman -Scc",
    16 * MIB,
)
SWAP_FILE = _advice("swap-file", "swap files, wherever they are", "left out; a layout says what swap a clone has")
CONTAINERS = _advice(
    "container-storage",
    "images and layers of containers",
    "not looked into, and every clone gets them with whatever they hold: prune, or leave them out by --exclude-paths",
)
CLOUD_SEED = _advice(
    "cloud-seed",
    "a seed for cloud-init",
    "each clone runs it at its first boot, and anybody on it can read it: have no password in it",
)
SEALED_CREDENTIAL = _advice(
    "sealed-credential",
    "credentials of systemd, encrypted for this machine",
    "no clone can open them: each has a key of its own",
)

KINDS = tuple(value for value in list(globals().values()) if isinstance(value, LintKind))
"""All kinds, by grade, in the order people read them."""
