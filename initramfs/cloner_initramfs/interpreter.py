"""A Python of our own in a staged tree: interpreter, standard library, locked wheels, our packages, as byte code.

Must not know what the tree is for; the base layer and the kit of golden nodes are both made with it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from cloner_initramfs import contents, host
from cloner_initramfs.cache import Cache, key_of
from cloner_initramfs.staging import Staging

# site.py of Debian's Python has this on its path, and nothing else is installed there.
PACKAGES_DIRECTORY = "usr/lib/python3/dist-packages"
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PLATFORMS = ("2_34", "2_28", "2_17", "2_12", "2_5")


def checkout() -> Path:
    """Return the directory that holds agent/ and requirements/, seen from this file."""
    return Path(__file__).resolve().parents[2]


def stage_python(staging: Staging) -> None:
    """Take the interpreter and the part of the standard library that we use."""
    staging.take([f"usr/bin/{contents.PYTHON}"])
    staging.take_tree(f"usr/lib/{contents.PYTHON}", leave_out=contents.stdlib_leaves_out)


def add_packages(root: Path, wheels: Path, *ours: Path) -> None:
    """Copy a folder of wheels, and packages of our own, to where the interpreter of the tree finds them."""
    target = root / PACKAGES_DIRECTORY
    _copy_tree(wheels, target)
    for package in ours:
        _copy_tree(package, target / package.name)


def byte_compile(root: Path, ours: Sequence[str]) -> None:
    """Compile all Python with the staged interpreter itself; library sources are dropped, ours stay for tracebacks."""
    libraries = root / "usr/lib" / contents.PYTHON
    packages_directory = root / PACKAGES_DIRECTORY
    compiler = [f"usr/bin/{contents.PYTHON}", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    strip = ["-s", str(root), "-p", "/"]
    run_own(root, *compiler, *strip, *(str(packages_directory / name) for name in ours))
    # -b puts the byte code where the source was; some sources of wheels are templates no compiler takes.
    left_out = f"/({'|'.join(ours)})/"
    run_own(root, *compiler, "-b", *strip, "-x", left_out, str(libraries), str(packages_directory))
    for top in (libraries, packages_directory):
        for path in top.rglob("*.py"):
            if path.with_suffix(".pyc").exists():
                path.unlink()


def run_own(root: Path, program: str, *arguments: str) -> None:
    """Run a program of the staged tree with the staged libraries, so the machine's own never matter."""
    environment = {
        **host.minimal_environment(),
        "PYTHONHOME": str(root / "usr"),
        # Else the compiler leaves byte code of itself in the tree, with times in it.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    libraries = f"{root / LIBRARIES}:{root}/usr/lib"
    host.run(
        [root / LOADER, "--library-path", libraries, "--argv0", Path(program).name, root / program, *arguments],
        environment=environment,
    )


def locked_wheels(cache: Cache, lock: Path) -> Path:
    """Return a folder with the wheels of a lock file, for the interpreter of a tree."""
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
