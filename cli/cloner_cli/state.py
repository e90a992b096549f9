"""`cloner state`: the sealed export of a server, and its import on a blank machine. Both work on files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from cloner_cli.commands import FilePath, Group, command, dry_run_option
from cloner_cli.documents import read_first_line
from cloner_cli.invocation import Invocation
from cloner_cli.showing import showing
from cloner_cli.store import require_whole
from cloner_cli.text import fields, moment
from cloner_core.errors import InvalidError, RefusedError
from cloner_core.sizes import format_bytes

F = TypeVar("F", bound=Callable[..., Any])
_FAULTS_SHOWN = 10


@click.group("state", cls=Group)
def state_command() -> None:
    """All that makes a server: keys, vault, database, images."""


def _place_options(function: F) -> F:
    for option in (
        click.option("--config", type=FilePath(), help="Settings; /etc/cloner/server.toml by default."),
        click.option("--state", metavar="DIR", help="The server's state directory; as in its settings by default."),
        click.option(
            "--passphrase-file",
            type=FilePath(allow_dash=True),
            help="Its first line is the passphrase; - is stdin. Asked for on a terminal by default.",
        ),
    ):
        function = option(function)
    return function


@command(
    "export",
    example="cloner state export /mnt/usb/cloner.state --images",
    group=state_command,
)
@click.argument("file", type=FilePath())
@click.option("--images", is_flag=True, help="The packs of all versions too: everything, and as big as that.")
@click.option("--force", is_flag=True, help="Replace FILE.")
@_place_options
@dry_run_option
def state_export(
    run: Invocation,
    *,
    file: Path,
    images: bool,
    force: bool,
    config: Path | None,
    state: str | None,
    passphrase_file: Path | None,
    dry_run: bool,
) -> None:
    """Seal this server's state into FILE: CA, vault, database, settings; images without their packs unless asked.

    The server may run meanwhile. Whoever has FILE and passphrase has every key of the site.
    """
    from cloner_server.export.making import Wanted, export_state
    from cloner_server.export.sealing import Cost, passphrase_bytes, require_strong

    directory, settings = _place(config, state)
    passphrase = "" if dry_run else _passphrase(run, passphrase_file, is_new=True)
    if not dry_run:
        require_strong(passphrase)
    target, author = file.absolute(), run.world.author()
    wanted = Wanted(directory, settings, target, author, images, force, dry_run, _reserve_bytes(settings))
    with _progress(run, "sealing") as show:
        cost = Cost(run.world.scrypt_log_n)
        made = export_state(wanted, passphrase_bytes(passphrase), cost=cost, progress=show)
    for missing in made.missing[:_FAULTS_SHOWN]:
        run.say(f"note: not in the store, so not in the export: {missing}")
    packs = "in it" if images else "not in it: copy the folder store/packs yourself, or --images"
    told = [
        ("would write" if dry_run else "written", f"{file}, {format_bytes(made.size_bytes)}"),
        ("server key", made.server_key),
        ("database", f"form {made.schema}"),
        ("versions", made.versions),
        ("packs", f"{made.packs}, {format_bytes(made.packs_bytes)}: {packs}"),
    ]
    run.result(made, lambda: fields(told))


@command("import", example="cloner state import /mnt/usb/cloner.state", group=state_command)
@click.argument("file", type=FilePath())
@click.option("--resume", is_flag=True, help="Let work go on as it stood; only if the old server did nothing since.")
@_place_options
@dry_run_option
def state_import(
    run: Invocation,
    *,
    file: Path,
    resume: bool,
    config: Path | None,
    state: str | None,
    passphrase_file: Path | None,
    dry_run: bool,
) -> None:
    """Make a server of an export, in a state directory that is blank: the same CA, vault and images.

    Work that was going on is frozen and every node boots from its disk, for a deploy that ended since the export would
    destroy what it made. Exit status 7 when images in it are damaged: all else is imported. With --dry-run FILE is
    verified to its last byte.
    """
    from cloner_server.export.importing import Wanted, import_state
    from cloner_server.export.sealing import passphrase_bytes

    directory, settings = _place(config, state)
    wanted = Wanted(file, directory, settings, run.world.author(), resume, dry_run)
    passphrase = _passphrase(run, passphrase_file, is_new=False)
    with _progress(run, "unsealing") as show:
        made = import_state(wanted, passphrase_bytes(passphrase), progress=show)
    told: list[tuple[str, object]] = [
        ("whole" if dry_run else "imported", f"{file}, made on {made.host} at {moment(made.made_s)}"),
        ("server key", made.server_key),
    ]
    faults = len(made.faults) + len(made.damages)
    if not dry_run:
        told += [
            ("state", made.state),
            ("settings", made.config),
            ("nodes", f"{made.nodes}, {made.identities} identities open"),
            ("versions", made.versions),
            ("frozen", ", ".join(made.frozen) or "nothing was going on"),
            ("store", f"{faults} faults" if faults else "whole"),
        ]
    run.result(made, lambda: fields(told))
    for fault in made.faults[:_FAULTS_SHOWN]:
        run.say(f"note: {fault}")
    if made.faults:
        run.say(f"note: copy the old store's packs into {made.state}/store/packs; then: cloner store check")
    require_whole(made.damages, "the store of the export; all else is imported")


def _place(config: Path | None, state: str | None) -> tuple[Path, Path]:
    """Return state directory and settings file."""
    from cloner_server.config import CONFIG_FILE, load_config

    if config is not None and not config.is_file() and state is None:
        raise click.UsageError(f"{config} is no file, and --state is not given")
    settings = config or CONFIG_FILE
    return Path(state or load_config(settings, {}).state).absolute(), settings.absolute()


def _reserve_bytes(settings: Path) -> int:
    """Return what the server leaves free of its disk; wrong settings are exported too, and count as the default."""
    from cloner_server.config import ServerConfig, load_config

    try:
        return load_config(settings, {}).reserve_mib << 20
    except InvalidError:
        return ServerConfig().reserve_mib << 20


def _passphrase(run: Invocation, path: Path | None, *, is_new: bool) -> str:
    """Return the passphrase; never from the command line, where everybody on the machine can read it."""
    if path is not None:
        text = read_first_line(path)
        if not text:
            raise InvalidError(f"{path} begins with an empty line: no passphrase")
        return text
    if not run.world.can_ask():
        raise RefusedError("this wants a passphrase, and there is no terminal to ask at", hint="--passphrase-file")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True))


@contextmanager
def _progress(run: Invocation, what: str) -> Iterator[Callable[[int, int], None]]:
    with showing(run, what) as show:
        yield lambda done, total: show(f"{format_bytes(done)} of {format_bytes(total)}")
