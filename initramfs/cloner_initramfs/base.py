"""The base layer: CPython, the agent with its wheels, udev, the disk tools, /init.

Holds no kernel module and nothing of a site, so a new kernel, CA or configuration never rebuilds it.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

from cloner_core import newc
from cloner_initramfs import contents, packages
from cloner_initramfs.cache import Cache, key_of, key_of_tree
from cloner_initramfs.interpreter import (
    add_packages,
    byte_compile,
    checkout,
    locked_wheels,
    run_own,
    stage_python,
)
from cloner_initramfs.layer import Layer, entries_of, load, store
from cloner_initramfs.staging import Staging

OWN_PACKAGES = ("cloner_core", "cloner_agent", "cloner_multicast")
KEPT_BASES = 6

# Groups that udev's rules name; without them it warns at every node's start.
GROUPS = {
    "root": 0,
    "tty": 5,
    "disk": 6,
    "lp": 7,
    "kmem": 15,
    "dialout": 20,
    "cdrom": 24,
    "tape": 26,
    "audio": 29,
    "video": 44,
    "input": 101,
    "sgx": 102,
    "render": 103,
    "kvm": 104,
}


def build_base(cache: Cache, *, source: Path | None = None) -> Layer:
    """Build the base layer, or return it from the cache when nothing it is made of has changed.

    `source` is the checkout (it holds agent/ and requirements/agent.lock); None finds it beside this package.
    Needs apt and pip as the machine has them configured; neither root nor anything of the machine's own /usr.
    """
    source = source or checkout()
    tree = packages.sysroot(cache, contents.BASE_PACKAGES)
    wheels = locked_wheels(cache, source / "requirements" / "agent.lock")
    own = source / "agent"
    key = key_of([tree.name, wheels.name, key_of_tree(own), key_of_tree(Path(__file__).parent)])

    def make(place: Path) -> None:
        root = place / "root"
        root.mkdir()
        _stage(Staging(tree, root), wheels, own)
        byte_compile(root, OWN_PACKAGES)
        store(place, newc.with_parents([*_devices(), *entries_of(root)]))
        shutil.rmtree(root)

    layer = load("base", cache.entry("base", key, make))
    cache.forget_old("base", keep=KEPT_BASES)
    return layer


def _stage(staging: Staging, wheels: Path, own: Path) -> None:
    staging.take(contents.PROGRAMS)
    staging.take(contents.DATA_FILES)
    staging.take(contents.LOADED_BY_NAME)
    staging.take(f"usr/lib/udev/rules.d/{name}" for name in contents.UDEV_RULES)
    staging.take_tree("etc/ld.so.conf.d")
    stage_python(staging)
    add_packages(staging.root, wheels, *(own / name for name in OWN_PACKAGES))
    staging.take_libraries()
    staging.link("usr/bin/python3", contents.PYTHON)
    for applet in contents.APPLETS:
        if not (staging.root / "usr/sbin" / applet).exists():
            staging.link(f"usr/bin/{applet}", "busybox")
    for command in contents.LVM_COMMANDS:
        staging.link(f"usr/sbin/{command}", "lvm")
    staging.write("etc/lvm/lvm.conf", contents.LVM_CONF)
    staging.write("etc/mdadm/mdadm.conf", contents.MDADM_CONF)
    staging.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    staging.write("etc/group", "".join(f"{name}:x:{number}:\n" for name, number in GROUPS.items()))
    staging.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    staging.write("etc/hosts", "127.0.0.1 localhost\n")
    for name, path, mode in (
        ("init", "init", 0o755),
        ("dhcp-event", "usr/lib/cloner/dhcp-event", 0o755),
        ("network", "usr/lib/cloner/network", 0o755),
        ("probe.py", "usr/lib/cloner/probe.py", 0o644),
    ):
        staging.write(path, (resources.files(__package__) / "files" / name).read_bytes(), mode)
    for empty in ("proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/log"):
        (staging.root / empty).mkdir(parents=True, exist_ok=True)
    staging.link("etc/mtab", "../proc/self/mounts")
    staging.link("etc/resolv.conf", "../run/cloner/resolv.conf")
    # The cache is made here, once: libudev is found through it, and ldconfig on every node costs a second.
    run_own(staging.root, "usr/sbin/ldconfig", "-r", str(staging.root))


def _devices() -> list[newc.Entry]:
    """Return the nodes the kernel opens before /init could mount /dev."""
    return [newc.character_device("dev/console", 5, 1), newc.character_device("dev/null", 1, 3, 0o666)]
