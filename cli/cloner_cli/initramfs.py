"""`cloner initramfs`: builds what nodes boot."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from cloner_cli.commands import FilePath, Group, command, dry_run_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns
from cloner_core.sizes import format_bytes


@click.group("initramfs", cls=Group)
def initramfs_command() -> None:
    """What nodes boot: kernel and initramfs layers."""


@command("build", example="cloner initramfs build --out /var/lib/cloner-installer", group=initramfs_command)
@click.option("--out", type=FilePath(), required=True, metavar="DIR", help="Given to serve --installer.")
@click.option(
    "--drivers", default="vm", show_default=True, metavar="FLAVOUR", help="Which kernel and modules: vm, full."
)
@click.option("--cache", type=FilePath(), metavar="DIR", help="Where built layers are kept.")
@dry_run_option
def initramfs_build(run: Invocation, *, out: Path, drivers: str, cache: Path | None, dry_run: bool) -> None:
    """Build the layers from Debian packages and put them, with the kernel, into DIR; what is cached is not rebuilt."""
    from cloner_initramfs import Cache, default_cache, write_installer
    from cloner_initramfs.drivers import FLAVOURS

    if drivers not in FLAVOURS:
        raise click.UsageError(f"'{drivers}' is no flavour of drivers: {', '.join(sorted(FLAVOURS))}")
    kept = cache or default_cache()
    for name, directory in (("--out", out), ("--cache", kept)):
        if wrong := _no_directory(directory):
            raise click.UsageError(f"{name} {directory}: {wrong} is no directory")
    if dry_run:
        told = {"out": str(out), "drivers": drivers, "cache": str(kept)}
        run.result(told, lambda: f"would build base and {drivers} drivers into {out}, cache {kept}")
        return
    run.say("building the installer; what is cached is not built again")
    manifest = write_installer(Cache(kept), out, flavour=drivers)
    rows = [(one.name, format_bytes(one.size_bytes), format_bytes(one.unpacked_bytes)) for one in manifest.layers]
    needed = format_bytes(manifest.needed_memory_bytes)
    run.result(
        {"out": str(out), **msgspec.to_builtins(manifest)},
        lambda: f"{columns(('LAYER', 'SIZE', 'UNPACKED'), rows)}\nkernel {manifest.release}; a node needs {needed}",
    )


def _no_directory(path: Path) -> Path | None:
    """Return what is in the way of a directory at `path`: itself, or one above it; None when there may be one."""
    there = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.lexists(one))
    return None if there.is_dir() else there
