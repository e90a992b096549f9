"""`cloner new-image` and `update-filesystem`: capture a tree of this machine as the next version of an image."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloner_cli.api import segment
from cloner_cli.asking import ask
from cloner_cli.captureoptions import (
    Agreed,
    agree,
    disklayout_option,
    exclude_paths_option,
    given_options,
)
from cloner_cli.checking import Checks
from cloner_cli.commands import FilePath, Rate, command, dry_run_option, server_option, yes_option
from cloner_cli.detected import (
    decide,
    exclude_devices_option,
    newest,
    require_equal,
    store,
    tell_notes,
    update_conflict_option,
)
from cloner_cli.disklayout import read_layout
from cloner_cli.findings import finding_lines
from cloner_cli.invocation import Invocation
from cloner_cli.showing import showing
from cloner_cli.text import first_few, printable
from cloner_core.admin.images import ImageView
from cloner_core.admin.store import StoreRoom
from cloner_core.detection import Detected, UndescribedError
from cloner_core.errors import ClonerError, ExitStatus, InvalidError, NotFoundError
from cloner_core.image.options import Conflict, GivenOptions, settle
from cloner_core.image.version import check_image_name
from cloner_core.layout import Layout
from cloner_core.sizes import format_bytes

if TYPE_CHECKING:
    from cloner_agent.capture.job import Captured, CaptureProgress
    from cloner_agent.capture.survey import Survey

F = TypeVar("F", bound=Callable[..., Any])


class InexactError(ClonerError):
    """The version is complete and published; some files of it kept changing while they were read."""

    exit_status = ExitStatus.INEXACT


_OPTIONS = (
    server_option,
    click.option(
        "--root",
        type=FilePath(),
        default=Path("/"),
        show_default=True,
        metavar="DIR",
        help="The tree to capture.",
    ),
    click.option("--image", "-i", required=True, metavar="NAME", help="The image that gets a new version."),
    disklayout_option,
    click.option(
        "--disklayout-file",
        type=FilePath(),
        metavar="FILE",
        help="The layout, JSON or YAML; stored where it is new.",
    ),
    exclude_paths_option,
    exclude_devices_option,
    update_conflict_option,
    click.option("--message", "-m", default="", metavar="TEXT", help="What is new."),
    click.option("--rate", "bytes_per_s", type=Rate(), metavar="RATE", help="Send no faster: 100Mbit, 12MiB."),
    click.option(
        "--allow-secrets",
        is_flag=True,
        help="Take private keys, passwords and tokens that are found; they are told, and refused without this.",
    ),
    click.option(
        "--rehash", is_flag=True, help="Read every file, those that did not change since the last capture too."
    ),
    click.option(
        "--snapshot", is_flag=True, help="Capture this system as it is at one moment: / must be on btrfs or LVM."
    ),
    yes_option,
    dry_run_option,
)


def _capturing(function: F) -> F:
    """Give a command the options of all commands that capture."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command("new-image", example="cloner new-image --server head --image debian --disklayout debian --message 'first'")
@_capturing
def new_image_command(run: Invocation, **words: Any) -> None:
    """Capture the tree beneath DIR and publish it as the first, or next, version of an image.

    What will be captured is shown before anything is sent: drives, filesystems, the largest directories, what it
    weighs and whether it fits; on a terminal it is asked for. The identity of the machine (machine-id, SSH host keys,
    …) is never captured. Private keys, passwords and tokens are refused, all of them told at once, unless they are
    left out or allowed. What the server has already is not sent again, and files that did not change since the last
    capture on this machine are not read again. Exit status 4 for secrets, 8 when files kept changing while they were
    read; they are listed.

    With --root / the disks of this machine are described as the layout, as update-disklayout does. A layout of that
    name is used as it is where it is the same; where it is another one that is shown, and --update-conflict decides.

    Layout and what is left out are kept with the image for its next versions. Where those given are others than those
    kept, --update-conflict decides: prompt shows them and asks (without a terminal it is an error), server takes those
    kept and tells what was ignored, commandline takes and keeps those given.
    """
    _run(run, _wanted(words), is_new=True)


