"""Fetches Debian packages with apt, as the machine has it configured, and unpacks them without installing.

Nothing of the building machine's own /usr is read, so that the same lists give the same tree anywhere.
Must not choose packages; `contents` does.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloner_core.errors import ClonerError
from cloner_initramfs import host
from cloner_initramfs.cache import Cache, key_of

# 'URI' FILE SIZE HASH, as --print-uris writes it.
URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+_\S+\.deb) (?P<size>\d+) (?P<hash>\S*)$")
KEPT_SYSROOTS = 4
KEPT_ANSWERS = 32
PLACES = (
    *("Dir::State::lists/d", "Dir::Etc::sourcelist/f", "Dir::Etc::sourceparts/d"),
    *("Dir::Etc::preferences/f", "Dir::Etc::preferencesparts/d"),
)
MERGED_DIRECTORIES = ("bin", "sbin", "lib", "lib64")


@dataclass(frozen=True, slots=True)
class Archive:
    """One .deb apt would fetch."""

    file: str  # name_version_architecture.deb, the version percent-encoded
    digest: str  # as apt gives it, such as "SHA256:..."

    @property
    def package(self) -> str:
        """The package's name."""
        return self.file.partition("_")[0]


def resolve(cache: Cache, packages: Sequence[str]) -> tuple[Archive, ...]:
    """Return these packages and all they depend on, as if nothing were installed, sorted by file name.

    What apt has said once is not asked again until its configuration or a list has changed. Raises ClonerError when apt
    knows no such package or has no lists.
    """

    def make(place: Path) -> None:
        (place / "archives").write_text("".join(f"{one.file} {one.digest}\n" for one in _resolve(cache, packages)))

    key = key_of([*packages, "", *_state(), Path(__file__).read_bytes()])
    place = cache.entry("resolved", key, make)
    lines = (place / "archives").read_text().splitlines()
    cache.forget_old("resolved", keep=KEPT_ANSWERS)
    return tuple(Archive(*line.split(" ")) for line in lines)


def _resolve(cache: Cache, packages: Sequence[str]) -> tuple[Archive, ...]:
    try:
        lines = host.run(
            # What is downloaded already would not be printed, hence an archive directory that stays empty.
            [*_apt(cache, "no-debs"), "--print-uris", "install", *packages],
            environment=host.caller_environment(),
        ).splitlines()
    except host.ProgramError as error:
        raise ClonerError(
            f"apt cannot resolve {' '.join(packages)}: {error.message}", hint="run apt-get update first"
        ) from error
    found = [match for line in lines if (match := URI_LINE.match(line))]
    return tuple(sorted((Archive(one["file"], one["hash"]) for one in found), key=lambda one: one.file))


def _state() -> list[str]:
    """Return what apt's answers depend on: its configuration, its lists, sources and preferences as they lie there."""
    environment = host.caller_environment()
    words = [word for number, name in enumerate(PLACES) for word in (f"P{number}", name)]
    state = [host.run(["apt-config", "dump"], environment=environment)]
    for line in host.run(["apt-config", "shell", *words], environment=environment).splitlines():
        place = Path(shlex.split(line.partition("=")[2])[0])
        for path in sorted(place.iterdir()) if place.is_dir() else [place]:
            if path.is_file():
                seen = path.stat()
                state.append(f"{path} {seen.st_ino} {seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}")
    return state


def fetch(cache: Cache, packages: Sequence[str]) -> Path:
    """Download these packages with their dependencies and return the directory of .deb files.

    Files already there and right are not fetched again; apt checks each against the signed lists.
    """
    archives = _archives(cache, "debs")
    host.run(
        [*_apt(cache, "debs"), "--download-only", "install", *packages],
        environment=host.caller_environment(),
        timeout_s=1800,
    )
    return archives


def sysroot(cache: Cache, packages: Sequence[str], *, only: Sequence[str] = ()) -> Path:
    """Return a directory holding the files of these packages and their dependencies, unpacked, not configured.

    `only` names the packages wanted when the dependencies are not, such as what a loader's package asks for to
    install itself; empty takes all.
    """
    chosen = [one for one in resolve(cache, packages) if not only or one.package in only]
    key = key_of([*(f"{one.file} {one.digest}" for one in chosen), Path(__file__).read_bytes()])

    def make(place: Path) -> None:
        archives = fetch(cache, packages)
        merge_directories(place)
        for one in chosen:
            unpack(archives / one.file, place)

    place = cache.entry("sysroot", key, make)
    cache.forget_old("sysroot", keep=KEPT_SYSROOTS)
    return place


def merge_directories(root: Path) -> None:
    """Make /bin, /sbin, /lib, /lib64 links into /usr, as every Debian since 12 has them."""
    for name in MERGED_DIRECTORIES:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")


def unpack(archive: Path, root: Path) -> None:
    """Unpack one .deb. Not by `dpkg-deb -x`: it would replace the links of `merge_directories` by directories."""
    host.pipe(
        ["dpkg-deb", "--fsys-tarfile", archive],
        ["tar", "--extract", "--keep-directory-symlink", "--no-same-owner", "--directory", root],
    )


def _archives(cache: Cache, kind: str) -> Path:
    archives = cache.directory(kind)
    (archives / "partial").mkdir(exist_ok=True)
    return archives


def _apt(cache: Cache, kind: str) -> list[str]:
    archives = _archives(cache, kind)
    nothing_installed = archives / "empty-status"
    nothing_installed.touch()
    settings = (
        f"Dir::State::status={nothing_installed}",
        f"Dir::Cache::archives={archives}/",
        # Without a list of installed packages there is nothing to lock, and apt's own user cannot write here.
        "Debug::NoLocking=1",
        "APT::Sandbox::User=root",
    )
    options = [word for setting in settings for word in ("-o", setting)]
    return ["apt-get", "-qq", "-y", "--no-install-recommends", *options]
