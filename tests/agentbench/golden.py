"""A small golden tree: enough of a Debian system for every stage, in a few hundred files."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN_UUID = "0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e"
LEFT_OVERS = (
    "etc/hostid",
    "etc/dhcpcd.duid",
    "etc/krb5.keytab",
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    "etc/iscsi/initiatorname.iscsi",
    "etc/lvm/devices/system.devices",
    "etc/udev/rules.d/70-persistent-net.rules",
    "var/lib/NetworkManager/secret_key",
    "var/lib/cloud/data/instance-id",
    "var/lib/cloud/instances/i-0/scripts/runcmd",
    "var/lib/cloud/instances/i-0/user-data.txt",
    "var/lib/dhcp/dhclient.leases",
    "var/lib/dhcpcd/duid",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
)
CLOUD_SECRET = "password: hunter2-canary"
_INSTANCE = "var/lib/cloud/instances/i-0abc"
CLOUD_INIT = {
    **{
        f"{_INSTANCE}/{name}": f"#cloud-config\n{CLOUD_SECRET}\n"
        for name in (
            *(
                "boot-finished",
                "cloud-config.txt",
                "datasource",
                "obj.pkl",
                "sem/config_runcmd",
                "sem/config_users_groups",
            ),
            *("user-data.txt", "user-data.txt.i", "vendor-data.txt", "vendor-data.txt.i", "vendor-data2.txt"),
            *("scripts/runcmd", "scripts/part-001", "scripts/vendor/part-001", "handlers/part-handler-001.py"),
        )
    },
    "var/lib/cloud/data/instance-id": "i-0abc",
    "var/lib/cloud/data/previous-instance-id": "i-0abc",
    "var/lib/cloud/data/result.json": "{}",
    "var/lib/cloud/sem/config_scripts_per_once.once": "1",
    "var/log/cloud-init-output.log": f"+ echo {CLOUD_SECRET}\n",
    "var/log/cloud-init.log": f"{CLOUD_SECRET}\n",
}
"""What cloud-init leaves behind: as 22.4 does on a machine of EC2, with the same user data in every part."""
CLOUD_INIT_KEPT = {
    "var/lib/cloud/scripts/per-boot/site": "#!/bin/sh\n",
    "var/lib/cloud/seed/nocloud/meta-data": "instance-id: from-the-image\n",
}
KERNEL = b"MZ" + bytes(0x200) + b"HdrS" + bytes(5000)


def add_cloud_init(root: Path) -> None:
    """Have cloud-init been on the machine of the tree `root`."""
    for path, text in (CLOUD_INIT | CLOUD_INIT_KEPT).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "var/lib/cloud/instance").symlink_to("/var/lib/cloud/instances/i-0abc")


def make_golden(root: Path, *, big_bytes: int = 3 << 20, documents: int = 200) -> Path:
    """Make the tree and return it."""
    files = {
        "etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
        "etc/fstab": f"UUID={GOLDEN_UUID} / ext4 errors=remount-ro 0 1\nUUID=AAAA-BBBB /boot/efi vfat umask=0077 0 1\n"
        f"UUID=11111111-2222-4333-8444-555555555555 none swap sw 0 0\n".encode(),
        "etc/hostname": b"golden\n",
        "etc/hosts": b"127.0.0.1 localhost\n127.0.1.1 golden\n10.0.0.1 printer\n",
        "etc/machine-id": b"f" * 32 + b"\n",
        "etc/ssh/ssh_host_ed25519_key": b"GOLDEN SECRET\n",
        "etc/ssh/sshd_config": b"UsePAM yes\n",
        "etc/default/grub": b'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=ttyS0"\n',
        "usr/lib/shim/shimx64.efi.signed": b"MZ shim" + bytes(1000),
        "usr/lib/shim/mmx64.efi.signed": b"MZ mm" + bytes(1000),
        "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": b"MZ grub" + bytes(1000),
        "boot/vmlinuz-6.1.0": KERNEL,
        "boot/initrd.img-6.1.0": b"initrd" * 1000,
        "boot/efi/EFI/vendor/settings": b"kept\n",
        **{path: f"of the golden machine: {path}\n".encode() for path in LEFT_OVERS},
        "usr/bin/bash": b"\x7fELF",
        "usr/bin/big": os.urandom(big_bytes),
        **{f"usr/share/doc/{number}": b"text %d\n" % number * 20 for number in range(documents)},
    }
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    for directory in ("proc", "sys", "dev", "run", "tmp", "var/lib/dbus", "etc/systemd/system", "home"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/su").write_bytes(b"#!/bin/sh\n")
    os.chmod(root / "usr/bin/su", 0o4755)
    os.link(root / "usr/bin/big", root / "usr/bin/big2")
    os.setxattr(root / "usr/bin/big", "user.note", b"kept")
    return root
