"""The golden Debian tree: what an administrator would have configured once and wants on every machine.

Made by debootstrap and configured as a running machine is: its own host name, machine-id and SSH host keys, an
fstab naming the UUIDs of disks that exist nowhere, so that a clone that kept any of them is found out. It has no
grub.cfg, as debootstrap leaves it. Must not know Cloner: nothing here helps the cloning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloner_initramfs.cache import Cache, key_of
from vmlab import host
from vmlab.errors import LabError

SUITE = "bookworm"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "openssh-server",
    "iproute2",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "grub-efi-amd64-signed",
    "shim-signed",
    "efibootmgr",
    "kmod",
    "e2fsprogs",
    "bash",
)

# What a root on arrays, volumes and btrfs needs, in the initramfs and out of it; and GRUB for BIOS.
STORAGE = ("mdadm", "lvm2", "btrfs-progs", "xfsprogs", "grub-pc-bin", "grub2-common")

HOSTNAME = "golden"
ROOT_UUID = "5e1f0000-901d-4000-8000-00000000c0de"
SWAP_UUID = "5e1f0000-901d-4000-8000-000000005a9e"
ESP_SERIAL = "901D-E5B0"

# Written before debootstrap, so that they hold while packages are unpacked and the initramfs is made, once.
BEFORE = {
    "etc/dpkg/dpkg.cfg.d/lab": "\n".join(
        ["force-unsafe-io"]
        + [f"path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale")]
        # Bulk that nothing here reads: tables of iconv, and images of GRUB other than the signed one of disks.
        + [f"path-exclude=/usr/lib/{name}/*" for name in ("x86_64-linux-gnu/gconv", "grub/x86_64-efi/monolithic")]
    ),
    "etc/initramfs-tools/conf.d/golden": "MODULES=most\nCOMPRESS=zstd\nRESUME=none",
}

AFTER = {
    "etc/hostname": HOSTNAME,
    "etc/hosts": f"127.0.0.1\tlocalhost\n127.0.1.1\t{HOSTNAME}",
    "etc/fstab": "\n".join(
        (
            "# Disks of the golden machine.",
            f"UUID={ROOT_UUID}\t/\text4\terrors=remount-ro\t0 1",
            f"UUID={ESP_SERIAL}\t/boot/efi\tvfat\tumask=0077\t0 2",
            f"UUID={SWAP_UUID}\tnone\tswap\tsw\t0 0",
        )
    ),
    "etc/default/grub": "\n".join(
        (
            "GRUB_DEFAULT=0",
            "GRUB_TIMEOUT=1",
            "GRUB_DISTRIBUTOR=Debian",
            'GRUB_CMDLINE_LINUX_DEFAULT=""',
            'GRUB_CMDLINE_LINUX="console=ttyS0"',
            'GRUB_TERMINAL="console"',
        )
    ),
    "etc/systemd/network/10-golden.network": "[Match]\nType=ether\n\n[Network]\nDHCP=yes\nLinkLocalAddressing=no",
    # 90 s pass before an emulated machine has named its disks, where the host has no CPU to spare.
    "etc/systemd/system.conf.d/emulated.conf": "[Manager]\nDefaultTimeoutStartSec=5min\nDefaultDeviceTimeoutSec=5min",
    "etc/kernel-img.conf": "do_symlinks = no",
}

# Work that a machine of minutes has no use for and an emulated one pays dearly.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "getty@tty1.service"),
    *(f"modprobe@{name}.service" for name in ("configfs", "drm", "efi_pstore", "fuse", "loop")),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "proc-sys-fs-binfmt_misc.automount"),
    *("systemd-binfmt.service", "systemd-pstore.service", "systemd-network-generator.service"),
    *("systemd-pcrphase.service", "systemd-pcrphase-sysinit.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
)
LOGS = ("var/cache/apt", "var/lib/apt/lists", "var/log")
EMPTIED = ("tmp", "run", "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale")


def golden_debian(cache: Cache, more: Sequence[str] = ()) -> Path:
    """Return the golden Debian tree with `more` packages, made when the cache lacks it (a minute); needs root.

    It is shared and must not be changed: `copy_tree` makes one that may be.
    """
    packages = (*PACKAGES, *more)
    kind = "-".join(("golden-debian", *more[:1]))
    place = cache.entry(kind, key_of([*packages, SUITE, Path(__file__).read_bytes()]), lambda at: _make(at, packages))
    cache.forget_old(kind, keep=1)
    return place / "tree"


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a golden tree with all metadata to `target`, which must not exist yet, and return it."""
    host.run(["cp", "--archive", "--reflink=auto", source, target], timeout_s=300)
    return target


def authorize_key(tree: Path, public_key: str) -> None:
    """Let the holder of this SSH key in as root; for a copy of a golden tree."""
    folder = tree / "root/.ssh"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "authorized_keys").write_text(public_key.strip() + "\n")
    (folder / "authorized_keys").chmod(0o600)


def _make(place: Path, packages: Sequence[str]) -> None:
    tree = place / "tree"
    tree.mkdir(mode=0o755)
    _write(tree, BEFORE)
    include = ",".join(packages)
    host.run(["debootstrap", "--variant=minbase", f"--include={include}", SUITE, tree, _mirror()], timeout_s=1800)
    _write(tree, AFTER)
    (tree / "boot/efi").mkdir(exist_ok=True)
    units = tree / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    host.run(["chroot", tree, "systemctl", "enable", "systemd-networkd.service"])
    for name in LOGS:
        _empty(tree / name, with_folders=False)
    for name in EMPTIED:
        _empty(tree / name, with_folders=True)


def _mirror() -> str:
    """Return the mirror apt is configured with for this suite, so that a site's own mirror is used."""
    form = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)"
    lines = host.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).splitlines()
    for line in lines:
        address, codename, component = line.split("|")
        if (codename, component) == (SUITE, "main"):
            return address
    raise LabError(f"apt is configured with no mirror of {SUITE} main", hint="run apt-get update, on Debian 12")


def _write(tree: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")


def _empty(folder: Path, *, with_folders: bool) -> None:
    """Remove what is beneath a folder; programs expect their own folders in some, such as /var/log."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        elif with_folders:
            path.rmdir()
