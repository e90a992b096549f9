"""The kit: one archive with everything that `cloner` needs on a golden node, its own Python and C library among it.

Made from what the base layer is made of. It runs wherever it is unpacked: each program is started by a launcher, a few
lines of shell, that name the kit's own loader and libraries to that one process and to none that it starts. The
script that installs it, `files/kit-install`, is written out beside it with the archive's name and digest in it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import tarfile
from importlib import resources
from pathlib import Path

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError, NotFoundError
from cloner_initramfs import contents, packages
from cloner_initramfs.cache import Cache, key_of, key_of_tree
from cloner_initramfs.interpreter import (
    LIBRARIES,
    add_packages,
    byte_compile,
    checkout,
    locked_wheels,
    stage_python,
)
from cloner_initramfs.staging import Staging

MANIFEST, ARCHIVE, INSTALL = "kit.json", "kit.tar.gz", "install"
KEPT_KITS = 3
COMMANDS = {"cloner": "cloner_cli.main:main", "cv-cloner": "cloner_cli.cv:cloner"}
"""What is installed, and the function that it is."""

# Used for reading alone, and older ones lack what we ask of them: lsblk and sfdisk of EL 7 know no JSON.
TOOLS_BEFORE = (
    "usr/bin/lsblk",
    "usr/bin/findmnt",
    "usr/sbin/blkid",
    "usr/sbin/cryptsetup",
    "usr/sbin/sfdisk",
    "usr/sbin/wipefs",
)
# The node's own know its daemons, locks and settings; these are for a node that has none.
TOOLS_BEHIND = (
    "usr/sbin/lvm",
    "usr/sbin/dmsetup",
    "usr/sbin/mdadm",
    "usr/bin/btrfs",
    "usr/bin/mount",
    "usr/bin/umount",
    "usr/sbin/debugfs",
)
TOOLS = "usr/lib/cloner/tools"  # cloner_agent.host looks there
_LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
_LOCALE = "usr/lib/locale/C.utf8"  # that of the node may be of another C library, or missing: EL 7
_PYTHON = "usr/lib/cloner/python"
_START = "usr/lib/cloner/kit-start.py"
_OWN = (
    "agent/cloner_core",
    "agent/cloner_agent",
    "agent/cloner_multicast",
    "initramfs/cloner_initramfs",
    "cli/cloner_cli",
)
_SERVER = "server/cloner_server/__init__.py"  # the version; nothing else of the server is for nodes
_TIME_S = 1577836800  # 2020: GNU tar warns of files older than its idea of old
_LEVEL = 6


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a kit directory holds. Digests are SHA-256, 64 hex digits: the one that every shell can check."""

    version: str  # names the directory it is installed in
    archive_digest: str
    size_bytes: int
    unpacked_bytes: int
    install_digest: str  # of the script, which holds the archive's


def build_kit(cache: Cache, *, source: Path | None = None) -> Path:
    """Build the kit, or return it from the cache when nothing it is made of has changed: a kit directory.

    `source` is the checkout (it holds agent/, cli/, … and requirements/kit.lock); None finds it beside this package.
    Needs what `build_base` needs.
    """
    source = source or checkout()
    tree = packages.sysroot(cache, contents.BASE_PACKAGES)
    wheels = locked_wheels(cache, source / "requirements" / "kit.lock")
    own = [source / path for path in _OWN]
    server = (source / _SERVER).read_bytes()
    key = key_of([tree.name, wheels.name, *map(key_of_tree, own), server, key_of_tree(Path(__file__).parent)])

    def make(place: Path) -> None:
        root = place / "root"
        root.mkdir()
        _stage(Staging(tree, root), wheels, own, server)
        write_kit(root, place)
        shutil.rmtree(root)

    built = cache.entry("kit", key, make)
    cache.forget_old("kit", keep=KEPT_KITS)
    return built


def put_kit(built: Path, out: Path) -> Manifest:
    """Put a built kit into `out`, from where a server gives it away; a server that runs needs no new start.

    The manifest comes last, and the files of a former kit go after it: whoever reads one of them has it open.
    """
    manifest = read_kit(built)
    out.mkdir(parents=True, exist_ok=True)
    names = {ARCHIVE: archive_name(manifest), INSTALL: install_name(manifest), MANIFEST: MANIFEST}
    for kept, given in names.items():
        half = out / f".{given}"
        shutil.copyfile(built / kept, half)
        os.replace(half, out / given)
    for path in out.iterdir():
        if path.name not in names.values() and path.is_file():
            path.unlink()
    return manifest


def archive_name(manifest: Manifest) -> str:
    """Return the name under which the archive is given away; no old script gets a new archive."""
    return f"kit-{manifest.archive_digest[:16]}.tar.gz"


def install_name(manifest: Manifest) -> str:
    """Return the name under which the script is given away."""
    return f"install-{manifest.install_digest[:16]}"


