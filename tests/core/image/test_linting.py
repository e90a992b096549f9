"""What a lint finds in a tree of names and bytes, and what it leaves in peace."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.image.linting import kinds
from cloner_core.image.linting.finding import PLACES_MOST, Grade
from cloner_core.image.linting.kinds import KINDS
from cloner_core.image.linting.linter import SecretsError
from cloner_core.image.linting.readers import private_key
from cloner_core.image.linting.rules import READ_BYTES, RULES
from cloner_core.image.linting.scopes import Scope
from cloner_core.layout import Layout, parse_layout
from cloner_core.sizes import MIB
from core.image.lintbench import found, only, walked

OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n"
PEM = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\n-----END PRIVATE KEY-----\n"
CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
DROPBEAR = b"\0\0\0\x07ssh-rsa\0\0\0\x03\1\0\1\0\0\1\1\0" + bytes(range(255))
WG = b"A" * 43 + b"="
CORE = b"\x7fELF" + bytes(12) + b"\x04\x00" + bytes(50)
PROGRAM = b"\x7fELF" + bytes(12) + b"\x02\x00" + bytes(50)

EXAMPLES: dict[str, list[tuple[str, bytes]]] = {
    "private-key": [
        ("root/.ssh/id_ed25519", OPENSSH),
        ("home/alice/work/deploy", b"\n  \n" + OPENSSH),
        ("etc/pki/tls/private/site.key", PEM),
        ("etc/haproxy/site.pem", CERTIFICATE + PEM),
        ("etc/ssl/private/enc.key", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"),
        ("etc/openvpn/static", b"-----BEGIN OpenVPN Static key V1-----\n6acef03f\n"),
        ("etc/openvpn/client.ovpn", b"client\r\n<key>\r\n-----BEGIN RSA PRIVATE KEY-----\r\nMII\r\n"),
        ("home/bob/putty.ppk", b"PuTTY-User-Key-File-3: ssh-ed25519\n"),
        ("root/age.txt", b"# created: 2026-01-01\n# public key: age1x\nAGE-SECRET-KEY-1QQ\n"),
        ("root/.gnupg/private-keys-v1.d/0A.key", b"(private-key (ecc"),
        ("home/bob/export.asc", b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ"),
        ("home/bob/client.p12", b"\x30\x82\x0a"),
        ("var/lib/tor/site/hs_ed25519_secret_key", b"== ed25519v1-secret: type0 ==\0\0\0"),
        ("etc/docker/key.json", b'{"crv":"P-256","d":"x"}'),
        ("etc/letsencrypt/accounts/a/directory/b/private_key.json", b"{}"),
        ("home/deploy/x-ssh2", b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n"),
        ("etc/dropbear/dropbear_rsa_host_key", DROPBEAR),
        ("etc/dropbear/initramfs/dropbear_ed25519_host_key", DROPBEAR),
        ("etc/dropbear-initramfs/dropbear_ecdsa_host_key", DROPBEAR),
        ("etc/initramfs-tools/etc/dropbear/dropbear_dss_host_key", DROPBEAR),
        ("home/alice/.ssh/id_dropbear", DROPBEAR),
    ],
    "disk-key": [("etc/cryptsetup-keys.d/home.key", b"\0" * 64), ("crypto_keyfile.bin", b"\1" * 2048)],
    "keytab": [("etc/httpd/http.keytab", b"\5\2\0"), ("home/alice/me.keytab", b"\5\2\0")],
    "cluster-key": [
        ("etc/munge/munge.key", b"\xff" * 128),
        ("etc/slurm/slurm.key", b"k"),
        ("etc/ceph/c.keyring", b"k"),
    ],
    "network-secret": [
        (
            "etc/NetworkManager/system-connections/wifi.nmconnection",
            b"[wifi-security]\nkey-mgmt=wpa-psk\npsk=hunter22\n",
        ),
        ("etc/NetworkManager/system-connections/wg", b"[wireguard]\nprivate-key=" + WG + b"\n"),
        ("etc/NetworkManager/system-connections/vpn", b"[vpn-secrets]\nIPSec secret=x1\n"),
        (
            "etc/netplan/50-wifi.yaml",
            b"network:\n  wifis:\n    w0:\n      access-points:\n        x: {password: 'p w'}\n",
        ),
        ("etc/netplan/60-wg.yaml", b"network:\n  tunnels:\n    wg0:\n      key: " + WG + b"\n"),
        ("etc/wpa_supplicant/wpa_supplicant-w0.conf", b'network={\n\tssid="x"\n\tpsk="secret pass"\n}\n'),
        ("etc/network/interfaces.d/w0", b"iface w0 inet dhcp\n  wpa-ssid x\n  wpa-psk hunter22\n"),
        ("etc/sysconfig/network/ifcfg-wlan0", b"WIRELESS_WPA_PSK='hunter22'\n"),
        ("etc/sysconfig/network-scripts/keys-x", b"WPA_PSK=hunter22\n"),
        ("etc/systemd/network/wg0.netdev", b"[WireGuard]\nPrivateKey=" + WG + b"\n"),
        ("etc/wireguard/wg0.conf", b"[Interface]\nPrivateKey = " + WG + b"\n"),
        ("etc/ppp/chap-secrets", b"# client server secret\nme * hunter2 *\n"),
        ("etc/ipsec.secrets", b'# x\n10.0.0.1 10.0.0.2 : PSK "hunter2"\n'),
        ("etc/swanctl/conf.d/a.conf", b"secrets {\n  ike-1 {\n    secret = hunter2\n  }\n}\n"),
        ("var/lib/iwd/home.psk", b"[Security]\nPassphrase=x\n"),
    ],
    "credentials": [
        ("etc/kubernetes/admin.conf", b"users:\n- user:\n    client-key-data: LS0t\n"),
        ("var/home/alice/.vnc/passwd", b"\1\2"),
        ("root/.netrc", b"machine x login me password hunter2\n"),
        ("home/alice/.aws/credentials", b"[default]\naws_secret_access_key = x\n"),
        ("root/.kube/config", b"users:\n- name: a\n  user:\n    token: eyJ\n"),
        ("root/.docker/config.json", b'{"auths": {"r": {"auth": "bWU6cHc="}}}'),
        ("home/alice/.npmrc", b"//registry/:_authToken=npm_x\n"),
        ("home/alice/.config/rclone/rclone.conf", b"[r]\ntype = sftp\npass = x\n"),
        ("home/alice/.config/openstack/clouds.yaml", b"clouds:\n  a:\n    auth:\n      password: x\n"),
        ("home/alice/.config/gcloud/credentials.db", b"SQLite"),
        ("home/alice/.git-credentials", b"https://me:pw@host\n"),
        ("home/alice/.local/share/keyrings/login.keyring", b"GnomeKeyring"),
    ],
    "service-password": [
        ("etc/fstab", b"//nas/x /mnt cifs username=a,password=hunter2 0 0\n"),
        ("etc/sssd/sssd.conf", b"[domain/x]\nldap_default_authtok = hunter2\n"),
        ("etc/nslcd.conf", b"bindpw hunter2\n"),
        ("etc/postfix/sasl_passwd", b"[relay]:587 me:hunter2\n"),
        ("etc/exim4/passwd.client", b"# target:login:password\n*:me:hunter2\n"),
        ("etc/msmtprc", b"account a\npassword hunter2\n"),
        ("etc/apt/auth.conf.d/site.conf", b"machine x login me password hunter2\n"),
        ("etc/yum.repos.d/site.repo", b"[site]\npassword=hunter2\n"),
        ("etc/chrony/chrony.keys", b"1 SHA1 HEX:B64\n"),
        ("etc/slurm/slurmdbd.conf", b"StoragePass=hunter2\n"),
        ("etc/mysql/debian.cnf", b"[client]\npassword = hunter2\n"),
        ("etc/cloner/node.toml", b'server = "head"\ntoken = "eyJ"\n'),
        ("etc/credstore/db.password", b"hunter2"),
        ("root/anaconda-ks.cfg", b"# x\nrootpw --plaintext hunter2\n"),
    ],
    "domain-secret": [("var/lib/samba/private/secrets.tdb", b"TDB"), ("var/lib/sss/secrets/secrets.ldb", b"TDB")],
    "subscription": [
        ("etc/pki/consumer/key.pem", PEM),
        ("etc/pki/entitlement/1-key.pem", PEM),
        ("etc/zypp/credentials.d/SCCcredentials", b"username=SCC_1\npassword=x\n"),
    ],
    "history-secret": [
        ("root/.bash_history", b"ls\nmysql -u root -phunter2\n"),
        ("home/alice/.zsh_history", b": 1:0;export API_TOKEN=abcd1234\n"),
        ("home/bob/.bash_history", b"curl -u me:hunter2 https://x\n"),
        ("home/eve/.bash_history", b"git clone https://me:ghp_x@github.com/x\n"),
        ("home/joe/.bash_history", b"curl -H 'Authorization: Bearer eyJ' https://x\n"),
        ("home/ann/.bash_history", b"sshpass -p hunter2 ssh x\n"),
    ],
    "core-dump": [
        ("var/lib/systemd/coredump/core.sshd.0.zst", b"\x28\xb5"),
        ("var/crash/202611210000/vmcore", b"KDUMP"),
        ("home/alice/core.4711", CORE),
        ("core", CORE),
        ("var/crash/_usr_bin_x.0.crash", b"ProblemType: Crash"),
    ],
    "local-key": [
        ("etc/ssl/private/ssl-cert-snakeoil.key", PEM),
        ("etc/pki/tls/private/localhost.key", PEM),
        ("etc/cups/ssl/golden.key", PEM),
        ("var/lib/fwupd/pki/secret.key", PEM),
        ("etc/cockpit/ws-certs.d/0-self-signed.key", PEM),
        ("var/lib/dkms/mok.key", PEM),
    ],
    "shell-history": [("root/.bash_history", b"ls\ngrep password /etc/x\necho token=$TOKEN\n")],
    "device-name": [
        ("etc/fstab", b"/dev/sda2 / ext4 defaults 0 1\n"),
        ("etc/crypttab", b"home /dev/nvme0n1p3 none luks\n"),
        ("etc/default/grub", b'GRUB_CMDLINE_LINUX="root=/dev/vda1"\n'),
        ("boot/grub/grub.cfg", b"\tlinux /vmlinuz root=/dev/mmcblk0p2 ro\n"),
        ("boot/loader/entries/a.conf", b"options root=/dev/xvda1\n"),
        ("boot/efi/EFI/x/grub.cfg", b"linux /vmlinuz root=/dev/sda1\n"),
    ],
    "hostonly-initramfs": [
        ("etc/initramfs-tools/conf.d/x", b"MODULES=dep\n"),
        ("usr/lib/dracut/dracut.conf.d/01-dist.conf", b'hostonly="yes"\n'),
        ("etc/mkinitcpio.conf", b"HOOKS=(base udev autodetect modconf)\n"),
    ],
    "stale-resume": [
        ("etc/initramfs-tools/conf.d/resume", b"RESUME=UUID=1111-aaaa\n"),
        ("etc/default/grub", b'GRUB_CMDLINE_LINUX="quiet resume=/dev/mapper/old-swap"\n'),
        ("boot/loader/entries/a.conf", b"options root=LABEL=r resume=UUID=1 resume_offset=34816\n"),
    ],
    "large-log": [("var/log/app/app.log", b"x")],
    "journal": [("var/log/journal/0123/system.journal", b"LPKSHHRH")],
    "package-cache": [
        ("var/cache/apt/archives/a_1_amd64.deb", b"!<arch>"),
        ("var/cache/dnf/b-1/packages/a.rpm", b"\xed"),
    ],
    "container-storage": [
        ("var/lib/docker/overlay2/abc/diff/etc/passwd", b"root"),
        ("var/lib/containers/storage/overlay/abc/diff/usr/bin/x", PROGRAM),
    ],
    "cloud-seed": [("var/lib/cloud/seed/nocloud/user-data", b"#cloud-config\n")],
    "sealed-credential": [("etc/credstore.encrypted/db", b"k6iU")],
}
SIZES = {
    "var/log/app/app.log": 65 * MIB,
    "var/log/journal/0123/system.journal": 65 * MIB,
    "var/cache/apt/archives/a_1_amd64.deb": 17 * MIB,
    "var/cache/dnf/b-1/packages/a.rpm": 17 * MIB,
}
_TOLD_BY_THE_WALK = {"swap-file"}


@pytest.mark.parametrize(
    ("kind", "path", "content"),
    [pytest.param(kind, *one, id=f"{kind}-{one[0]}") for kind, many in EXAMPLES.items() for one in many],
)
def test_each_is_found_for_what_it_is_and_as_nothing_else(kind: str, path: str, content: bytes) -> None:
    assert found({path: content}, sizes={path: SIZES.get(path, len(content))}) == {kind: [f"/{path}"]}


def test_every_kind_that_is_no_identity_has_an_example() -> None:
    wanted = {kind.name for kind in KINDS if kind.grade is not Grade.IDENTITY}
    assert set(EXAMPLES) == wanted - _TOLD_BY_THE_WALK


@pytest.mark.parametrize("between", ["", "a/", "a/b/"])
def test_every_rule_can_be_reached(between: str) -> None:
    """Neither a slip in a pattern nor what is not searched may make a rule dead."""
    top = walked({}).top
    for rule in RULES:
        path = (
            rule.pattern.decode().replace("**/", between).replace("[0-9]", "1").replace("*", "x").replace("~", "root")
        )
        *folders, name = path.encode().split(b"/")
        scope: Scope | None = top
        for folder in folders:
            scope = scope.enter(folder) if scope else None
        assert scope is not None
        assert rule in scope.of_file(name), rule.pattern
    assert {rule.kind for rule in RULES} <= set(KINDS)
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("unit", [b" ", b"a", b"secret", b"- ", b"password ", b"ab://c:", b"-----BEGIN A "])
def test_every_reader_comes_to_an_end(unit: bytes) -> None:
    """Users of a golden node write what is read here: a pattern that backtracks runs into the time limit of tests."""
    text = unit * (READ_BYTES // len(unit))
    readers = {rule.reader for rule in RULES if rule.reader}
    assert len(readers) > 40
    assert [reader for reader in readers if unit.decode() in (reader(text) or "")] == []


QUIET: dict[str, bytes] = {
    "root/anaconda-ks.cfg": b"rootpw --iscrypted $6$abc\n",
    "etc/shadow": b"root:$6$abc$def:19000:0:99999:7:::\n",
    "etc/ssl/certs/ca.pem": CERTIFICATE * 20,
    "etc/pki/rpm-gpg/RPM-GPG-KEY-x": b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
    "root/.ssh/authorized_keys": b"ssh-ed25519 AAAA me\n",
    "root/.ssh/id_ed25519.pub": b"ssh-ed25519 AAAA me\n",
    "home/alice/README": b"A key begins with\n-----BEGIN RSA PRIVATE KEY-----\n",
    "home/alice/empty.key": b"",
    "root/.bash_history": b"",
    "home/alice/venv/lib/python3.11/site-packages/x/test.key": PEM,
    "root/.pyenv/versions/3.12.1/lib/python3.12/test/certdata/keycert.pem": PEM,
    "home/alice/app/node_modules/x/test/key.pem": PEM,
    "home/alice/go/pkg/mod/x@v1/testdata/key.pem": PEM,
    "usr/share/doc/x/examples/key.pem": PEM,
    "srv/www/key.pem": PEM,
    "home/alice/core": PROGRAM,
    "home/alice/core.py": b"print()\n",
    "etc/NetworkManager/system-connections/eth.nmconnection": b"[connection]\nid=x\n[802-1x]\npassword-flags=1\n"
    b"private-key=/etc/pki/x.key\n",
    "etc/NetworkManager/system-connections/open.nmconnection": b"[wifi-security]\nkey-mgmt=none\npsk-flags=1\npsk=\n",
    "etc/netplan/01.yaml": b"network:\n  ethernets:\n    e: {dhcp4: true}\n  tunnels:\n    g: {mode: gre, key: 1234}\n"
    b"  # password: none\n  wifis: {w: {auth: {key-management: psk}}}\n",
    "etc/wpa_supplicant/functions.sh": b"#!/bin/sh\n# psk=\nWPA_PSK=1\n",
    "etc/network/interfaces": b"auto lo\niface lo inet loopback\n# wpa-psk x\n",
    "etc/sysconfig/network/ifcfg-eth0": b"BOOTPROTO='dhcp'\nWIRELESS_WPA_PSK=''\nWIRELESS_KEY_0=''\n",
    "etc/ppp/pap-secrets": b'# x\n*\thostname\t""\t*\nguest\thostname\t"*"\t-\n',
    "etc/ipsec.secrets": b'# : PSK "x"\ninclude /etc/ipsec.d/*.secrets\n',
    "etc/chrony/chrony.keys": b"# Examples:\n#1 MD5 AVeryLongAndRandomPassword\n",
    "etc/sssd/sssd.conf": b"[domain/x]\n# ldap_default_authtok = x\nid_provider = ldap\n",
    "etc/nslcd.conf": b"#bindpw secret\nuri ldap://x\n",
    "etc/exim4/passwd.client": b"### target.mail.server.example:login:password\n",
    "etc/mysql/debian.cnf": b"[client]\npassword =\n",
    "etc/msmtprc": b'passwordeval "gpg -d x"\n',
    "etc/yum.repos.d/x.repo": b"[x]\nname=x\ngpgcheck=1\n",
    "root/.kube/config": b"clusters: []\nusers: []\n",
    "root/.docker/config.json": b'{"auths": {"r": {}}, "credsStore": "pass"}',
    "root/.npmrc": b"//registry/:_authToken=${NPM_TOKEN}\n",
    "root/.netrc": b"machine x login anonymous\n",
    "etc/fstab": b"# /dev/sda1 was /\nUUID=aa / ext4 defaults 0 1\nUUID=bb none swap sw 0 0\n/dev/sr0 /cd udf x 0 0\n"
    b"/dev/mapper/vg-home /home xfs defaults 0 0\n/dev/md0 /data xfs defaults 0 0\nnas:/x /mnt nfs vers=4 0 0\n",
    "etc/crypttab": b"swap /dev/disk/by-partuuid/x /dev/urandom swap\nhome UUID=a none luks\n",
    "etc/default/grub": b'GRUB_CMDLINE_LINUX="quiet resume=UUID=BB"\nGRUB_DEVICE=$x\n# resume=UUID=cc\n',
    "etc/initramfs-tools/conf.d/resume": b"RESUME=none\n",
    "etc/initramfs-tools/initramfs.conf": b"MODULES=most\n",
    "var/log/syslog": b"x" * 100,
    "var/log/journal/0123/system.journal": b"x" * 100,
    "var/cache/apt/archives/lock": b"x",
    "var/lib/dpkg/info/x.pem": PEM,
    "var/lib/machines/other/etc/ssl/x.key": PEM,
    "var/lib/docker/volumes/x/_data/key.pem": PEM,
}


@pytest.mark.parametrize("path", QUIET)
def test_what_every_machine_has_and_nobody_minds_is_no_finding(path: str) -> None:
    prelude = {name: QUIET[name] for name in ("etc/fstab", "etc/crypttab")}
    assert found(prelude | {path: QUIET[path]}) == {}


def test_the_home_of_a_service_is_searched_wherever_it_is() -> None:
    passwd = b"root:x:0:0::/root:/bin/sh\nsvc:x:9:9::/data/svc:/bin/sh\nbin:x:2:2::/bin:/bin/sh\nn:x:7:7::/:/bin/sh\n"
    files = {"data/svc/.ssh/id": OPENSSH, "data/other/id": OPENSSH, "bin/id": OPENSSH, "usr/x.key": PEM}
    assert found({"etc/passwd": passwd} | files) == {"private-key": ["/data/svc/.ssh/id"]}


def test_files_that_crypttab_and_fstab_name_are_found_by_their_name() -> None:
    files = {
        "etc/crypttab": b"home UUID=a /srv/keys/[1].key luks\nswap UUID=b /dev/urandom swap\nx UUID=c none\n",
        "etc/fstab": b"//nas/x /mnt cifs credentials=/srv/cifs,uid=1 0 0\n",
        "srv/keys/[1].key": b"\0\1",
        "srv/keys/1.key": b"\0\1",
        "srv/cifs": b"username=a\npassword=b\n",
    }
    assert found(files) == {"disk-key": ["/srv/keys/[1].key"], "credentials": ["/srv/cifs"]}


def test_a_file_can_be_a_secret_and_name_a_device() -> None:
    fstab = b"/dev/sda1 / ext4 defaults 0 1\n//nas/x /mnt cifs password=x 0 0\n"
    assert set(found({"etc/fstab": fstab})) == {"service-password", "device-name"}


def test_a_file_above_the_cap_is_not_read() -> None:
    path = "root/.bash_history"
    linter = walked({})
    scope = linter.top.enter(b"root")
    assert scope is not None
    rules = scope.of_file(b".bash_history")
    assert linter.asks(rules, READ_BYTES) == READ_BYTES
    assert linter.asks(rules, READ_BYTES + 1) == 0
    typed = b"sshpass -p hunter2 ssh x\n"
    assert set(found({path: typed}, sizes={path: READ_BYTES + 1})) == {"shell-history"}


def test_a_file_that_no_rule_names_is_not_asked_for() -> None:
    linter = walked({})
    assert linter.top.enter(b"opt") is None
    usr = linter.top.enter(b"usr")
    assert usr is not None
    assert usr.enter(b"share") is None
    assert usr.of_file(b"key.pem") == ()


def test_devices_are_told_and_secrets_are_not() -> None:
    fstab = b"/dev/sda1 / ext4 x\n/dev/sda2 /home ext4 x\n/dev/sda1 /x none bind\n"
    (place,) = only({"etc/fstab": fstab}, "device-name").places
    assert place.seen == "/dev/sda1, /dev/sda2"
    for kind, many in EXAMPLES.items():
        for path, content in many:
            if kind in ("credentials", "network-secret", "service-password", "history-secret"):
                assert not {"hunter", "eyJ", "AAAA"} & set(str(only({path: content}, kind)).split())
                assert "hunter2" not in str(only({path: content}, kind))


@pytest.mark.parametrize(
    ("path", "has_copy"),
    [
        ("etc/dropbear/initramfs/dropbear_rsa_host_key", "the initramfs has a copy"),
        ("etc/dropbear-initramfs/dropbear_rsa_host_key", "the initramfs has a copy"),
        ("etc/dropbear/dropbear_rsa_host_key", "an initramfs made with it has a copy"),
    ],
)
def test_a_host_key_of_dropbear_is_told_with_its_copy(path: str, has_copy: str) -> None:
    linter = walked({path: DROPBEAR}, allow_secrets=False)
    with pytest.raises(SecretsError, match=rf"/{path}: private-key \(Dropbear host key; {has_copy}\)"):
        linter.require_no_secrets()


def test_resume_is_compared_with_what_fstab_calls_swap() -> None:
    def stale(fstab: bytes, value: bytes) -> bool:
        files = {"etc/fstab": fstab, "etc/default/grub": b'GRUB_CMDLINE_LINUX="resume=' + value + b'"\n'}
        return "stale-resume" in found(files)

    assert stale(b"UUID=aa / ext4\n", b"UUID=bb")
    assert stale(b"UUID=cc none swap sw\n", b"UUID=bb")
    assert not stale(b"UUID=bb none swap sw\n", b"UUID=BB")
    assert not stale(b"UUID=bb none swap sw\n", b"/dev/disk/by-uuid/bb")
    assert not stale(b"/dev/mapper/vg-swap none swap sw\n", b"/dev/vg/swap")
    assert stale(b"/dev/mapper/vg-swap none swap sw\n", b"/dev/vg/swap2")
    assert not stale(b"/dev/mapper/vg-swap none swap sw\n", b"UUID=bb")  # cannot be compared
    assert not stale(b"", b"none")


RESUMED = {
    "etc/fstab": b"UUID=1111-aa none swap sw 0 0\n",
    "etc/default/grub": b'GRUB_CMDLINE_LINUX="resume=UUID=1111-aa"\n',
}
SWAP = '{"role": "swap", "size": "1GiB", "content": {"type": "swap"}}'
RANDOM = """{"role": "luks", "size": "1GiB", "content": {"type": "luks", "name": "s", "unlock": {"way": "random"},
    "content": {"type": "swap"}}}"""


def layout_with(*partitions: str) -> Layout:
    """Return a layout of an ESP, a root and these partitions."""
    esp = '{"role": "esp", "size": "512MiB", "content": {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi"}}'
    root = '{"role": "root", "size": "rest", "content": {"type": "filesystem", "kind": "ext4", "mount": "/"}}'
    listed = ", ".join((esp, *partitions, root))
    disk = f'{{"id": "a", "select": {{"size_min": "8GiB"}}, "partitions": [{listed}]}}'
    return parse_layout(f'{{"name": "x", "disks": [{disk}]}}'.encode())


@pytest.mark.parametrize(
    ("partitions", "is_stale"),
    [
        pytest.param((SWAP,), False, id="swap"),
        pytest.param((), True, id="no swap"),
        pytest.param((RANDOM,), True, id="a new key at each boot"),
        pytest.param((RANDOM, SWAP), False, id="both"),
    ],
)
def test_resume_is_stale_where_the_layout_gives_clones_nothing_to_resume_from(
    partitions: tuple[str, ...], is_stale: bool
) -> None:
    seen = {finding.kind for finding in walked(RESUMED, layout=layout_with(*partitions)).findings()}
    assert ("stale-resume" in seen) == is_stale


def test_the_swap_that_a_layout_was_found_to_have_is_known_without_fstab() -> None:
    uuid = "5e1f0000-901d-4000-8000-000000005a9e"
    files = {"etc/default/grub": b'GRUB_CMDLINE_LINUX="resume=UUID=' + uuid.encode() + b'"\n'}
    layout = layout_with(SWAP.replace('"swap"}}', f'"swap", "source_uuid": "{uuid}"}}}}'))
    assert [finding.kind for finding in walked(files).findings()] == ["stale-resume"]
    assert walked(files, layout=layout).findings() == ()


def test_the_file_that_decides_about_the_initramfs_is_named_once_the_walk_is_over() -> None:
    dist = {"usr/lib/dracut/dracut.conf.d/01-dist.conf": b'hostonly="yes"\n'}
    assert found(dist)["hostonly-initramfs"] == ["/usr/lib/dracut/dracut.conf.d/01-dist.conf"]
    assert found(dist | {"etc/dracut.conf.d/any.conf": b'hostonly="no"\n'}) == {}


def test_weights_are_told_only_when_they_weigh_together() -> None:
    paths = [f"var/cache/apt/archives/{number}.deb" for number in range(4)]
    files = dict.fromkeys(paths, b"x")
    assert found(files, sizes=dict.fromkeys(paths, 3 * MIB)) == {}
    finding = walked(files, sizes=dict.fromkeys(paths, 4 * MIB)).findings()[0]
    assert (finding.kind, finding.count, finding.data_bytes) == ("package-cache", 4, 16 * MIB)


def test_places_are_bounded_and_all_are_counted() -> None:
    files = {f"home/u{number:04}/.ssh/id": OPENSSH for number in range(PLACES_MOST + 7)}
    finding = only(files, "private-key")
    assert (len(finding.places), finding.count) == (PLACES_MOST, PLACES_MOST + 7)


def test_secrets_are_refused_all_at_once_and_only_they() -> None:
    files = {
        "root/.ssh/id": OPENSSH,
        "etc/munge/munge.key": b"k",
        "etc/fstab": b"/dev/sda1 / ext4\n",
    }
    linter = walked(files, allow_secrets=False)
    assert linter.is_refused
    with pytest.raises(SecretsError) as told:
        linter.require_no_secrets()
    assert told.value.exit_status == 4
    first, *lines = told.value.message.split("\n  - ")
    assert first.startswith("2 files hold secrets")
    assert [line.partition(":")[0] for line in lines] == ["/root/.ssh/id", "/etc/munge/munge.key"]
    walked(files, allow_secrets=True).require_no_secrets()
    walked({"etc/fstab": files["etc/fstab"]}, allow_secrets=False).require_no_secrets()


def test_any_path_is_told_as_one_line_of_text() -> None:
    linter = walked({})
    linter.add(kinds.SWAP_FILE, b"\xff" * 4000)
    linter.add(kinds.SWAP_FILE, b"a\n  - /etc/b: c")
    (finding,) = linter.findings()
    assert len(finding.places[0].path) == 4096
    assert finding.places[0].path.startswith("/\\xff")
    assert finding.places[1].path == "/a\\x0a  - /etc/b: c"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_key_is_told_by_its_first_line_alone(noise: bytes) -> None:
    if noise.strip(b"\xef\xbb\xbf \t\r\n"):
        assert private_key(b"x" + noise + b"\n" + PEM) is None
    assert private_key(PEM + noise) == "PRIVATE KEY"


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from([rule.pattern.decode() for rule in RULES]), st.binary(max_size=400), max_size=5))
def test_no_content_makes_a_reader_fail(contents: dict[str, bytes]) -> None:
    files = {
        path.replace("~", "root").replace("**/", "a/").replace("[0-9]", "1"): text for path, text in contents.items()
    }
    walked(files).findings()
