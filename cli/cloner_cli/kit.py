"""`cloner kit`: what golden nodes install, and the line that installs it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from cloner_cli.commands import FilePath, Group, command, dry_run_option
from cloner_cli.invocation import Invocation
from cloner_core.admin.kit import KitView
from cloner_core.sizes import format_bytes


@click.group("kit", cls=Group)
def kit_command() -> None:
    """The kit: the command `cloner` for golden nodes, with a Python of its own."""


@command("build", example="cloner kit build", group=kit_command)
@click.option(
    "--out",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Where the server looks for it: `kit` in its state directory, by default the one of its settings file.",
)
@click.option("--cache", type=FilePath(file_okay=False), metavar="DIR", help="Where builds are kept.")
@dry_run_option
def kit_build(run: Invocation, *, out: Path | None, cache: Path | None, dry_run: bool) -> None:
    """Build the kit from Debian packages and locked wheels (downloads); what is cached is not built again.

    A server that runs gives away the new one from then on.
    """
    from cloner_initramfs import Cache, build_kit, default_cache, put_kit

    place, kept = out or _place(), cache or default_cache()
    if dry_run:
        run.result({"out": str(place), "cache": str(kept)}, lambda: f"would build the kit into {place}, cache {kept}")
        return
    run.say("building the kit; what is cached is not built again")
    manifest = put_kit(build_kit(Cache(kept)), place)
    size, unpacked = format_bytes(manifest.size_bytes), format_bytes(manifest.unpacked_bytes)
    run.result(
        {"out": str(place), **msgspec.to_builtins(manifest)},
        lambda: f"kit {manifest.version}: {size}, on a node {unpacked}; in {place}",
    )


@command("show", example="cloner kit show", group=kit_command)
def kit_show(run: Invocation) -> None:
    """Show the kit that the server gives away, and what the line that installs it rests on."""
    view = run.api.get("/v1/kit", KitView)
    run.result(
        view,
        lambda: (
            f"kit {view.version}, {format_bytes(view.size_bytes)}\n"
            f"script  http://{view.address}:{view.http_port}{view.install_path}\n"
            f"        sha256 {view.install_digest}\n"
            f"ca.pem  sha256 {view.ca_digest}"
        ),
    )


# `history 1` is the line itself. Other shells have no such command, or one that changes nothing.
_FORGET = "{ history -d $(history 1|sed 's/^ *//;s/[^0-9].*//');} >/dev/null 2>&1;"


def install_line(kit: KitView, token: str) -> str:
    """Return the line that root pastes into a shell of a golden node.

    It holds the digest of the script, which holds that of the kit, and the digest of the CA: whatever the plain port
    gives is compared. The token is in no argument of a program, and bash forgets the line: a history with a token in it
    would be found by the next capture.
    """
    where, url = f"{kit.address}:{kit.http_port}", f"http://{kit.address}:{kit.http_port}{kit.install_path}"
    by_bash = (
        f"exec 3<>/dev/tcp/{kit.address}/{kit.http_port}&&"
        rf'printf "GET {kit.install_path} HTTP/1.0\r\n\r\n">&3&&sed 1,/^.$/d<&3'
    )
    return (
        f"{_FORGET}(umask 077;export no_proxy={kit.address};has(){{ command -v $1 >/dev/null;}};f=$(mktemp)||exit;"
        f'if has curl;then curl -fsSo "$f" {url};elif has wget;then wget -qO "$f" {url};'
        f"else bash -c '{by_bash}'>\"$f\";fi;"
        f'if echo "{kit.install_digest}  $f"|sha256sum -c >/dev/null;'
        f'then CLONER_TOKEN={token} sh "$f" {where} {kit.tls_port} {kit.ca_digest};'
        'else echo "cloner: the script was not fetched, or is another one: print the line anew">&2;false;fi;'
        's=$?;rm -f "$f";exit $s)'
    )


def _place() -> Path:
    from cloner_server.config import CONFIG_FILE, load_config

    return Path(load_config(CONFIG_FILE, {}).state) / "kit"
