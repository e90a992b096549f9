"""The small golden tree: a system of busybox and Debian's kernel that boots in seconds, for loops.

It has what the cloning looks at (fstab, host name, machine-id, SSH host keys, signed shim and GRUB, a kernel with its
initramfs, no grub.cfg) and reports what it came up as on the serial console. It stands for the mechanics; where
reality is the point a test uses `golden_debian`.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

from cloner_core import newc
from cloner_initramfs import packages
from cloner_initramfs.cache import Cache, key_of
from cloner_initramfs.drivers import FLAVOURS, kernel_archive, stage_modules, unpack_kernel
from cloner_initramfs.layer import compress, entries_of
from vmlab import host
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID

FLAVOUR = FLAVOURS["vm"]
# bash, with its libraries, is what the one-shot that reports the first boot is written for.
PACKAGES = ("busybox-static", "shim-signed", "grub-efi-amd64-signed", "bash", "libc6", "libtinfo6")
HOSTNAME = "golden-busybox"
# Said on the console when everything is up.
MARKER = r"golden-busybox: hostname=(?P<hostname>\S*) machine-id=(?P<machine_id>\S*) root=(?P<root>\S+)"

FILES = {
    "etc/hostname": HOSTNAME,
    "etc/hosts": f"127.0.0.1\tlocalhost\n127.0.1.1\t{HOSTNAME}",
    "etc/machine-id": "901de0000000000000000000000000aa",
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="busybox on Debian 12"',
    "etc/passwd": "root:*:0:0:root:/root:/bin/sh",
    "etc/group": "root:x:0:\ntty:x:5:\ndisk:x:6:",
    "etc/fstab": "\n".join(
        (
            f"UUID={ROOT_UUID}\t/\text4\terrors=remount-ro\t0 1",
            f"UUID={ESP_SERIAL}\t/boot/efi\tvfat\tumask=0077\t0 2",
            f"UUID={SWAP_UUID}\tnone\tswap\tsw\t0 0",
        )
    ),
    "etc/default/grub": 'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX="console=ttyS0"',
    "etc/inittab": "::sysinit:/etc/init.d/rcS\n::ctrlaltdel:/sbin/reboot -f\n::shutdown:/bin/umount -a -r",
    # Not keys anybody could use; only names and places matter.
    "etc/ssh/ssh_host_ed25519_key": "a private host key of the golden machine",
    "etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAA golden",
}
OWN_SCRIPTS = ("busybox-init", "busybox-rcS", "busybox-dhcp")
FOLDERS = "boot/efi dev proc sys run tmp mnt root var/log var/lib etc/systemd/network etc/systemd/system usr/local/sbin"


def golden_busybox(cache: Cache) -> Path:
    """Return the small golden tree, made when the cache lacks it; shared, not to be changed. Needs root."""
    kernel = kernel_archive(cache, FLAVOUR.package)
    own = [_file(name).encode() for name in OWN_SCRIPTS]
    key = key_of([kernel.file, kernel.digest, Path(__file__).read_bytes(), *own])
    place = cache.entry("golden-busybox", key, lambda place: _make(cache, place)) / "tree"
    cache.forget_old("golden-busybox", keep=1)
    return place


def _make(cache: Cache, place: Path) -> None:
    tree, kernel = place / "tree", place / "kernel"
    release = unpack_kernel(cache, FLAVOUR.package, kernel)
    shutil.copytree(packages.sysroot(cache, PACKAGES, only=PACKAGES), tree, symlinks=True)
    for name in FOLDERS.split():
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        _write(tree / name, content + "\n")
    (tree / "etc/ssh/ssh_host_ed25519_key").chmod(0o600)
    for name in ("doc", "man", "locale"):
        shutil.rmtree(tree / "usr/share" / name, ignore_errors=True)
    stage_modules(kernel, tree, release, FLAVOUR)
    (tree / "usr/sbin/init").symlink_to("../bin/busybox")
    for applet in host.run([tree / "usr/bin/busybox", "--list"]).split():
        if not (tree / "usr/bin" / applet).exists() and applet != "init":
            (tree / "usr/bin" / applet).symlink_to("busybox")
    _write(tree / "etc/init.d/rcS", _file("busybox-rcS"), 0o755)
    _write(tree / "etc/init.d/dhcp", _file("busybox-dhcp"), 0o755)
    shutil.copy2(kernel / f"boot/vmlinuz-{release}", tree / "boot")
    shutil.copy2(kernel / f"boot/config-{release}", tree / "boot")
    (tree / f"boot/initrd.img-{release}").write_bytes(_initramfs(tree))
    shutil.rmtree(kernel)


def _initramfs(tree: Path) -> bytes:
    """Return an initramfs with busybox, the modules and an /init that mounts the root it is told."""
    modules = tree / "usr/lib/modules"
    entries = [
        newc.file("bin/busybox", (tree / "usr/bin/busybox").read_bytes(), 0o755),
        newc.symlink("bin/sh", "busybox"),
        newc.file("init", _file("busybox-init").encode(), 0o755),
        newc.character_device("dev/console", 5, 1),
        *(newc.directory(name) for name in ("dev", "proc", "sys", "root")),
        *(
            newc.Entry(b"lib/modules/" + entry.path, entry.mode, entry.data, entry.device)
            for entry in entries_of(modules)
        ),
    ]
    return compress(newc.with_parents(entries))


def _file(name: str) -> str:
    return (resources.files("vmlab") / "files" / name).read_text()


def _write(path: Path, content: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
