"""The lint goes along with the walk of a capture: told with the version, or refused before there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentbench.golden import make_golden
from agentbench.lint_table import tables
from cloner_core.image.linting.linter import SecretsError
from cloner_server.store.local import LocalStore
from clones import capture_into, places
from store_images import Key

DOCUMENT = Path(__file__).parents[2] / "docs" / "capture.md"
KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\n"

EL9 = {
    "etc/os-release": 'ID="almalinux"\nVERSION_ID="9.4"\n',
    "etc/fstab": "#\n# /etc/fstab\n# Accessible filesystems, by reference, are maintained under '/dev/disk/'.\n#\n"
    "/dev/mapper/almalinux-root /  xfs  defaults 0 0\n"
    "UUID=4f1c /boot xfs defaults 0 0\nUUID=AAAA-BBBB /boot/efi vfat umask=0077,shortname=winnt 0 2\n"
    "/dev/mapper/almalinux-swap none swap defaults 0 0\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX="crashkernel=1G-4G:192M resume=/dev/mapper/almalinux-swap'
    ' rd.lvm.lv=almalinux/root rd.lvm.lv=almalinux/swap rhgb quiet"\nGRUB_ENABLE_BLSCFG=true\n',
    "boot/loader/entries/0123-5.14.0.conf": "title AlmaLinux\nlinux /vmlinuz-5.14.0\n"
    "options root=/dev/mapper/almalinux-root ro resume=/dev/mapper/almalinux-swap $tuned_params\n",
    "boot/grub2/grubenv": "# GRUB Environment Block\nsaved_entry=0123-5.14.0\n" + "#" * 900,
    "boot/grub2/grub.cfg": 'set timeout=5\nset kernelopts="root=/dev/mapper/almalinux-root ro"\nblscfg\n',
    "boot/efi/EFI/almalinux/grub.cfg": "search --fs-uuid --set=dev 4f1c\nconfigfile ($dev)/grub2/grub.cfg\n",
    "usr/lib/dracut/dracut.conf.d/01-dist.conf": 'hostonly="yes"\n',
    "etc/machine-id": "0123\n",
    "etc/lvm/devices/system.devices": "IDTYPE=devname IDNAME=/dev/sda3\n",
    "etc/ssh/ssh_host_rsa_key": KEY,
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nbin:x:1:1:bin:/bin:/sbin/nologin\ntss:x:59:59::/:/sbin/nologin\n"
    "sshd:x:74:74::/usr/share/empty.sshd:/sbin/nologin\nchrony:x:998:996::/var/lib/chrony:/sbin/nologin\n",
    "etc/chrony.keys": "# This is an example chrony keys file.\n#1 MD5 AVeryLongAndRandomPassword\n",
    "etc/dnf/dnf.conf": "[main]\ngpgcheck=1\nbest=True\n",
    "etc/yum.repos.d/almalinux.repo": "[baseos]\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-AlmaLinux-9\n",
    "etc/pki/tls/private/localhost.key": KEY,
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": "-----BEGIN CERTIFICATE-----\nMIIB\n" * 50,
    "etc/NetworkManager/system-connections/ens3.nmconnection": "[connection]\ntype=ethernet\n[ipv4]\nmethod=auto\n",
    "etc/sssd/sssd.conf": "[sssd]\nservices = nss, pam\n",
    "root/.bash_history": "dnf install chrony\n",
    "root/anaconda-ks.cfg": "rootpw --iscrypted $6$x$y\n",
    "var/lib/rpm/rpmdb.sqlite": "SQLite format 3",
    "var/lib/systemd/random-seed": "x",
    "var/cache/dnf/baseos.solv": "SOLV",
    "var/log/messages": "x\n",
}
EL9_FOUND = {
    "machine-id": ["/etc/machine-id"],
    "ssh-host-key": ["/etc/ssh/ssh_host_rsa_key"],
    "lvm-devices": ["/etc/lvm/devices/system.devices"],
    "random-seed": ["/var/lib/systemd/random-seed"],
    "local-key": ["/etc/pki/tls/private/localhost.key"],
    "shell-history": ["/root/.bash_history"],
    "hostonly-initramfs": ["/usr/lib/dracut/dracut.conf.d/01-dist.conf"],
}
SUSE = {
    "etc/os-release": 'ID="sles"\nVERSION_ID="15.6"\n',
    "etc/fstab": "UUID=aa  /  btrfs  defaults  0 0\nUUID=aa /var btrfs subvol=/@/var 0 0\n"
    "UUID=aa /.snapshots btrfs subvol=/@/.snapshots 0 0\nUUID=bb swap swap defaults 0 0\n"
    "UUID=CC-DD /boot/efi vfat utf8 0 2\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="splash=silent resume=/dev/disk/by-uuid/bb mitigations=auto"\n',
    "boot/grub2/grub.cfg": "\tlinux /boot/vmlinuz-6.4 root=UUID=aa  splash=silent resume=/dev/disk/by-uuid/bb\n",
    "etc/sysconfig/network/ifcfg-eth0": "BOOTPROTO='dhcp'\nSTARTMODE='auto'\nWIRELESS_WPA_PSK=''\n",
    "etc/dracut.conf.d/10-persistent_policy.conf": 'persistent_policy="by-uuid"\n',
    "usr/lib/dracut/dracut.conf.d/01-dist.conf": 'hostonly="yes"\nhostonly_cmdline="yes"\n',
    "etc/zypp/credentials.d/SCCcredentials": "username=SCC_1\npassword=x\n",
    "etc/zypp/repos.d/x.repo": "[x]\nenabled=1\n",
    "var/lib/ca-certificates/pem/a.pem": "-----BEGIN CERTIFICATE-----\nMIIB\n",
    "var/lib/wicked/duid.xml": "<duid/>\n",
    "var/lib/wicked/iaid.xml": "<iaid/>\n",
    "var/lib/wicked/lease-eth0-dhcp-ipv4.xml": "<lease/>\n",
    "var/lib/wicked/nanny/policy.xml": "<policy/>\n",
    "var/cache/zypp/packages/x/a.rpm": "x",
}
SUSE_FOUND = {
    "dhcp-lease": [
        "/var/lib/wicked/duid.xml",
        "/var/lib/wicked/iaid.xml",
        "/var/lib/wicked/lease-eth0-dhcp-ipv4.xml",
    ],
    "subscription": ["/etc/zypp/credentials.d/SCCcredentials"],
    "hostonly-initramfs": ["/usr/lib/dracut/dracut.conf.d/01-dist.conf"],
}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", Key())


def tree_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "wanted"), [pytest.param(EL9, EL9_FOUND, id="EL 9"), pytest.param(SUSE, SUSE_FOUND, id="SUSE")]
)
def test_a_machine_as_its_distributor_makes_it_has_few_findings(
    store: LocalStore, tmp_path: Path, files: dict[str, str], wanted: dict[str, list[str]]
) -> None:
    captured = capture_into(store, tree_of(tmp_path / "golden", files), allow_secrets=True)
    assert places(captured) == wanted


def test_a_debian_tree_has_its_identity_left_out_and_no_other_finding(store: LocalStore, tmp_path: Path) -> None:
    captured = capture_into(store, make_golden(tmp_path / "golden", big_bytes=1 << 20))
    assert {finding.grade.value for finding in captured.record.findings} == {"identity"}


def test_findings_are_kept_with_the_version_and_change_nothing_of_it(store: LocalStore, tmp_path: Path) -> None:
    root = tree_of(tmp_path / "golden", {"etc/fstab": "/dev/sda1 / ext4\n", "root/id": KEY})
    captured = capture_into(store, root, allow_secrets=True)
    assert store.version("golden").findings == captured.record.findings
    assert places(captured) == {"private-key": ["/root/id"], "device-name": ["/etc/fstab"]}
    left_out = capture_into(store, root, excludes=("/root/id",))
    assert places(left_out) == {"device-name": ["/etc/fstab"]}


def test_a_secret_is_refused_and_nothing_after_it_is_stored(store: LocalStore, tmp_path: Path) -> None:
    files = {"etc/a.key": KEY, "root/b.key": KEY, "usr/bin/big": "x" * (5 << 20), "home/u/.netrc": "password x\n"}
    root = tree_of(tmp_path / "golden", files)
    (root / "usr/unreadable").symlink_to("nowhere")
    with pytest.raises(SecretsError) as told:
        capture_into(store, root)
    assert [line.partition(":")[0] for line in told.value.message.split("\n  - ")[1:]] == [
        "/etc/a.key",
        "/root/b.key",
        "/home/u/.netrc",
    ]
    assert store.images() == []
    assert not [path for path in (store.files.root / "packs").rglob("*") if path.is_file()]


def test_a_secret_by_two_names_and_one_behind_a_link(store: LocalStore, tmp_path: Path) -> None:
    root = tree_of(tmp_path / "golden", {"data/key": KEY, "etc/x": "y"})
    (root / "etc/link.key").symlink_to("/data/key")
    assert places(capture_into(store, root)) == {}
    (root / "etc/second.key").hardlink_to(root / "data/key")
    with pytest.raises(SecretsError, match=r"/etc/second\.key"):
        capture_into(store, root)


def test_the_document_lists_every_kind_as_the_rules_have_it() -> None:
    told = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    wanted = [row for table in tables() for row in table]
    grades = [line for line in told if line.startswith(("| `identity` |", "| `secret` |", "| `advice` |"))]
    assert [line for line in told if line not in grades] == wanted, "docs/capture.md is to hold:\n" + "\n".join(wanted)
    assert len(grades) == 3


def test_linting_leaves_no_trace_on_the_source(store: LocalStore, tmp_path: Path) -> None:
    root = tree_of(tmp_path / "golden", {"etc/a.conf": "x", "root/.bash_history": "ls\n"})
    for path in (root / "etc/a.conf", root / "root/.bash_history"):
        os.utime(path, ns=(1, 2))
    capture_into(store, root)
    assert [path.stat().st_atime_ns for path in (root / "etc/a.conf", root / "root/.bash_history")] == [1, 1]
