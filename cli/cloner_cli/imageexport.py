"""`cloner image-export`: a version in one signed file, for another site."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from cloner_cli.api import segment
from cloner_cli.checking import Checks
from cloner_cli.commands import FilePath, command, dry_run_option
from cloner_cli.imagefile import open_image_file
from cloner_cli.invocation import Invocation
from cloner_cli.showing import showing
from cloner_cli.text import printable
from cloner_core.admin.images import SignedVersion
from cloner_core.errors import ConflictError, InvalidError, RefusedError, UnreachableError
from cloner_core.sizes import format_bytes


@command("image-export", example="cloner image-export debian:3 /srv/debian-3.cloner")
@click.argument("image", metavar="NAME[:VERSION]")
@click.argument("file", type=FilePath(), metavar="FILE")
@click.option("--force", is_flag=True, help="Replace FILE.")
@dry_run_option
def image_export_command(run: Invocation, image: str, file: Path, *, force: bool, dry_run: bool) -> None:
    """Write a version, the newest unless told, to FILE: signatures, tree and content.

    'cloner image-import FILE' brings it to another server, which must be told to trust this one's key; it is printed.
    FILE is there whole, read back and verified, or not at all. It holds all files of the image: keep it as secret.
    """
    checks = Checks()
    name, number = checks.image(image)
    checks.exist(run.api, image=name, version=number)
    checks.settle("nothing was exported")
    _refuse_target(file, is_forced=force)
    signed = run.api.get(f"/v1/images/{segment(name)}/signed", SignedVersion, {"number": number})
    ref = signed.version
    path = f"/v1/images/{segment(name)}/export"
    with (
        showing(run, "exporting") as show,
        run.api.get_stream(path, {"number": ref.number}) as (size_bytes, pieces),
    ):
        _require_room(file, size_bytes)
        if not dry_run:
            with _written(file) as (part, target):
                done = 0
                for piece in pieces:
                    target.write(piece)
                    done += len(piece)
                    show(f"{format_bytes(done)} of {format_bytes(size_bytes)}")
                if done != size_bytes:
                    raise UnreachableError("the server ended the export before its end", hint="is it being stopped?")
                target.flush()
                os.fsync(target.fileno())
                key = bytes.fromhex(signed.server_key)
                with part.open("rb") as written, open_image_file(written, str(part), (key,)) as whole:
                    whole.verify(lambda done, total: show(f"{format_bytes(done)} of {format_bytes(total)} read back"))
    told = {
        "image": ref.image,
        "number": ref.number,
        "digest": ref.digest,
        "file": str(file),
        "size_bytes": size_bytes,
        "server_key": signed.server_key,
        "dry_run": dry_run,
    }
    done_text = "would be exported" if dry_run else "exported and read back"
    text = f"{ref.image}:{ref.number} {done_text}: {file}, {format_bytes(size_bytes)}\nsigned by {signed.server_key}"
    run.result(told, lambda: printable(text, keep="\n"))


def _refuse_target(file: Path, *, is_forced: bool) -> None:
    """Refuse what is there: a file unless forced, anything else always."""
    if str(file) == "-":
        raise InvalidError("'-': an export is read back, and so goes to a file", hint="name a file; ./- is one")
    if not file.parent.is_dir():
        raise InvalidError(f"there is no directory {file.parent}", hint="make it, or name another")
    if os.path.lexists(file):
        if not stat.S_ISREG(file.lstat().st_mode):
            raise InvalidError(f"{file} is no regular file, and only such is replaced", hint="name a file")
        if not is_forced:
            raise ConflictError(f"{file} exists", hint="--force replaces it")


def _require_room(file: Path, size_bytes: int) -> None:
    status = os.statvfs(file.parent)
    free_bytes = status.f_bavail * status.f_frsize
    if size_bytes > free_bytes:
        missing = format_bytes(size_bytes - free_bytes)
        raise RefusedError(
            f"{file.parent} has no room for {format_bytes(size_bytes)}: {missing} are missing",
            hint="make room there, or name a file on another filesystem",
        )


@contextmanager
def _written(file: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Give a file under another name, which gets its own when the block ends, and is gone when it raises."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            yield part, target
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