def read_kit(directory: Path) -> Manifest:
    """Return what the kit in `directory` is.

    Raises NotFoundError where there is none, IntegrityError when its manifest cannot be read.
    """
    hint = "cloner kit build"
    try:
        return msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no kit for golden nodes in {directory}", hint=hint) from error
    except UNREADABLE as error:
        raise IntegrityError(f"{directory / MANIFEST} cannot be read: {error}", hint=hint) from error


def _stage(staging: Staging, wheels: Path, own: list[Path], server: bytes) -> None:
    tools = (*TOOLS_BEFORE, *TOOLS_BEHIND)
    staging.take(tools)
    staging.take(contents.LOADED_BY_NAME)
    staging.take_tree(_LOCALE)
    stage_python(staging)
    add_packages(staging.root, wheels, *own)
    (package,) = staging.root.rglob("dist-packages")
    (package / "cloner_server").mkdir()
    (package / "cloner_server/__init__.py").write_bytes(server)
    staging.take_libraries()
    byte_compile(staging.root, ("cloner_server", *(path.name for path in own)))
    python = f"usr/bin/{contents.PYTHON}"
    (staging.root / _PYTHON).parent.mkdir(parents=True)
    (staging.root / python).rename(staging.root / _PYTHON)
    # Under the interpreter's own name: it finds its library by the name it was called by, and calls itself by it.
    staging.write(python, _launcher(_PYTHON, python, f'--argv0 "$kit/{python}"'), 0o755)
    staging.write(_START, (resources.files(__package__) / "files/kit-start.py").read_bytes())
    for name, function in COMMANDS.items():
        path = f"usr/bin/{name}"
        isolated = f'-I -X utf8 "$kit/{_START}" {function}'
        staging.write(path, _launcher(_PYTHON, path, f'--argv0 "$kit/{python}"', isolated), 0o755)
    for folder, programs in (("before", TOOLS_BEFORE), ("behind", TOOLS_BEHIND)):
        for program in programs:
            name = Path(program).name
            path = f"{TOOLS}/{folder}/{name}"
            staging.write(path, _launcher(program, path, f"--argv0 {name}", locale=True), 0o755)
    _make_links_relative(staging.root)


def _make_links_relative(root: Path) -> None:
    """Have absolute links of the tree lead to where they lead with the tree as the root, wherever it will lie."""
    for path in root.rglob("*"):
        if path.is_symlink() and (target := os.readlink(path)).startswith("/"):
            path.unlink()
            path.symlink_to(os.path.relpath(root / target.lstrip("/"), path.parent.resolve()))


def _launcher(program: str, path: str, name: str, arguments: str = "", *, locale: bool = False) -> str:
    """Return the shell script at `path` of the kit that runs `program` with the kit's loader and libraries.

    They are named on the loader's command line, not in the environment: what the program starts is the node's own.
    LD_PRELOAD is for the node's C library. The node's /etc/ld.so.cache names the node's libraries. With `locale` it
    gets the kit's UTF-8 as well, by LOCPATH: that is for tools, which start nothing.
    """
    place = f'\nexport LOCPATH="$kit/{Path(_LOCALE).parent}"' if locale else ""
    return f"""\
#!/bin/sh
kit=$(readlink -f "$0") || exit 127
kit=${{kit%/{path}}}
unset LD_PRELOAD LD_AUDIT{place}
exec "$kit/{_LOADER}" --inhibit-cache --library-path "$kit/{LIBRARIES}" {name} \\
  "$kit/{program}" {arguments and f"{arguments} "}"$@"
"""


def write_kit(root: Path, place: Path) -> Manifest:
    """Write the tree `root` into `place`, packed, with what goes with it: the same bytes for the same tree."""
    unpacked = 0
    with (
        (place / ARCHIVE).open("wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(root.rglob("*")):
            unpacked += _add(tar, path, str(path.relative_to(root)))
    return describe(place, unpacked)


def describe(place: Path, unpacked_bytes: int) -> Manifest:
    """Write script and manifest for the archive that lies in `place`."""
    with (place / ARCHIVE).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
    manifest = Manifest(digest[:12], digest, size, unpacked_bytes, "")
    script = (resources.files(__package__) / "files/kit-install").read_text()
    for mark, value in {
        "VERSION": manifest.version,
        "ARCHIVE": archive_name(manifest),
        "DIGEST": digest,
        "ROOM_KIB": str((size + unpacked_bytes * 5 // 4) >> 10),
        "COMMANDS": " ".join(COMMANDS),
    }.items():
        script = script.replace(f"@{mark}@", value)
    (place / INSTALL).write_text(script)
    manifest = msgspec.structs.replace(manifest, install_digest=hashlib.sha256(script.encode()).hexdigest())
    (place / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def _add(tar: tarfile.TarFile, path: Path, name: str) -> int:
    """Add one file; return what it takes."""
    info = tarfile.TarInfo(name)
    info.mtime = _TIME_S
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
    elif stat.S_ISDIR(found.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        info.size, info.mode = found.st_size, 0o755 if found.st_mode & 0o111 else 0o644
        with path.open("rb") as file:
            tar.addfile(info, file)
        return found.st_size
    tar.addfile(info)
    return 0
