"""`cloner installer`: the kernels that nodes boot the agent with; `cloner make-installer` makes one of a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from blake3 import blake3
from msgspec import UNSET

from cloner_cli.api import segment
from cloner_cli.asking import ask
from cloner_cli.checking import Checks, fold_nodes
from cloner_cli.commands import (
    COUNT,
    UNSET_WORD,
    FilePath,
    Group,
    command,
    dry_run_option,
    server_option,
    some_nodes_option,
    yes_option,
)
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, fields, moment, printable
from cloner_core.admin.installers import (
    SITE,
    FleetDevice,
    ImageInstaller,
    ImageInstallerView,
    InstallerBuild,
    InstallerChange,
    InstallerSpec,
    InstallerView,
)
from cloner_core.admin.names import check_name
from cloner_core.admin.nodes import NodePatch, NodeView
from cloner_core.errors import ConflictError, NotFoundError
from cloner_core.sizes import format_bytes

revision_option = click.option(
    "--revision", type=COUNT, metavar="N", help="Only if the installer still has this revision."
)


@click.group("installer", cls=Group)
def installer_command() -> None:
    """Kernels that nodes boot the agent with, made from nodes by make-installer."""


@command("list", example="cloner installer list", group=installer_command)
def installer_list(run: Invocation) -> None:
    """List every installer that was made from a node, and who boots it.

    A node boots the one it names (installer use --nodes), else the one of its image (--image), else the one called
    `site`, and while there is none that of `cloner serve --installer`.
    """
    views = run.api.get("/v1/installers", list[InstallerView])
    titles = ("INSTALLER", "KERNEL", "FROM", "NEEDS", "MADE", "PREVIOUS", "IMAGES", "NODES")
    rows = [
        (
            v.name,
            v.present.release,
            printable(v.present.source),
            format_bytes(v.needed_bytes),
            moment(v.present.made_s),
            v.previous.release if v.previous else "",
            ",".join(v.images),
            fold_nodes(v.nodes),
        )
        for v in views
    ]
    run.result(views, lambda: columns(titles, rows))


@command("show", example="cloner installer show site", group=installer_command)
@click.argument("name", metavar="INSTALLER")
def installer_show(run: Invocation, name: str) -> None:
    """Show one installer, and the one it replaced."""
    view = run.api.get(f"/v1/installers/{segment(name)}", InstallerView)
    run.result(view, lambda: _text(view))


@command("use", example="cloner installer use el9 --nodes node[01-16]", group=installer_command)
@click.argument("name", metavar="INSTALLER")
@some_nodes_option
@click.option("--image", "-i", default="", metavar="NAME", help="What nodes with this image boot to get it.")
@click.option("--previous", "is_previous", is_flag=True, help="Put back the one that INSTALLER replaced.")
@revision_option
@dry_run_option
def installer_use(
    run: Invocation,
    name: str,
    *,
    nodes: tuple[str, ...],
    image: str,
    is_previous: bool,
    revision: int | None,
    dry_run: bool,
) -> None:
    """Have nodes, or the nodes of an image, boot INSTALLER; or put back what it replaced.

    `default` for INSTALLER takes the setting back. What a node names goes before what its image names. With
    --previous the present one becomes the previous, so that the same command undoes it.
    """
    if sum((bool(nodes), bool(image), is_previous)) != 1:
        raise click.UsageError("one of --nodes, --image and --previous")
    if revision is not None and not is_previous:
        raise click.UsageError("--revision goes with --previous")
    known = "" if name == UNSET_WORD else name
    if is_previous:
        change = InstallerChange(revision=UNSET if revision is None else revision)
        view = run.api.patch(f"/v1/installers/{segment(name)}", InstallerView, change, {"dry_run": dry_run})
        is_now = f"{'would be' if dry_run else 'is'} that of kernel {view.present.release}"
        run.result(view, lambda: f"installer {view.name} {is_now}")
    elif image:
        _use_for_image(run, known, image, is_dry=dry_run)
    else:
        _use_for_nodes(run, known, nodes, is_dry=dry_run)


@command("remove", example="cloner installer remove el9", group=installer_command)
@click.argument("name", metavar="INSTALLER")
@revision_option
@yes_option
@dry_run_option
def installer_remove(run: Invocation, name: str, *, revision: int | None, yes: bool, dry_run: bool) -> None:
    """Remove an installer with the one it replaced; refused while a node or an image names it."""
    path, query = f"/v1/installers/{segment(name)}", {"revision": revision}
    view = run.api.delete(path, InstallerView, {**query, "dry_run": True})
    if not dry_run:
        ask(run, f"Remove the installer {name} of kernel {view.present.release}?", is_yes=yes)
        view = run.api.delete(path, InstallerView, query)
    run.result(view, lambda: f"{'would remove' if dry_run else 'removed'} {view.name}")


@command("make-installer", example="cloner make-installer --overwrite")
@server_option
@click.option(
    "--name", default=SITE, show_default=True, metavar="NAME", help="`site` is what nodes boot unless told otherwise."
)
@click.option("--overwrite", is_flag=True, help="Replace the one of that name; it is kept as the previous.")
@click.option(
    "--root",
    type=FilePath(file_okay=False),
    default="/",
    show_default=True,
    metavar="DIR",
    help="Of the system beneath it.",
)
@click.option(
    "--kernel",
    "release",
    default="",
    metavar="RELEASE",
    help="Of this kernel; by default the running one, or the only.",
)
@dry_run_option
def make_installer_command(
    run: Invocation, *, name: str, overwrite: bool, root: Path, release: str, dry_run: bool
) -> None:
    """Make an installer of the kernel of this machine, with its modules and firmware; the rest is the server's.

    Taken are the modules that installers have usually, those in use here, and those that drive the disk controllers
    and network cards of all machines that have told their hardware. What no module of this kernel drives is named.
    The one that is replaced is kept: `cloner installer use NAME --previous` puts it back.
    """
    check_name(name, "installer")
    _refuse_taken(run, name, overwrite=overwrite)
    devices = run.api.get("/v1/fleet-devices", list[FleetDevice])
    found = run.world.kernel(root, release, [one.modalias for one in devices])
    for line in _doubts(devices, found.undriven, found.lacking):
        run.say(f"note: {line}")
    kernel = found.kernel.read_bytes()
    size = format_bytes(len(kernel) + len(found.layer))
    run.say(f"kernel {found.release}, {len(found.modules)} modules, {found.firmware} files of firmware: {size}")
    if dry_run:
        told = {"name": name, "release": found.release, "modules": len(found.modules), "undriven": found.undriven}
        run.result(told, lambda: f"would make the installer {name}; nothing was sent")
        return
    digests = []
    for part in (kernel, found.layer):
        digests.append(blake3(part).hexdigest())
        run.api.put_bytes(f"/v1/installer-parts/{digests[-1]}", part)
    spec = InstallerSpec(
        release=found.release,
        kernel=digests[0],
        drivers=digests[1],
        source=run.world.host_name(),
        overwrite=overwrite,
    )
    view = run.api.post(f"/v1/installers/{segment(name)}", InstallerView, spec)
    needs = format_bytes(view.needed_bytes)
    run.result(view, lambda: f"installer {view.name}: kernel {view.present.release}; a node needs {needs} of memory")


def _refuse_taken(run: Invocation, name: str, *, overwrite: bool) -> None:
    """Refuse before anything is collected what the server would refuse after it was sent."""
    try:
        view = run.api.get(f"/v1/installers/{segment(name)}", InstallerView)
    except NotFoundError:
        return
    if not overwrite:
        raise ConflictError(
            f"there is an installer '{name}' of kernel {view.present.release}",
            hint="--overwrite replaces it and keeps it as the previous one",
        )


def _doubts(devices: Sequence[FleetDevice], undriven: Sequence[str], lacking: Sequence[str]) -> list[str]:
    lines = []
    for one in devices:
        if one.modalias in undriven:
            what = "disk controller" if one.is_storage else "network card"
            lines.append(f"this kernel has no driver for the {what} {one.id} of {one.machines} machines")
    if lacking:
        lines.append(f"this kernel lacks modules that installers have usually: {', '.join(lacking)}")
    return [printable(line) for line in lines]


def _use_for_image(run: Invocation, known: str, image: str, *, is_dry: bool) -> None:
    checks = Checks()
    name, version = checks.image(image)
    if version is not None:
        checks.wrong.append(f"--image {image}: an installer is for all versions of an image")
    checks.exist(run.api, image=name)
    checks.settle("nothing was changed")
    path = f"/v1/images/{segment(name)}/installer"
    view = run.api.patch(path, ImageInstallerView, ImageInstaller(known), {"dry_run": is_dry})
    run.result(view, lambda: f"image {name} {_boots(known, is_dry=is_dry)}")


def _use_for_nodes(run: Invocation, known: str, nodes: Sequence[str], *, is_dry: bool) -> None:
    checks = Checks()
    names = checks.nodes(run.api, nodes)
    checks.exist(run.api, nodes=names)
    checks.settle("nothing was changed")

    def patched(name: str, *, is_trial: bool) -> NodeView:
        return run.api.patch(f"/v1/nodes/{segment(name)}", NodeView, NodePatch(installer=known), {"dry_run": is_trial})

    views = [patched(name, is_trial=True) for name in names]  # all of them, or none
    if not is_dry:
        views = [patched(name, is_trial=False) for name in names]
    run.result(views, lambda: f"{fold_nodes(names)} {_boots(known, is_dry=is_dry)}")


def _boots(known: str, *, is_dry: bool) -> str:
    return f"{'would boot' if is_dry else 'boots'} {f'the installer {known}' if known else 'what is usual'}"


def _text(view: InstallerView) -> str:
    shown: list[tuple[str, object]] = [
        ("installer", view.name),
        ("revision", view.revision),
        *_build(view.present),
        ("needs", f"{format_bytes(view.needed_bytes)} of memory"),
        ("images", ", ".join(view.images)),
        ("nodes", fold_nodes(view.nodes)),
        ("previous", "none" if view.previous is None else "\n".join(f"{k} {v}" for k, v in _build(view.previous))),
    ]
    return fields(shown)


def _build(build: InstallerBuild) -> list[tuple[str, object]]:
    size = f"{format_bytes(build.kernel_bytes)} and {format_bytes(build.drivers_bytes)} of drivers"
    return [
        ("kernel", build.release),
        ("modules", build.modules),
        ("size", size),
        ("made", f"{moment(build.made_s)} by {printable(build.author)} on {printable(build.source)}"),
    ]