@command("update-filesystem", example="cloner update-filesystem --image debian --message 'with MPI'")
@_capturing
def update_filesystem_command(run: Invocation, **words: Any) -> None:
    """Capture the tree beneath DIR as the next version of an image that exists; only what changed is sent.

    Layout and what is left out are those kept with the image. Given ones that are others: --update-conflict decides,
    as with new-image. Versions never change: the one before can be deployed again at any time.
    """
    _run(run, _wanted(words), is_new=False)


@dataclass(frozen=True, slots=True)
class _Wanted:
    root: Path
    image: str
    given: GivenOptions
    layout_file: Path | None
    conflict: Conflict
    message: str
    bytes_per_s: int | None
    allow_secrets: bool
    is_rehash: bool
    is_snapshot: bool
    is_yes: bool
    is_dry: bool

    @property
    def is_this_machine(self) -> bool:
        """Whether it is the system that runs here that is captured, and its disks that are the layout."""
        return self.is_this_system and self.layout_file is None

    @property
    def is_this_system(self) -> bool:
        """Whether it is the system that runs here that is captured."""
        return self.root.resolve() == Path("/")


def _wanted(words: dict[str, Any]) -> _Wanted:
    return _Wanted(
        root=words["root"],
        image=words["image"],
        given=given_options(words["disklayout"], words["exclude_paths"], words["excludes"]),
        layout_file=words["disklayout_file"],
        conflict=Conflict(words["conflict"]),
        message=words["message"],
        bytes_per_s=words["bytes_per_s"],
        allow_secrets=words["allow_secrets"],
        is_rehash=words["rehash"],
        is_snapshot=words["snapshot"],
        is_yes=words["yes"],
        is_dry=words["dry_run"],
    )


def _run(run: Invocation, wanted: _Wanted, *, is_new: bool) -> None:
    layout = _check(run, wanted, is_new=is_new)
    agreed = agree(run, wanted.image, wanted.given, wanted.conflict, is_yes=wanted.is_yes, is_dry=wanted.is_dry)
    name = agreed.options.layout
    if not name:
        raise InvalidError("nothing was captured", faults=[f"--disklayout: no layout is kept with {wanted.image}"])
    if wanted.layout_file is None:
        checks = Checks()
        checks.exist(run.api, layout="" if wanted.is_this_machine else name)
        checks.settle("nothing was captured")
    if wanted.is_this_system:
        for path in _require_mounted(agreed.options.exclude_paths):
            run.say(printable(f"note: nothing is mounted on {path}, which is captured without it"))
    detected: Detected | None = None
    left_out: tuple[str, ...] = ()
    if wanted.is_this_machine:
        detected, left_out = _detect(run, name, agreed.options.exclude_devices)
    layout = detected.layout if detected else layout
    to_store = layout if layout is not None and _is_to_be_stored(run, wanted, layout) else None
    if lacking := _boot_lacks(wanted.root):
        run.say(f"note: a clone of {printable(str(wanted.root))} would not boot: it lacks {' and '.join(lacking)}")
    lint_layout = layout or _kept_layout(run, name)
    with _seen(run, wanted, left_out) as tree:
        surveyed = _survey(run, wanted, agreed, lint_layout, tree)
        _show(run, wanted, agreed, detected, surveyed)
        if to_store is not None:
            store(run, to_store, is_dry=wanted.is_dry)
        captured = _capture(run, wanted, agreed, lint_layout, tree, surveyed=surveyed)
    conclude(run, captured, surveyed, agreed, is_dry=wanted.is_dry)


def _show(run: Invocation, wanted: _Wanted, agreed: Agreed, detected: Detected | None, surveyed: Survey) -> None:
    """Show what would be captured, and ask for it on a terminal."""
    from cloner_cli.surveying import Outlook, outlook_lines

    outlook = Outlook(
        image=wanted.image,
        base=_base(run, wanted.image),
        drives=detected.drives if detected else (),
        survey=surveyed,
        room=run.api.get("/v1/store/room", StoreRoom),
        options=agreed.options,
    )
    for line in outlook_lines(outlook):
        run.say(line)
    if run.world.can_ask() and not wanted.is_dry:
        ask(run, "Capture this?", is_yes=wanted.is_yes)


