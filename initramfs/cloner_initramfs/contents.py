"""What goes into the base layer: which Debian packages, and which of their files.

Only lists and the reasons for them; the work is in `base`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

PYTHON = "python3.11"


def _words(*lines: str) -> tuple[str, ...]:
    return tuple(word for line in lines for word in line.split())


BASE_PACKAGES = (
    "python3.11-minimal",
    "libpython3.11-stdlib",
    "busybox-static",
    "kmod",
    "udev",
    "libudev1",  # pyudev loads it by name, so no ELF file asks for it
    "libzstd1",  # so does cloner_core.image.decompressor
    "libc-bin",  # ldconfig
    "libgcc-s1",  # the Rust wheels, and pthread_exit loads it by name
    "util-linux",
    "fdisk",
    "mount",
    "e2fsprogs",
    "dosfstools",
    "efibootmgr",
    "iproute2",
    "smartmontools",
    "mdadm",
    "lvm2",
    "dmsetup",
    "cryptsetup-bin",
    "btrfs-progs",
    "xfsprogs",
    "nvme-cli",
    "hdparm",
)

PROGRAMS = (
    "usr/bin/busybox",
    "usr/bin/kmod",
    "usr/sbin/modprobe",
    "usr/sbin/depmod",
    "usr/sbin/insmod",
    "usr/sbin/rmmod",
    "usr/bin/lsmod",
    "usr/bin/udevadm",
    "usr/lib/systemd/systemd-udevd",
    "usr/lib/udev/ata_id",
    "usr/lib/udev/cdrom_id",
    "usr/lib/udev/scsi_id",
    "usr/sbin/ldconfig",
    "usr/sbin/sfdisk",
    "usr/sbin/wipefs",
    "usr/sbin/blkid",
    "usr/sbin/blockdev",
    "usr/sbin/blkdiscard",
    "usr/bin/lsblk",
    "usr/bin/findmnt",
    "usr/bin/partx",
    "usr/bin/mount",
    "usr/bin/umount",
    "usr/sbin/losetup",
    "usr/sbin/mkswap",
    "usr/sbin/swapon",
    "usr/sbin/swapoff",
    "usr/bin/nsenter",
    "usr/bin/setpriv",
    "usr/bin/unshare",
    "usr/sbin/mke2fs",
    "usr/sbin/mkfs.ext4",
    "usr/sbin/e2fsck",
    "usr/sbin/fsck.ext4",
    "usr/sbin/tune2fs",
    "usr/sbin/resize2fs",
    "usr/sbin/dumpe2fs",
    "usr/sbin/debugfs",
    "usr/bin/chattr",
    "usr/bin/lsattr",
    "usr/sbin/mkfs.fat",
    "usr/sbin/mkfs.vfat",
    "usr/sbin/fsck.fat",
    "usr/bin/efibootmgr",
    "usr/bin/ip",
    "usr/sbin/ip",
    "usr/sbin/smartctl",  # its table of drives is built in
    "usr/sbin/mdadm",
    "usr/sbin/lvm",
    "usr/sbin/dmsetup",
    "usr/sbin/cryptsetup",
    "usr/bin/btrfs",
    "usr/sbin/mkfs.btrfs",
    "usr/sbin/mkfs.xfs",
    "usr/sbin/xfs_repair",
    "usr/sbin/nvme",
    "usr/sbin/hdparm",
)

# Names by which LVM's one program is called.
LVM_COMMANDS = _words(
    "pvs pvcreate pvremove pvscan pvresize vgs vgcreate vgremove vgchange vgscan vgreduce vgimportdevices",
    "lvs lvcreate lvremove lvchange lvresize lvscan",
)

# A disk of a former system must not get busy by itself: nothing is assembled, activated, watched or backed up.
# No udev rule of LVM, device mapper or mdadm is shipped, so nothing may wait for one either: DM_DISABLE_UDEV and
# MDADM_NO_UDEV in the environment (/init, cloner_agent.host) say the same to cryptsetup and mdadm.
LVM_CONF = """\
devices {
	use_devicesfile = 0
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
}
activation {
	udev_sync = 0
	udev_rules = 0
	monitoring = 0
}
global {
	event_activation = 0
	use_lvmpolld = 0
}
backup {
	backup = 0
	archive = 0
}
"""
MDADM_CONF = "AUTO -all\n"

DATA_FILES = (
    "etc/mke2fs.conf",
    "etc/ld.so.conf",
    "usr/lib/systemd/network/99-default.link",
)

UDEV_RULES = (
    "50-firmware.rules",
    "50-udev-default.rules",
    "60-block.rules",
    "60-persistent-storage.rules",
    "60-serial.rules",
    "73-special-net-names.rules",
    "75-net-description.rules",
    "80-drivers.rules",
    "80-net-setup-link.rules",
)

# Libraries loaded by name at run time, which no ELF file asks for.
LOADED_BY_NAME = (
    "usr/lib/x86_64-linux-gnu/libudev.so.1",
    "usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "usr/lib/x86_64-linux-gnu/libzstd.so.1",
)

# Applets linked under /usr/bin where no program of Debian's has the name; enough to look around on a console.
APPLETS = _words(
    "awk cat chmod chown chroot clear cp cut date dd df dmesg du echo env find free grep gunzip gzip halt head",
    "hexdump hostname id kill killall less ln ls md5sum mkdir mkfifo mknod more mv nc nslookup od ping poweroff ps",
    "pwd readlink reboot rm rmdir sed setsid sh sleep sort stat stty sync tail tar tee telnet test time top touch",
    "tr true false udhcpc uname uniq uptime vi wc wget which xargs",
)

STDLIB_LEFT_OUT = frozenset(
    _words(
        "test idlelib ensurepip tkinter lib2to3 distutils turtledemo turtle.py pydoc_data pydoc.py doctest.py venv",
        "unittest curses sqlite3 dbm wsgiref xmlrpc config-3.11-x86_64-linux-gnu __phello__ antigravity.py this.py",
        "nntplib.py mailbox.py imaplib.py poplib.py telnetlib.py ftplib.py smtplib.py smtpd.py cgi.py cgitb.py",
        "pickletools.py EXTERNALLY-MANAGED LICENSE.txt __pycache__",
    )
)

EXTENSIONS_LEFT_OUT = (
    "_test",
    "_xxtestfuzz",
    "_xxsubinterpreters",
    "xxlimited",
    "_sqlite3",
    "_curses",
    "_dbm",
    "_gdbm",
    "_tkinter",
    "readline",
    "nis",
    "ossaudiodev",
    "audioop",
    "_codecs_",
    "_crypt",
)

# The agent reads UTF-8 and a few others; the tables of forty code pages are 1.5 MiB.
ENCODINGS_KEPT = frozenset(
    _words(
        "__init__.py aliases.py ascii.py cp437.py cp1252.py idna.py latin_1.py punycode.py raw_unicode_escape.py",
        "unicode_escape.py utf_16.py utf_16_le.py utf_16_be.py utf_32.py utf_8.py utf_8_sig.py hex_codec.py",
        "base64_codec.py iso8859_1.py",
    )
)

WHEEL_FOLDERS_LEFT_OUT = frozenset({"bin", "tests", "test", "__pycache__", "include"})


def stdlib_leaves_out(path: str) -> bool:
    """Tell whether a path relative to /usr/lib/python3.11 stays out of the base layer."""
    parts = PurePosixPath(path).parts
    if not parts:
        return False
    if parts[0] == "lib-dynload":
        return parts[-1].startswith(EXTENSIONS_LEFT_OUT)
    if parts[0] == "encodings" and len(parts) == 2:
        return parts[1] not in ENCODINGS_KEPT
    return parts[0] in STDLIB_LEFT_OUT or "__pycache__" in parts or "test" in parts or "tests" in parts


def wheel_leaves_out(path: str) -> bool:
    """Tell whether a path relative to the folder of installed wheels stays out of the base layer."""
    if path.startswith("bitarray/test_"):  # its tests lie among its modules
        return True
    parts = PurePosixPath(path).parts
    return bool(WHEEL_FOLDERS_LEFT_OUT.intersection(parts)) or path.endswith((".pyi", ".c", ".h", ".pyx", ".pxd"))
