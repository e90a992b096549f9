"""`cloner image-verify`: whether every byte of a version is what was signed."""

from __future__ import annotations

import click

from cloner_cli.api import segment
from cloner_cli.checking import Checks
from cloner_cli.commands import command
from cloner_cli.invocation import Invocation
from cloner_cli.showing import showing
from cloner_cli.store import require_whole
from cloner_cli.text import fields
from cloner_core.admin.images import VerifyProgress, VerifyReport
from cloner_core.errors import UnreachableError
from cloner_core.image.reference import VersionName
from cloner_core.sizes import format_bytes


@command("image-verify", example="cloner image-verify --image debian:3")
@click.option("--image", "-i", required=True, metavar="NAME[:VERSION]", help="Image; the newest version unless told.")
def image_verify_command(run: Invocation, image: str) -> None:
    """Verify one version: signatures, every record of its tree, its map, and every byte of every pack.

    Exit status 7 when anything is wrong; each fault is named. The server reads it all anew from its disk, and
    nothing is changed. `cloner store check --read-data` does so for everything published.
    """
    checks = Checks()
    name, number = checks.image(image)
    checks.exist(run.api, image=name, version=number)
    checks.settle("nothing was verified")
    report = _report(run, name, number)
    shown = [
        ("version", f"{report.image}:{report.number}  {report.digest}"),
        ("packs", f"{report.packs}, {format_bytes(report.stored_bytes)}"),
        ("signed by", report.server_key),
        ("faults", len(report.faults) or "none"),
    ]
    run.result(report, lambda: fields(shown))
    require_whole(report.faults, f"{report.image}:{report.number}")


def _report(run: Invocation, name: str, number: VersionName | None) -> VerifyReport:
    path, kind = f"/v1/images/{segment(name)}/verify", VerifyProgress | VerifyReport
    with showing(run, "verifying") as show:
        for told in run.api.get_lines(path, kind, {"number": number}):  # type: ignore[arg-type]  # a union is no class
            if isinstance(told, VerifyReport):
                return told
            show(_amount(told))
    raise UnreachableError("the server ended the verification before its end", hint="is it being stopped?")


def _amount(progress: VerifyProgress) -> str:
    if progress.part == "packs":
        return f"{format_bytes(progress.done)} of {format_bytes(progress.total)}"
    return f"{progress.done} of {progress.total} segments of the tree"
