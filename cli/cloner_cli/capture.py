"""`cloner new-image`: captures a tree of this machine as the next version of an image."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloner_cli.checking import Checks
from cloner_cli.commands import command, dry_run_option, server_option
from cloner_cli.detected import (
    decide,
    exclude_devices_option,
    newest,
    require_equal,
    store,
    tell_notes,
)
from cloner_cli.disklayout import read_layout
from cloner_cli.findings import finding_lines
from cloner_cli.invocation import Invocation
from cloner_cli.text import printable
from cloner_core.errors import ClonerError, ExitStatus, InvalidError
from cloner_core.image.options import Conflict
from cloner_core.image.version import check_image_name
from cloner_core.layout import Layout
from cloner_core.sizes import format_bytes

if TYPE_CHECKING:
    from cloner_agent.capture.job import Captured, CaptureProgress

_SAY_EVERY_S = 10.0


class InexactError(ClonerError):
    """The version is complete and published; some files of it kept changing while they were read."""

    exit_status = ExitStatus.INEXACT


@command(
    "new-image", example="cloner new-image --root /srv/golden --image debian --disklayout debian --message 'first'"
)
@server_option
@click.option("--root", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The tree to capture.")
@click.option("--image", "-i", required=True, metavar="NAME", help="The image that gets a new version.")
@click.option(
    "--disklayout",
    "-l",
    required=True,
    metavar="NAME",
    help="The layout it is meant for; must exist. With --root / it is found out, and compared with what exists.",
)
@click.option(
    "--disklayout-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The layout, JSON or YAML; stored where it is new.",
)
@exclude_devices_option
@click.option(
    "--update-conflict",
    "conflict",
    type=click.Choice([Conflict.SERVER.value, Conflict.COMMANDLINE.value]),
    help="Where the layout is not what the server keeps: take the server's, or store this one. Refused unless told.",
)
@click.option("--message", "-m", default="", metavar="TEXT", help="What is new.")
@click.option("--exclude-paths", multiple=True, metavar="PATH", help="Left out: /srv/data, /var/log/*. Repeatable.")
@click.option(
    "--allow-secrets",
    is_flag=True,
    help="Take private keys, passwords and tokens that are found; they are told, and refused without this.",
)
@click.option("--rehash", is_flag=True, help="Read every file, those that did not change since the last capture too.")
@dry_run_option
def new_image_command(
    run: Invocation,
    *,
    root: Path,
    image: str,
    disklayout: str,
    disklayout_file: Path | None,
    message: str,
    exclude_paths: tuple[str, ...],
    excludes: tuple[str, ...],
    conflict: str | None,
    allow_secrets: bool,
    rehash: bool,
    dry_run: bool,
) -> None:
    """Capture the tree beneath DIR and publish it as the next version of an image.

    The identity of the machine (machine-id, SSH host keys, …) is never captured. Private keys, passwords and tokens
    are refused, all of them told at once, unless they are left out or allowed. What the server has already is not sent
    again, and files that did not change since the last capture on this machine are not read again. Exit status 4 for
    secrets, 8 when files kept changing while they were read; they are listed.

    With --root / the disks of this machine are described as the layout, as update-disklayout does. A layout of that
    name is used as it is where it is the same; where it is another one that is shown, and nothing is captured.
    """
    wanted = _Wanted(root, image, disklayout, disklayout_file, message, exclude_paths, excludes, allow_secrets, rehash)
    layout = _check(run, wanted)
    if layout is not None and _is_to_be_stored(run, layout, conflict):
        store(run, layout, is_dry=dry_run)
    if lacking := boot_lacks(root):
        run.say(f"note: a clone of {printable(str(root))} would not boot: it lacks {' and '.join(lacking)}")
    captured = _capture(run, wanted, layout, is_dry=dry_run)
    conclude(run, captured, is_dry=dry_run)


def conclude(run: Invocation, captured: Captured, *, is_dry: bool) -> None:
    """Tell what was captured; raises InexactError when files kept changing."""
    _tell_notes(run, captured)
    record = captured.record
    told = {
        "image": record.image,
        "number": None if is_dry else record.number,
        "digest": record.version,
        "inodes": captured.inodes,
        "data_bytes": captured.data_bytes,
        "new_packs": captured.new_packs,
        "new_stored_bytes": captured.new_stored_bytes,
        "unread": captured.notes.recalled,
        "inexact": record.inexact,
        "findings": record.findings,
        "dry_run": is_dry,
    }
    name = f"{record.image} (not published)" if is_dry else f"{record.image}:{record.number}"
    size, sent = format_bytes(captured.data_bytes), format_bytes(captured.new_stored_bytes)
    run.result(told, lambda: f"{name}  {record.version}\n{captured.inodes} files, {size}; {sent} new")
    if record.inexact:
        shown = [printable(path) for path in record.inexact[:50]]
        raise InexactError(
            "\n  - ".join((f"{len(record.inexact)} files kept changing while they were read:", *shown)),
            hint="stop what writes to them and capture again, or --exclude-paths",
        )


def boot_lacks(root: Path) -> tuple[str, ...]:
    """Return what a clone of the tree at `root` would lack to boot; a deploy of it is refused."""
    from cloner_core import bootfiles

    esp = "/boot/efi"
    here = [path for name in ("boot", "boot/grub", "boot/grub2") for path in root.joinpath(name).glob("*")]
    here += [path for pattern in ("EFI/*/*", "loader/entries/*") for path in root.glob(f"boot/efi/{pattern}")]
    here += [root / path.lstrip("/") for path in bootfiles.LOADERS if root.joinpath(path.lstrip("/")).exists()]
    return bootfiles.boot_lacks((f"/{path.relative_to(root)}" for path in here), esp, platform.machine())


@dataclass(frozen=True, slots=True)
class _Wanted:
    root: Path
    image: str
    disklayout: str
    layout_file: Path | None
    message: str
    excludes: tuple[str, ...]
    excluded_devices: tuple[str, ...]
    allow_secrets: bool
    is_rehash: bool

    @property
    def is_this_machine(self) -> bool:
        """Whether it is the system that runs here that is captured, and its disks that are the layout."""
        return self.root.resolve() == Path("/") and self.layout_file is None


def _is_to_be_stored(run: Invocation, layout: Layout, conflict: str | None) -> bool:
    """Whether `layout` is new, or is meant to follow what the server keeps; raises RefusedError for another one."""
    kept = newest(run, layout.name)
    if kept is None or conflict == Conflict.COMMANDLINE:
        return True
    if conflict == Conflict.SERVER:
        decide(run, layout, kept, Conflict.SERVER, is_yes=False, is_dry=False)
    else:
        require_equal(kept, layout)
    return False


def _layout_here(run: Invocation, wanted: _Wanted) -> Layout | None:
    """Return the layout of this machine; None where it cannot be described and the server has one of that name."""
    try:
        detected = run.world.detect(wanted.disklayout, wanted.excluded_devices)
    except InvalidError as undescribed:
        if newest(run, wanted.disklayout) is None:
            raise
        run.say(printable(f"note: {undescribed.message}", keep="\n"))
        run.say(f"note: layout {wanted.disklayout} is used as the server has it")
        return None
    tell_notes(run, detected)
    return detected.layout


def _check(run: Invocation, wanted: _Wanted) -> Layout | None:
    """Return the layout to upload, if one is; raises with every fault before anything is read or changed."""
    from cloner_agent.capture.rules import parse_excludes

    checks = Checks()
    if not wanted.root.is_dir():
        checks.wrong.append(f"--root {wanted.root}: not a directory of this machine")
    layout = None
    for step in (lambda: check_image_name(wanted.image), lambda: parse_excludes(wanted.excludes)):
        try:
            step()
        except InvalidError as fault:
            checks.wrong += fault.faults or [str(fault)]
    if (path := wanted.layout_file) is not None:
        try:
            layout = read_layout(path, wanted.disklayout)
        except InvalidError as fault:
            checks.wrong += [f"{path}: {each}" for each in fault.faults] or [str(fault)]
    if wanted.excluded_devices and not wanted.is_this_machine:
        checks.wrong.append("--exclude-devices: the layout is found out only with --root /, without a file")
    checks.exist(run.api, layout="" if path or wanted.is_this_machine else wanted.disklayout)
    checks.settle("nothing was captured")
    return _layout_here(run, wanted) if wanted.is_this_machine else layout


def _capture(run: Invocation, wanted: _Wanted, layout: Layout | None, *, is_dry: bool) -> Captured:
    from cloner_agent.capture.job import CaptureOptions, capture
    from cloner_cli.upload import DrySink, ServerSink

    kept = newest(run, wanted.disklayout) if layout is None else None
    options = CaptureOptions(
        image=wanted.image,
        excludes=wanted.excludes,
        message=wanted.message,
        author=run.world.author(),
        source=socket.gethostname(),
        layout=kept.layout if kept else layout,
        allow_secrets=wanted.allow_secrets,
        indexes=run.world.indexes,
        is_rehash=wanted.is_rehash,
        is_dry=is_dry,
    )
    sink = ServerSink(run.api)
    with _display(run) as show:
        return capture(wanted.root, DrySink(sink) if is_dry else sink, options, show)


def _tell_notes(run: Invocation, captured: Captured) -> None:
    notes = captured.notes
    counts = {
        "vanished while the tree was read": notes.vanished,
        "sockets left out": notes.sockets,
        "mount points whose content is not captured": notes.mount_points,
    }
    for what, paths in counts.items():
        if paths:
            shown = ", ".join("/" + path.decode(errors="backslashreplace") for path in paths[:5])
            more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
            run.say(printable(f"note: {len(paths)} {what}: {shown}{more}"))
    if notes.dropped_evm:
        run.say(f"note: security.evm dropped from {notes.dropped_evm} files: it is wrong on any other machine")
    for text in notes.index:
        run.say(printable(f"note: {text}"))
    for line in finding_lines(captured.record.findings):
        run.say(printable(line))
    for text in captured.unmatched_excludes:
        run.say(printable(f"note: --exclude-paths {text} names nothing in this tree"))


@contextmanager
def _display(run: Invocation) -> Iterator[Callable[[CaptureProgress], None]]:
    """Give what shows progress: a line redrawn on a terminal, a line every ten seconds elsewhere; always on stderr."""
    if run.world.is_live():
        from rich.console import Console

        with Console(stderr=True).status("capturing") as status:
            yield lambda progress: status.update(_line(progress))
        return
    said_s = run.world.monotonic()

    def say(progress: CaptureProgress) -> None:
        nonlocal said_s
        if run.world.monotonic() - said_s >= _SAY_EVERY_S:
            said_s = run.world.monotonic()
            run.say(_line(progress))

    yield say


def _line(progress: CaptureProgress) -> str:
    read, sent = format_bytes(progress.data_bytes), format_bytes(progress.stored_bytes)
    return f"capturing: {progress.inodes} files, {read} read, {sent} new"
