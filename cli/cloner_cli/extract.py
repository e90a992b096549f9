"""`cloner image-extract`: files of a version in a directory of this machine, by the code that restores a node."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloner_cli.api import segment
from cloner_cli.checking import Checks
from cloner_cli.commands import FilePath, command, dry_run_option
from cloner_cli.download import ServerParts, Verified, parse_key, verify_parts
from cloner_cli.invocation import Invocation
from cloner_cli.showing import showing
from cloner_cli.text import printable
from cloner_core.admin.images import SignedVersion
from cloner_core.errors import ClonerError, InvalidError, RefusedError
from cloner_core.image.packmap import PackMap
from cloner_core.image.reference import VersionName
from cloner_core.sizes import format_bytes

if TYPE_CHECKING:
    from cloner_agent.restore.job import RestoreProgress
    from cloner_agent.restore.readback import ReadBackProgress
    from cloner_agent.restore.source import PackSource
    from cloner_agent.restore.table import SpilledTree

_LOST_AND_FOUND = "lost+found"
_HINTS = {
    errno.ENOSPC: "its filesystem is full: make room, or extract elsewhere",
    errno.EDQUOT: "its filesystem is full: make room, or extract elsewhere",
    errno.EOPNOTSUPP: "its filesystem cannot keep all that the image has: extract elsewhere, or with --no-owners",
}


@command("image-extract", example="cloner image-extract --image debian:3 --path /etc --to /tmp/etc-of-3")
@click.option("--image", "-i", required=True, metavar="NAME[:VERSION]", help="Image; the newest version unless told.")
@click.option("--path", "paths", multiple=True, metavar="PATH", help="Only this and what is beneath it. Repeatable.")
@click.option("--to", "target", required=True, type=FilePath(), metavar="DIR", help="New, or an empty directory.")
@click.option("--no-owners", is_flag=True, help="All files are yours: without owners, attributes and devices.")
@click.option("--key", "key_text", metavar="HEX", help="The server's public key, known from elsewhere.")
@dry_run_option
def image_extract_command(
    run: Invocation,
    *,
    image: str,
    paths: tuple[str, ...],
    target: Path,
    no_owners: bool,
    key_text: str | None,
    dry_run: bool,
) -> None:
    """Put the files of a version into DIR, verified and read back as on a node; DIR/etc/fstab is its /etc/fstab.

    Root gets everything as it was captured. With --no-owners files belong to who runs the command, set-id bits,
    attributes and flags are left off, and devices are left out. No link of the image leads out of DIR, and none in
    PATH is followed. When the command fails, DIR holds a part: remove it.
    """
    wanted = _check(run, image, paths, target, no_owners=no_owners)
    signed = run.api.get(f"/v1/images/{segment(wanted.name)}/signed", SignedVersion, {"number": wanted.version})
    key = parse_key(key_text or signed.server_key)
    parts = ServerParts(run.another_api, signed.version)
    version = verify_parts(parts, signed.version, key)
    with _place(wanted.target, is_dry=dry_run) as work_dir:
        made = _extract(run, wanted, version, parts, work_dir, is_dry=dry_run)
    name = f"{signed.version.image}:{signed.version.number}"
    told = {
        "image": signed.version.image,
        "number": signed.version.number,
        "digest": signed.version.digest,
        "to": str(target),
        "inodes": made.inodes,
        "data_bytes": made.data_bytes,
        "packs": made.packs,
        "devices_left_out": made.left_out,
        "owners": not no_owners,
        "dry_run": dry_run,
    }
    if made.left_out:
        run.say(f"note: {made.left_out} device files are left out")
    size = f"{made.inodes} files, {format_bytes(made.data_bytes)}"
    done = "would be extracted" if dry_run else "extracted and read back"
    run.result(told, lambda: printable(f"{name}: {size} {done}: {target}"))


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    version: VersionName | None
    paths: tuple[bytes, ...]
    target: Path
    has_owners: bool


@dataclass(frozen=True, slots=True)
class _Made:
    inodes: int
    data_bytes: int
    packs: int
    left_out: int  # devices


@dataclass(frozen=True, slots=True)
class _Work:
    """A tree to restore, and where its packs come from."""

    spilled: SpilledTree
    pack_map: PackMap
    source: PackSource
    left_out: int = 0


def _check(run: Invocation, image: str, paths: tuple[str, ...], target: Path, *, no_owners: bool) -> _Wanted:
    """Return what is asked for; raises with every fault of the command line before the server sends anything."""
    checks = Checks()
    name, number = checks.image(image)
    known = []
    for path in paths:
        parts = path.strip("/").split("/")
        if {"", ".", ".."} & set(parts) and path.strip("/"):
            checks.wrong.append(f"--path {path}: want a path of the image, without '.', '..' and '//'")
        known.append(os.fsencode(path.strip("/")))
    checks.exist(run.api, image=name, version=number)
    checks.settle("nothing was extracted")
    if not run.world.is_root() and not no_owners:
        raise RefusedError(
            "only root can give files their owners", hint="sudo; or --no-owners, and all files are yours"
        )
    return _Wanted(name, number, tuple(known), target, has_owners=not no_owners)


@contextmanager
def _place(target: Path, *, is_dry: bool) -> Iterator[Path]:
    """Give a directory for the spilled tree, with `target` there and empty; one that was made and not used goes again.

    Raises RefusedError for a target that holds something, InvalidError for one that cannot be a directory.
    """
    is_new = not os.path.lexists(target)
    if is_new and not target.parent.is_dir():
        raise InvalidError(f"--to {target}: {target.parent} is not a directory")
    if not is_new and not target.is_dir():
        raise InvalidError(f"--to {target}: not a directory")
    if not is_new and (names := set(os.listdir(target)) - {_LOST_AND_FOUND}):
        raise RefusedError(
            f"--to {target}: not empty, it holds {printable(min(names))}", hint="name a new or an empty directory"
        )
    if is_dry:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    if is_new:
        target.mkdir(mode=0o700)
    try:
        yield target
    except BaseException:
        if is_new:
            with suppress(OSError):  # not empty: something was extracted
                target.rmdir()
        raise


def _extract(
    run: Invocation, wanted: _Wanted, version: Verified, parts: ServerParts, work_dir: Path, *, is_dry: bool
) -> _Made:
    from cloner_agent.restore.errors import RestoreError
    from cloner_agent.restore.job import restore
    from cloner_agent.restore.readback import read_back

    with showing(run, "extracting") as show, _prepared(wanted, version, parts, work_dir) as work:
        filesystems = work.spilled.table.filesystems
        data_bytes = sum(each.data_bytes for each in filesystems)
        made = _Made(work.spilled.table.count, data_bytes, len(work.pack_map.packs), work.left_out)
        if is_dry:
            return made
        _require_room(wanted.target, sum(each.allocated_bytes for each in filesystems))

        def placed(progress: RestoreProgress) -> None:
            show(f"{format_bytes(progress.data_bytes)} of {format_bytes(data_bytes)}, {progress.files} files")

        def compared(progress: ReadBackProgress) -> None:
            show(f"{format_bytes(progress.data_bytes)} of {format_bytes(data_bytes)} read back")

        try:
            restore(wanted.target, work.spilled, work.pack_map, work.source, progress=placed)
            read_back(wanted.target, work.spilled, progress=compared)
        except BaseException as fault:
            run.say(printable(f"note: {wanted.target} holds a part of the version: remove it"))
            if isinstance(fault, RestoreError):
                raise ClonerError(fault.message, hint=_HINTS.get(fault.errno or 0, fault.hint)) from fault
            raise
        return made


@contextmanager
def _prepared(wanted: _Wanted, version: Verified, parts: ServerParts, work_dir: Path) -> Iterator[_Work]:
    """Give the tree, every law of it checked; of a part of it, or for somebody who is not root, the tree of that."""
    from cloner_agent.restore.selection import Owner, SelectedPacks, select
    from cloner_agent.restore.table import spill_tree

    whole = spill_tree(version.root, parts, work_dir)
    try:
        if wanted.has_owners and not wanted.paths:
            yield _Work(whole, version.pack_map, parts)
            return
        owner = None if wanted.has_owners else Owner(os.geteuid(), os.getegid())
        selection = select(whole, wanted.paths, owner, work_dir)
    finally:
        whole.table.close()
    try:
        packs = SelectedPacks(parts, version.pack_map, selection, parts.placement)
        yield _Work(selection.spilled, packs.pack_map, packs, selection.left_out)
    finally:
        selection.spilled.table.close()


def _require_room(target: Path, wanted_bytes: int) -> None:
    status = os.statvfs(target)
    free_bytes = status.f_bavail * status.f_frsize
    if wanted_bytes > free_bytes:
        raise RefusedError(
            f"--to {target}: {format_bytes(wanted_bytes)} wanted, {format_bytes(free_bytes)} free on its filesystem",
            hint="make room, extract elsewhere, or name a --path",
        )
