"""`cloner manual`: the manual pages of all commands."""

from __future__ import annotations

from pathlib import Path

import click

from cloner_cli.commands import FilePath, command, dry_run_option
from cloner_cli.documents import write_result
from cloner_cli.invocation import Invocation
from cloner_cli.manpage import is_ours, pages
from cloner_core.errors import InvalidError


def all_pages(root: click.Command) -> dict[str, str]:
    """Return every page of this distribution by file name; `root` is the command `cloner`."""
    from cloner_cli.cv import PROGRAMS

    made = pages(root, "cloner")
    for name, program in PROGRAMS.items():
        made |= pages(program, name)
    return made


@command("manual", example="cloner manual --to /usr/local/share/man/man1")
@click.option("--to", "directory", type=FilePath(), required=True, metavar="DIR", help="Made when missing.")
@dry_run_option
def manual_command(run: Invocation, *, directory: Path, dry_run: bool) -> None:
    """Write the manual pages of all commands into DIR, as --help knows them: one for each, cloner(1) lists them.

    A page of ours that is there and that no command has any more is removed; nothing else in DIR is touched.
    """
    made = all_pages(click.get_current_context().find_root().command)
    if directory.exists() and not directory.is_dir():
        raise InvalidError(f"--to {directory}: not a directory")
    try:
        stale = sorted(path for path in directory.glob("*.1") if path.name not in made and is_ours(path.read_bytes()))
        if not dry_run:
            directory.mkdir(parents=True, exist_ok=True)
            for path in stale:
                path.unlink()
    except OSError as fault:
        raise InvalidError(f"{fault.filename}: {fault.strerror}") from fault
    for name, text in made.items() if not dry_run else ():
        write_result(directory / name, text)
    told = {"directory": str(directory), "pages": sorted(made), "removed": [path.name for path in stale]}
    run.result(told, lambda: f"{len(made)} pages {'would be ' * dry_run}written to {directory}")