def _base(run: Invocation, image: str) -> str:
    """Return the newest version of an image, as "debian:3"; "" when there is none."""
    try:
        return f"{image}:{run.api.get(f'/v1/images/{segment(image)}', ImageView).number}"
    except NotFoundError:
        return ""


def _kept_layout(run: Invocation, name: str) -> Layout | None:
    kept = newest(run, name)
    return kept.layout if kept else None


def conclude(
    run: Invocation, captured: Captured, surveyed: Survey | None, agreed: Agreed | None, *, is_dry: bool
) -> None:
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
        "inexact": record.inexact,
        "findings": record.findings,
        "options": agreed.options if agreed else None,
        "conflicts": agreed.conflicts if agreed else (),
        "survey": surveyed,
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


def _boot_lacks(root: Path) -> tuple[str, ...]:
    from cloner_agent.capture.booting import boot_lacks
    from cloner_agent.rooted import Rooted

    with Rooted(root) as tree:
        return boot_lacks(tree, platform.machine())


def _is_to_be_stored(run: Invocation, wanted: _Wanted, layout: Layout) -> bool:
    """Whether `layout` is new, or is meant to follow what the server keeps; raises RefusedError for another one."""
    kept = newest(run, layout.name)
    if kept is None:
        return True
    if wanted.conflict is Conflict.PROMPT and not wanted.is_dry and (wanted.is_yes or not run.world.can_ask()):
        require_equal(kept, layout)
    return decide(run, layout, kept, wanted.conflict, is_yes=False, is_dry=wanted.is_dry)


def _require_mounted(excludes: Sequence[str]) -> tuple[str, ...]:
    from cloner_agent.capture.presence import require_mounted

    try:
        fstab = Path("/etc/fstab").read_bytes()
    except FileNotFoundError:
        fstab = b""
    return require_mounted(fstab, excludes)


def _detect(run: Invocation, name: str, excluded: tuple[str, ...]) -> tuple[Detected | None, tuple[str, ...]]:
    """Return the layout of this machine, and what is mounted and no part of it.

    The layout is None where it cannot be described and the server has one of that name.
    """
    try:
        detected = run.world.detect(name, excluded)
    except UndescribedError as undescribed:
        if newest(run, name) is None:
            raise
        run.say(printable(f"note: {undescribed.message}", keep="\n"))
        run.say(f"note: layout {name} is used as the server has it")
        return None, undescribed.left_out
    tell_notes(run, detected)
    return detected, detected.left_out


def _check(run: Invocation, wanted: _Wanted, *, is_new: bool) -> Layout | None:
    """Return the layout of a file, if there is one; raises with every fault before anything is read or changed."""
    checks = Checks()
    if not wanted.root.is_dir():
        checks.wrong.append(f"--root {wanted.root}: not a directory of this machine")
    steps = (
        lambda: check_image_name(wanted.image),
        lambda: settle(None, wanted.given, Conflict.COMMANDLINE, can_ask=False),
    )
    for step in steps:
        try:
            step()
        except InvalidError as fault:
            checks.wrong += fault.faults or [str(fault)]
    layout = None
    if (path := wanted.layout_file) is not None:
        try:
            layout = read_layout(path, wanted.given.layout)
        except InvalidError as fault:
            checks.wrong += [f"{path}: {each}" for each in fault.faults] or [str(fault)]
        if wanted.given.layout is None:
            checks.wrong.append("--disklayout-file: --disklayout says which layout it is")
    if wanted.is_snapshot and wanted.root.resolve() != Path("/"):
        checks.wrong.append("--snapshot: only the system that runs here can be snapshot, with --root /")
    if wanted.given.exclude_devices and not wanted.is_this_machine:
        checks.wrong.append("--exclude-devices: the layout is found out only with --root /, without a file")
    is_named = wanted.given.layout is not None and path is None and not wanted.is_this_machine
    image = wanted.image if not is_new and not checks.wrong else ""
    checks.exist(run.api, image=image, layout=wanted.given.layout or "" if is_named else "")
    checks.settle("nothing was captured")
    return layout


