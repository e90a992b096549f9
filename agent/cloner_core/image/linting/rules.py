"""The rules of the lint: which paths say something by themselves, and which files are read for what.

Of patterns from the root of the tree `*` is one name or a part of it, `**` any number of directories, `~` the home of
a person or a service. No file of more than READ_BYTES is read (but for the header of what may be a core dump), and none
that no rule names. What docs/capture.md tells of kinds must agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloner_core.bootneeds import HOSTONLY_FILES
from cloner_core.image.linting import kinds
from cloner_core.image.linting.kinds import LintKind
from cloner_core.image.linting.readers import (
    Reader,
    any_of,
    base64_key,
    core_dump,
    devices,
    fstab_passwords,
    key_within,
    matching,
    pkcs12,
    private_key,
    setting,
    typed_secret,
)
from cloner_core.sizes import KIB, MIB

READ_BYTES = 256 * KIB
"""The most that is read of a file; a bigger one is judged by its path alone."""

_KEY_BYTES = 64 * KIB  # no file with a private key on its first line is bigger
_HEAD_BYTES = 2 * KIB
_LOG_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class LintRule:
    """One pattern and what a file there means."""

    pattern: bytes
    kind: LintKind
    reader: Reader | None = None  # None: the path says it
    read_bytes: int = READ_BYTES  # how much of the start of the file the reader wants
    most_bytes: int = READ_BYTES  # a reader is not asked of a bigger file
    least_bytes: int = 0  # a smaller one is no finding, by the room it takes
    is_weight: bool = False  # what counts is the room it takes
    is_beside: bool = False  # told beside whatever else the file is; else a file is what the first rule finds
    is_gathered: bool = False  # judged at the end, with the other files of its kind
    says: str = ""  # what is told where there is no reader


SEARCHED = (b"etc", b"usr/local/etc", b"var/lib", b"var/kerberos", b"~")
"""Directories whose every file is looked at for a private key; home directories elsewhere as well."""

UNSEARCHED = (
    b"var/lib/apt",
    b"var/lib/containerd",
    b"var/lib/containers",
    b"var/lib/docker",
    b"var/lib/dpkg",
    b"var/lib/flatpak",
    b"var/lib/lxc",
    b"var/lib/machines",
    b"var/lib/pacman",
    b"var/lib/rpm",
    b"var/lib/snapd",
    b"~/.cargo/registry",
    b"~/.local/share/containers",
    b"~/.rustup",
    b"~/go/pkg/mod",
)
"""Other systems, and what package managers keep: what is in there came from elsewhere."""

PUBLIC_NAME = re.compile(rb"(?:python\d(?:\.\d+)?|(?:dist|site)-packages|node_modules|gems)\Z")
"""Directories of packages that anybody can download; the keys in them are those of tests. Not searched anywhere."""

HOME_PATTERNS = (b"root", b"home/*", b"export/home/*", b"srv/home/*", b"var/home/*", b"var/roothome")
"""Homes that need no passwd: /home may be a link, and its people may be in a directory of the network."""

_MADE_HERE = tuple(
    LintRule(pattern, kinds.LOCAL_KEY)
    for pattern in (
        b"etc/bind/rndc.key",
        b"etc/cockpit/ws-certs.d/0-self-signed*.key",
        b"etc/cups/ssl/*.key",
        b"etc/pki/dovecot/private/dovecot.pem",
        b"etc/pki/tls/private/localhost.key",
        b"etc/pki/tls/private/postfix.key",
        b"etc/rndc.key",
        b"etc/ssl/private/ssl-cert-snakeoil.key",
        b"etc/unbound/unbound_*.key",
        b"etc/xrdp/key.pem",
        b"var/lib/dkms/mok.key",
        b"var/lib/fwupd/pki/secret.key",
        b"var/lib/mysql/*key.pem",
        b"var/lib/pcsd/pcsd.key",
        b"var/lib/shim-signed/mok/MOK.priv",
    )
)

_KEYS = tuple(
    rule
    for place in SEARCHED
    for rule in (
        LintRule(place + b"/**/*", kinds.PRIVATE_KEY, private_key, _HEAD_BYTES, _KEY_BYTES),
        *(
            LintRule(place + b"/**/*" + suffix, kinds.PRIVATE_KEY, key_within)
            for suffix in (b".pem", b".key", b".crt", b".ovpn", b".p8")
        ),
        LintRule(place + b"/**/*.p12", kinds.PRIVATE_KEY, pkcs12, 1),
        LintRule(place + b"/**/*.pfx", kinds.PRIVATE_KEY, pkcs12, 1),
        LintRule(place + b"/**/*.keytab", kinds.KEYTAB),
        LintRule(place + b"/**/core", kinds.CORE_DUMP, core_dump, 18, 1 << 62, is_weight=True),
        LintRule(place + b"/**/core.[0-9]*", kinds.CORE_DUMP, core_dump, 18, 1 << 62, is_weight=True),
    )
)

_PASSWORD = setting(rb"pass(?:word|wd)?")
_AUTH = matching(rb'"auth"\s*:\s*"[^"]')
_KUBERNETES = setting(rb"client-key-data|token|password|secret-key")
_DAVFS = matching(rb"^[^#\s]\S*[ \t]+\S+[ \t]+\S")
_HOME = (
    LintRule(b"~/.gnupg/private-keys-v1.d/*.key", kinds.PRIVATE_KEY),
    LintRule(b"~/.gnupg/secring.gpg", kinds.PRIVATE_KEY),
    LintRule(b"~/.ssh/id_dropbear", kinds.PRIVATE_KEY),
    LintRule(b"~/.netrc", kinds.CREDENTIALS, matching(rb"\bpassword\s+\S")),
    LintRule(b"~/.my.cnf", kinds.CREDENTIALS, _PASSWORD),
    LintRule(b"~/.pypirc", kinds.CREDENTIALS, _PASSWORD),
    LintRule(b"~/.wgetrc", kinds.CREDENTIALS, setting(rb"\w{0,40}password")),
    LintRule(b"~/.smbcredentials", kinds.CREDENTIALS, _PASSWORD),
    LintRule(b"~/.npmrc", kinds.CREDENTIALS, setting(rb"(?:\S{0,200}:)?_(?:authToken|auth|password)")),
    LintRule(b"~/.kube/config", kinds.CREDENTIALS, _KUBERNETES),
    LintRule(b"~/.docker/config.json", kinds.CREDENTIALS, _AUTH),
    LintRule(b"~/.config/containers/auth.json", kinds.CREDENTIALS, _AUTH),
    LintRule(
        b"~/.config/rclone/rclone.conf", kinds.CREDENTIALS, setting(rb"pass\w{0,40}|token|\w{0,40}secret\w{0,40}|key")
    ),
    LintRule(b"~/.config/openstack/*.yaml", kinds.CREDENTIALS, setting(rb"password|\w{0,40}secret")),
    LintRule(b"~/.davfs2/secrets", kinds.CREDENTIALS, _DAVFS),
    LintRule(b"~/.s3cfg", kinds.CREDENTIALS, setting(rb"secret_key|access_token")),
    LintRule(b"~/.boto", kinds.CREDENTIALS, setting(rb"\w{0,40}secret\w{0,40}|gs_oauth2_refresh_token")),
    *(
        LintRule(b"~/" + path, kinds.CREDENTIALS)
        for path in (
            b".aws/credentials",
            b".aws/sso/cache/*.json",
            b".azure/accessTokens.json",
            b".azure/msal_token_cache.*",
            b".cache/huggingface/token",
            b".cargo/credentials.toml",
            b".config/doctl/config.yaml",
            b".config/gcloud/access_tokens.db",
            b".config/gcloud/application_default_credentials.json",
            b".config/gcloud/credentials.db",
            b".config/gcloud/legacy_credentials/*/adc.json",
            b".config/gh/hosts.yml",
            b".config/hcloud/cli.toml",
            b".config/sops/age/keys.txt",
            b".git-credentials",
            b".config/git/credentials",
            b".local/share/keyrings/*.keyring",
            b".mozilla/firefox/*/logins.json",
            b".mylogin.cnf",
            b".pgpass",
            b".terraform.d/credentials.tfrc.json",
            b".config/tigervnc/passwd",
            b".vault-token",
            b".vnc/passwd",
        )
    ),
    *(
        rule
        for name in (
            b".bash_history",
            b".history",
            b".ksh_history",
            b".sh_history",
            b".ash_history",
            b".zsh_history",
            b".local/share/fish/fish_history",
            b".mysql_history",
            b".mariadb_history",
            b".psql_history",
            b".python_history",
            b".rediscli_history",
            b".sqlite_history",
        )
        for rule in (
            LintRule(b"~/" + name, kinds.HISTORY_SECRET, typed_secret),
            LintRule(b"~/" + name, kinds.SHELL_HISTORY),
        )
    ),
)

_WIREGUARD = base64_key(rb"PrivateKey|PresharedKey")
_NETWORK = (
    LintRule(
        b"etc/NetworkManager/system-connections/*",
        kinds.NETWORK_SECRET,
        any_of(
            setting(rb"psk|pin|sae-password|[\w -]{0,40}password(?:-raw)?|[\w -]{0,40}secret|wep-key\d"),
            base64_key(rb"private-key|preshared-key"),
        ),
    ),
    LintRule(
        b"etc/netplan/*.yaml",
        kinds.NETWORK_SECRET,
        any_of(
            matching(rb"^(?:[^#\n]*[\s{,])?[\"']?(?:[\w-]{0,40}password|psk)[\"']?:[ \t]+[\"']?[^\s\"']"),
            base64_key(rb"key|private|shared"),
        ),
    ),
    *(
        LintRule(
            pattern,
            kinds.NETWORK_SECRET,
            setting(rb"psk|password|passphrase|sae_password|wep_key\d|private_key_passwd"),
        )
        for pattern in (b"etc/wpa_supplicant/*", b"etc/wpa_supplicant.conf", b"etc/hostapd/*")
    ),
    *(
        LintRule(
            pattern,
            kinds.NETWORK_SECRET,
            setting(rb"wpa-(?:psk|passphrase|password)|wireless-key\d?", separator=rb"[ \t]+"),
        )
        for pattern in (b"etc/network/interfaces", b"etc/network/interfaces.d/*")
    ),
    *(
        LintRule(
            pattern,
            kinds.NETWORK_SECRET,
            setting(rb"WPA_PSK|KEY\d?|KEY_PASSPHRASE\d|WIRELESS_(?:WPA_PSK|WPA_PASSWORD|KEY_\d)", separator=rb"="),
        )
        for pattern in (b"etc/sysconfig/network-scripts/keys-*", b"etc/sysconfig/network/ifcfg-*")
    ),
    LintRule(b"etc/systemd/network/*.netdev", kinds.NETWORK_SECRET, _WIREGUARD),
    LintRule(b"etc/wireguard/*", kinds.NETWORK_SECRET, _WIREGUARD),
    *(
        LintRule(pattern, kinds.NETWORK_SECRET, matching(rb'^[ \t]*[^#\s]\S*[ \t]+\S+[ \t]+(?!""|"\*")[^\s#]'))
        for pattern in (b"etc/ppp/chap-secrets", b"etc/ppp/pap-secrets")
    ),
    *(
        LintRule(pattern, kinds.NETWORK_SECRET, matching(rb"^[^#\n]*\b(?:PSK|XAUTH|EAP|NTLM)[ \t]+[\"0]"))
        for pattern in (b"etc/ipsec.secrets", b"etc/ipsec.d/*.secrets")
    ),
    LintRule(b"etc/swanctl/**/*.conf", kinds.NETWORK_SECRET, setting(rb"secret", separator=rb"[ \t]*=")),
    LintRule(b"var/lib/iwd/*.psk", kinds.NETWORK_SECRET),
    LintRule(b"var/lib/iwd/*.8021x", kinds.NETWORK_SECRET, setting(rb"[\w-]{0,40}(?:password|passphrase)")),
)

_CLUSTER = tuple(
    LintRule(pattern, kinds.CLUSTER_KEY)
    for pattern in (
        b"etc/ceph/*.keyring",
        b"etc/corosync/authkey",
        b"etc/munge/munge.key",
        b"etc/pacemaker/authkey",
        b"etc/slurm*/*.key",
        b"etc/slurm*/slurm.jwks",
    )
)

_SERVICES = (
    LintRule(b"etc/pki/consumer/*.pem", kinds.SUBSCRIPTION),
    LintRule(b"etc/pki/entitlement/*.pem", kinds.SUBSCRIPTION),
    LintRule(b"etc/sysconfig/rhn/systemid", kinds.SUBSCRIPTION),
    LintRule(b"etc/zypp/credentials.d/SCCcredentials", kinds.SUBSCRIPTION),
    LintRule(b"var/lib/ubuntu-advantage/private/*", kinds.SUBSCRIPTION),
    LintRule(b"etc/fstab", kinds.SERVICE_PASSWORD, fstab_passwords),
    LintRule(b"root/*ks.cfg", kinds.SERVICE_PASSWORD, matching(rb"^(?:rootpw|user|luks)\b[^\n#]*--plaintext\b")),
    LintRule(b"etc/sssd/sssd.conf", kinds.SERVICE_PASSWORD, setting(rb"ldap_default_authtok")),
    LintRule(b"etc/sssd/conf.d/*.conf", kinds.SERVICE_PASSWORD, setting(rb"ldap_default_authtok")),
    *(
        LintRule(pattern, kinds.SERVICE_PASSWORD, setting(rb"(?:rootpw)?bindpw|rootpwmodpw", separator=rb"[ \t]+"))
        for pattern in (b"etc/nslcd.conf", b"etc/ldap.conf", b"etc/pam_ldap.conf", b"etc/libnss-ldap.conf")
    ),
    *(
        LintRule(pattern, kinds.SERVICE_PASSWORD)
        for pattern in (b"etc/ldap.secret", b"etc/libnss-ldap.secret", b"etc/pam_ldap.secret", b"etc/credstore/*")
    ),
    LintRule(b"etc/exim4/passwd.client", kinds.SERVICE_PASSWORD, matching(rb"^[^#\s][^:\n]*:[^:\n]*:\S")),
    LintRule(b"etc/postfix/sasl_passwd", kinds.SERVICE_PASSWORD, matching(rb"^[^#\s]\S*[ \t]+\S+:\S")),
    LintRule(b"etc/postfix/sasl/sasl_passwd", kinds.SERVICE_PASSWORD, matching(rb"^[^#\s]\S*[ \t]+\S+:\S")),
    LintRule(b"etc/msmtprc", kinds.SERVICE_PASSWORD, setting(rb"password", separator=rb"[ \t]+")),
    LintRule(b"etc/mysql/debian.cnf", kinds.SERVICE_PASSWORD, _PASSWORD),
    LintRule(b"etc/my.cnf", kinds.SERVICE_PASSWORD, _PASSWORD),
    LintRule(b"etc/ssmtp/ssmtp.conf", kinds.SERVICE_PASSWORD, setting(rb"AuthPass", separator=rb"[ \t]*=")),
    LintRule(b"etc/slurm*/slurmdbd.conf", kinds.SERVICE_PASSWORD, setting(rb"StoragePass")),
    LintRule(b"etc/apt/auth.conf", kinds.SERVICE_PASSWORD, matching(rb"^[^#\n]*\bpassword[ \t]+\S")),
    LintRule(b"etc/apt/auth.conf.d/*", kinds.SERVICE_PASSWORD, matching(rb"^[^#\n]*\bpassword[ \t]+\S")),
    *(
        LintRule(pattern, kinds.SERVICE_PASSWORD, setting(rb"(?:proxy_)?password", separator=rb"[ \t]*="))
        for pattern in (
            b"etc/yum.repos.d/*.repo",
            b"etc/dnf/dnf.conf",
            b"etc/zypp/repos.d/*.repo",
            b"etc/zypp/credentials.d/*",
        )
    ),
    *(
        LintRule(pattern, kinds.SERVICE_PASSWORD, matching(rb"^[ \t]*\d+[ \t]+\S+[ \t]+\S"))
        for pattern in (b"etc/chrony.keys", b"etc/chrony/chrony.keys", b"etc/ntp.keys", b"etc/ntp/keys")
    ),
    LintRule(b"etc/cloner/*.toml", kinds.SERVICE_PASSWORD, setting(rb"\w{0,40}(?:token|password|secret)")),
    LintRule(b"etc/davfs2/secrets", kinds.SERVICE_PASSWORD, _DAVFS),
    LintRule(b"etc/gitlab-runner/config.toml", kinds.SERVICE_PASSWORD, setting(rb"token")),
    LintRule(b"etc/kubernetes/*.conf", kinds.CREDENTIALS, _KUBERNETES),
    LintRule(b"etc/rancher/**/*.yaml", kinds.CREDENTIALS, _KUBERNETES),
    LintRule(b"var/lib/rancher/*/server/token", kinds.CREDENTIALS),
    LintRule(b"etc/docker/key.json", kinds.PRIVATE_KEY, matching(rb'"d"\s*:')),
    LintRule(b"etc/letsencrypt/accounts/**/private_key.json", kinds.PRIVATE_KEY),
    *(
        LintRule(pattern, kinds.PRIVATE_KEY, says="Dropbear host key; the initramfs has a copy")
        for pattern in (
            b"etc/dropbear/initramfs/dropbear_*_host_key",
            b"etc/dropbear-initramfs/dropbear_*_host_key",  # Debian 9 to 11
            b"etc/initramfs-tools/etc/dropbear/dropbear_*_host_key",
        )
    ),
    LintRule(
        b"etc/dropbear/**/dropbear_*_host_key",
        kinds.PRIVATE_KEY,
        says="Dropbear host key; an initramfs made with it has a copy",
    ),
    LintRule(b"etc/cryptsetup-keys.d/*", kinds.DISK_KEY),
    LintRule(b"crypto_keyfile.bin", kinds.DISK_KEY),
    LintRule(b"var/lib/samba/private/secrets.tdb", kinds.DOMAIN_SECRET),
    LintRule(b"etc/samba/secrets.tdb", kinds.DOMAIN_SECRET),
    LintRule(b"var/lib/sss/secrets/*", kinds.DOMAIN_SECRET),
    LintRule(b"etc/credstore.encrypted/*", kinds.SEALED_CREDENTIAL),
    LintRule(b"var/lib/cloud/seed/*/user-data", kinds.CLOUD_SEED),
    LintRule(b"var/lib/cloud/seed/*/vendor-data", kinds.CLOUD_SEED),
)

COMMAND_LINES = (
    b"etc/default/grub",
    b"etc/default/grub.d/*.cfg",
    b"etc/kernel/cmdline",
    b"boot/grub/grub.cfg",
    b"boot/grub2/grub.cfg",
    b"boot/grub2/grubenv",
    b"boot/loader/entries/*.conf",
    b"boot/efi/EFI/*/grub.cfg",
    b"boot/efi/loader/entries/*.conf",
    b"efi/loader/entries/*.conf",
)
"""Where the command line of the kernel is said."""
RESUME_FILE = b"etc/initramfs-tools/conf.d/resume"

_DEVICES = tuple(
    LintRule(pattern, kinds.DEVICE_NAME, devices, is_beside=True)
    for pattern in (
        b"etc/fstab",
        b"etc/crypttab",
        b"boot/grub/device.map",
        b"boot/grub2/device.map",
        RESUME_FILE,
        *COMMAND_LINES,
    )
)

_GATHERED = (
    *(LintRule(path.strip("/").encode(), kinds.HOSTONLY, is_gathered=True) for path in HOSTONLY_FILES),
    *(LintRule(pattern, kinds.STALE_RESUME, is_gathered=True) for pattern in (RESUME_FILE, *COMMAND_LINES)),
)

_WEIGHTS = (
    *(
        LintRule(pattern, kinds.CORE_DUMP, is_weight=True)
        for pattern in (
            b"var/crash/*.crash",
            b"var/crash/**/vmcore*",
            b"var/crash/**/dump.*",
            b"var/lib/apport/coredump/*",
            b"var/lib/systemd/coredump/*",
            b"var/spool/abrt/**/coredump*",
        )
    ),
    *(
        LintRule(pattern, kinds.CORE_DUMP, core_dump, 18, 1 << 62, is_weight=True)
        for pattern in (b"core", b"core.[0-9]*", b"var/tmp/core*", b"var/cores/**/*", b"var/core/**/*")
    ),
    LintRule(b"var/log/journal/*/*", kinds.JOURNAL, is_weight=True),
    LintRule(b"var/log/**/*", kinds.LARGE_LOG, least_bytes=_LOG_BYTES, is_weight=True),
    *(
        LintRule(pattern, kinds.PACKAGE_CACHE, is_weight=True)
        for pattern in (
            b"var/cache/apt/archives/*.deb",
            b"var/cache/dnf/**/*",
            b"var/cache/libdnf5/**/*",
            b"var/cache/PackageKit/**/*",
            b"var/cache/pacman/pkg/*",
            b"var/cache/yum/**/*",
            b"var/cache/zypp/packages/**/*",
        )
    ),
    *(
        LintRule(pattern, kinds.CONTAINERS, is_weight=True)
        for pattern in (
            b"var/lib/docker/overlay2/**/*",
            b"var/lib/containerd/io.containerd.*/**/*",
            b"var/lib/containers/storage/overlay/**/*",
        )
    ),
)

RULES = (*_MADE_HERE, *_HOME, *_NETWORK, *_CLUSTER, *_SERVICES, *_DEVICES, *_GATHERED, *_WEIGHTS, *_KEYS)
"""All rules, in the order in which they are asked: what is known by its path goes before the search for keys."""
