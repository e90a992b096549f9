"""`cloner image-import`: a version that another server exported becomes one of this server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from cloner_cli.api import Api
from cloner_cli.checking import Checks
from cloner_cli.commands import FilePath, command, dry_run_option
from cloner_cli.download import parse_key
from cloner_cli.imagefile import ImageFile, open_image_file
from cloner_cli.invocation import Invocation
from cloner_cli.showing import showing
from cloner_cli.spool import opened
from cloner_cli.text import printable
from cloner_cli.upload import ServerSink
from cloner_core.admin.images import ServerKey, WantedPacks
from cloner_core.admin.store import StoreRoom
from cloner_core.errors import InvalidError, RefusedError
from cloner_core.image.pack import Pack
from cloner_core.image.version import Draft, PackOffer, check_image_name
from cloner_core.sizes import format_bytes

_ASKED_AT_ONCE = 10_000


@command("image-import", example="cloner image-import /srv/debian-3.cloner --key 9f86d081884c7d659a2feaa0c55ad015…")
@click.argument("file", type=FilePath(), metavar="FILE")
@click.option(
    "--image", "-i", default="", metavar="NAME", help="The image that gets the version; its own name unless told."
)
@click.option(
    "--key", "key_texts", multiple=True, metavar="HEX", help="Trust this server's public key too. Repeatable."
)
@dry_run_option
def image_import_command(run: Invocation, *, file: Path, image: str, key_texts: tuple[str, ...], dry_run: bool) -> None:
    """Publish the version in FILE, of 'cloner image-export', as the next version of an image.

    A file that this server signed is taken; for another one's, --key says whose signature is trusted: ask for the key
    of that site by another way than the file came, 'cloner image-export' prints it there. The version keeps its digest,
    message and author, gets a number here, and this server's signature. All of it appears, or nothing. When an import
    was broken off, the same command sends only what is missing.

    FILE may be a pipe; - is standard input. What comes by one is written to $TMPDIR first (/var/tmp without one).
    """
    checks = Checks()
    if image:
        try:
            check_image_name(image)
        except InvalidError as fault:
            checks.wrong.append(fault.message)
    keys = []
    for text in key_texts:
        try:
            keys.append(parse_key(text))
        except InvalidError as fault:
            checks.wrong.append(f"--key: {fault.message}")
    checks.settle("nothing was imported")
    own = bytes.fromhex(run.api.get("/v1/key", ServerKey).server_key)
    hint = "--key HEX trusts it: make sure, by another way than the file came, that it is the key of that site"
    with (
        _opened(run, file) as content,
        open_image_file(content, str(file), (own, *keys), hint=hint) as whole,
    ):
        record, name = whole.record, image or whole.record.image
        missing = _missing(run.api, whole)
        _require_room(run.api, missing)
        sent_bytes = sum(offer.stored_size for offer in missing)
        with showing(run, "verifying" if dry_run else "importing") as show:
            if dry_run:
                whole.verify(lambda done, total: show(f"{format_bytes(done)} of {format_bytes(total)}"))
                number = None
            else:
                sink, done = ServerSink(run.api, monotonic=run.world.monotonic, sleep=run.world.sleep), 0
                for ref in whole.root.segments:
                    sink.put_segment(ref, whole.segment(ref))
                for offer in missing:
                    sink.put_pack(Pack(offer.digest, whole.pack(offer), offer.raw_size, offer.entries))
                    done += offer.stored_size
                    show(f"{format_bytes(done)} of {format_bytes(sent_bytes)}")
                number = sink.publish(_draft(whole, name, own)).number
    told = {
        "image": name,
        "number": number,
        "digest": record.version,
        "origin": f"{record.image}:{record.number}",
        "origin_key": record.public_key,
        "sent_bytes": sent_bytes,
        "dry_run": dry_run,
    }
    what = f"{name} (not published)" if dry_run else f"{name}:{number}"
    size = f"{record.inodes} files, {format_bytes(record.data_bytes)}; {format_bytes(sent_bytes)} new"
    text = f"{what}  {record.version}\n{size}"
    run.result(told, lambda: printable(text, keep="\n"))


@contextmanager
def _opened(run: Invocation, file: Path) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        with showing(run, "reading") as show:
            content = stack.enter_context(opened(file, lambda done: show(format_bytes(done))))
        yield content


def _missing(api: Api, whole: ImageFile) -> list[PackOffer]:
    """Return the packs that the server does not have; it keeps the others from now on."""
    missing: set[str] = set()
    for start in range(0, len(whole.offers), _ASKED_AT_ONCE):
        some = whole.offers[start : start + _ASKED_AT_ONCE]
        wanted = WantedPacks({offer.digest.hex(): offer.stored_size for offer in some})
        missing.update(api.post("/v1/packs/missing", list[str], wanted))
    return [offer for offer in whole.offers if offer.digest.hex() in missing]


def _require_room(api: Api, missing: list[PackOffer]) -> None:
    wanted = sum(offer.stored_size for offer in missing)
    room = api.get("/v1/store/room", StoreRoom).free_bytes
    if wanted > room:
        raise RefusedError(
            f"the store has no room: {format_bytes(wanted)} are new, {format_bytes(room)} free,"
            f" {format_bytes(wanted - room)} missing",
            hint="run 'cloner store gc', or enlarge the filesystem",
        )


def _draft(whole: ImageFile, name: str, own: bytes) -> Draft:
    record = whole.record
    return Draft(
        image=name,
        root=whole.root_bytes,
        packs=whole.offers,
        message=record.message,
        author=record.author,
        source=record.source,
        inexact=record.inexact,
        findings=record.findings,
        origin_key=record.origin_key if record.public_key == own.hex() else record.public_key,
    )