@dataclass(frozen=True, slots=True)
class _Tree:
    """What is walked: the tree as it is, or a snapshot of it."""

    root: Path
    closed: frozenset[bytes] = frozenset()
    indexes: Path | None = None


@contextmanager
def _seen(run: Invocation, wanted: _Wanted, left_out: Sequence[str]) -> Iterator[_Tree]:
    from cloner_agent.capture.source import closed_paths

    closed = closed_paths(left_out)
    if not wanted.is_snapshot:
        yield _Tree(wanted.root, closed, indexes=run.world.indexes)
        return
    from cloner_agent.capture.snapshot import snapshotted
    from cloner_agent.host import run as run_tool

    with snapshotted(run_tool, closed) as view:
        for text in view.live:
            run.say(printable(f"note: no snapshot, captured as it runs: {text}"))
        run.say("note: every file is read: in a snapshot all are on another device than at the last capture")
        yield _Tree(view.root, view.closed)
    for text in view.troubles:
        run.say(printable(f"note: {text}"))


def _survey(run: Invocation, wanted: _Wanted, agreed: Agreed, layout: Layout | None, tree: _Tree) -> Survey:
    from cloner_agent.capture.survey import survey

    with showing(run, "looking at what is there") as show:
        return survey(
            tree.root,
            agreed.options.exclude_paths,
            layout,
            allow_secrets=wanted.allow_secrets,
            closed=tree.closed,
            image=wanted.image,
            indexes=None if wanted.is_rehash else tree.indexes,
            progress=lambda entries: show(f"{entries} entries"),
        )


def _capture(
    run: Invocation, wanted: _Wanted, agreed: Agreed, layout: Layout | None, tree: _Tree, *, surveyed: Survey
) -> Captured:
    from cloner_agent.capture.job import CaptureOptions, capture
    from cloner_cli.pacing import Pacer
    from cloner_cli.upload import DrySink, ServerSink

    options = CaptureOptions(
        image=wanted.image,
        excludes=agreed.options.exclude_paths,
        message=wanted.message,
        author=run.world.author(),
        source=socket.gethostname(),
        layout=layout,
        allow_secrets=wanted.allow_secrets,
        kept=agreed.options if agreed.is_new else None,
        kept_revision=agreed.revision,
        closed=tree.closed,
        mounts=tuple(one.path for one in surveyed.mounts),
        indexes=tree.indexes,
        is_rehash=wanted.is_rehash,
        is_dry=wanted.is_dry,
    )
    pacer = Pacer(wanted.bytes_per_s) if wanted.bytes_per_s else None
    sink = ServerSink(run.api, pacer, monotonic=run.world.monotonic, sleep=run.world.sleep)
    with showing(run, "capturing") as show:
        told = partial(_tell_progress, show, surveyed)
        return capture(tree.root, DrySink(sink) if wanted.is_dry else sink, options, told)


def _tell_progress(show: Callable[[str], None], surveyed: Survey, progress: CaptureProgress) -> None:
    read, whole = format_bytes(progress.data_bytes), format_bytes(surveyed.data_bytes)
    sent = format_bytes(progress.stored_bytes)
    show(f"{progress.inodes} of {surveyed.entries} files, {read} of {whole} read, {sent} new")


def _tell_notes(run: Invocation, captured: Captured) -> None:
    notes = captured.notes
    counts = {
        "vanished while the tree was read": notes.vanished,
        "sockets left out": notes.sockets,
        "mount points whose content is not captured": notes.mount_points,
        "read-only snapshots that are not captured": notes.snapshots,
    }
    for what, paths in counts.items():
        if paths:
            shown = first_few(["/" + path.decode(errors="backslashreplace") for path in paths])
            run.say(printable(f"note: {len(paths)} {what}: {shown}"))
    if notes.dropped_evm:
        run.say(f"note: security.evm dropped from {notes.dropped_evm} files: it is wrong on any other machine")
    for text in notes.index:
        run.say(printable(f"note: {text}"))
    for line in finding_lines(captured.record.findings):
        run.say(printable(line))
    for text in captured.unmatched_excludes:
        run.say(printable(f"note: --exclude-paths {text} names nothing in this tree"))
