"""The base layer: CPython, the agent with its wheels, udev, the disk tools, /init.

Holds no kernel module and nothing of a site, so a new kernel, CA or configuration never rebuilds it.
"""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

from cloner_core import newc
from cloner_initramfs import contents, host, packages
from cloner_initramfs.cache import Cache, key_of, key_of_tree
from cloner_initramfs.layer import Layer, entries_of, load, store
from cloner_initramfs.staging import Staging

# site.py of Debian's Python has this on its path, and nothing else is installed there.
PACKAGES_DIRECTORY = "usr/lib/python3/dist-packages"
KEPT_BASES = 6
PLATFORMS = ("2_34", "2_28", "2_17", "2_12", "2_5")

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
    wheels = _wheels(cache, source / "requirements" / "agent.lock")
    own = source / "agent"
    key = key_of([tree.name, wheels.name, key_of_tree(own), key_of_tree(Path(__file__).parent)])

    def make(place: Path) -> None:
        root = place / "root"
        root.mkdir()
        _stage(Staging(tree, root), wheels, own)
        _byte_compile(root)
        store(place, newc.with_parents([*_devices(), *entries_of(root)]))
        shutil.rmtree(root)

    layer = load("base", cache.entry("base", key, make))
    cache.forget_old("base", keep=KEPT_BASES)
    return layer


def checkout() -> Path:
    """Return the directory that holds agent/ and requirements/, seen from this file."""
    return Path(__file__).resolve().parents[2]


def _stage(staging: Staging, wheels: Path, own: Path) -> None:
    staging.take(contents.PROGRAMS)
    staging.take(contents.DATA_FILES)
    staging.take(contents.LOADED_BY_NAME)
    staging.take(f"usr/lib/udev/rules.d/{name}" for name in contents.UDEV_RULES)
    staging.take_tree("etc/ld.so.conf.d")
    staging.take_tree(f"usr/lib/{contents.PYTHON}", leave_out=contents.stdlib_leaves_out)
    target = staging.root / PACKAGES_DIRECTORY
    _copy_tree(wheels, target)
    for name in ("cloner_core", "cloner_agent"):
        _copy_tree(own / name, target / name)
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
    _own_program(staging.root, "usr/sbin/ldconfig", "-r", str(staging.root))


def _byte_compile(root: Path) -> None:
    """Compile all Python with the staged interpreter itself; library sources are dropped, ours stay for tracebacks."""
    libraries = root / "usr/lib" / contents.PYTHON
    packages_directory = root / PACKAGES_DIRECTORY
    ours = [packages_directory / "cloner_core", packages_directory / "cloner_agent"]
    compiler = [f"usr/bin/{contents.PYTHON}", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    strip = ["-s", str(root), "-p", "/"]
    _own_program(root, *compiler, *strip, *map(str, ours))
    # -b puts the byte code where the source was; some sources of wheels are templates no compiler takes.
    _own_program(root, *compiler, "-b", *strip, "-x", r"/cloner_(core|agent)/", str(libraries), str(packages_directory))
    for top in (libraries, packages_directory):
        for path in top.rglob("*.py"):
            if path.with_suffix(".pyc").exists():
                path.unlink()


def _own_program(root: Path, program: str, *arguments: str) -> None:
    """Run a program of the staged tree with the staged libraries, so the machine's own never matter."""
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    libraries = f"{root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib"
    environment = {
        **host.minimal_environment(),
        "PYTHONHOME": str(root / "usr"),
        # Else the compiler leaves byte code of itself in the tree, with times in it.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    host.run(
        [loader, "--library-path", libraries, "--argv0", Path(program).name, root / program, *arguments],
        environment=environment,
    )


def _wheels(cache: Cache, lock: Path) -> Path:
    """Return a folder with the locked wheels of the agent, for the interpreter of the base layer."""
    key = key_of([lock.read_bytes(), contents.PYTHON])

    def make(place: Path) -> None:
        platforms = [word for one in PLATFORMS for word in ("--platform", f"manylinux_{one}_x86_64")]
        host.run(
            [
                sys.executable,
                *("-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--only-binary=:all:"),
                *("--python-version", "3.11", "--implementation", "cp", *platforms),
                *("--no-compile", "--target", place, "-r", lock),
            ],
            environment=host.caller_environment(),
            timeout_s=1800,
        )

    return cache.entry("wheels", key, make)


def _copy_tree(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        inside = str(path.relative_to(source))
        if path.is_file() and not contents.wheel_leaves_out(inside):
            place = target / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)


def _devices() -> list[newc.Entry]:
    """Return the nodes the kernel opens before /init could mount /dev."""
    return [newc.character_device("dev/console", 5, 1), newc.character_device("dev/null", 1, 3, 0o666)]
