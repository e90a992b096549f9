"""`cloner init`: makes this machine a server: settings, unit, keys, after a look at what stands in the way."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cloner_cli.commands import FilePath, command, dry_run_option
from cloner_cli.invocation import Invocation

if TYPE_CHECKING:
    from cloner_server.setup import Finding, Preparation


@command("init", example="cloner init --interface eth1 --installer /var/lib/cloner-installer --dry-run")
@click.option("--interface", metavar="IF", help="Where nodes are; the one of the settings file unless named.")
@click.option("--address", metavar="IP", help="As nodes reach this server; the interface's first by default.")
@click.option(
    "--dhcp",
    metavar="FIRST-LAST|proxy|none",
    help="Give out these addresses; only add boot information to another server's answers; leave DHCP alone. "
    "Chosen by who answers unless named.",
)
@click.option("--router", metavar="IP", help="Default route told by DHCP.")
@click.option("--installer", metavar="DIR", help="What nodes boot; built there (downloads) unless it is whole.")
@click.option(
    "--drivers", type=click.Choice(["full", "vm"]), default="full", show_default=True, help="For --installer."
)
@click.option("--state", metavar="DIR", help="Where everything that lasts is kept.")
@click.option("--tls-port", type=int, metavar="PORT", help="API of nodes.")
@click.option("--http-port", type=int, metavar="PORT", help="Boot files and confirmation.")
@click.option("--tftp-port", type=int, metavar="PORT", help="Boot loader; 0: none.")
@click.option("--firewall", is_flag=True, help="Run the commands that let nodes through the firewall that is found.")
@click.option("--enable", is_flag=True, help="Have systemd start the server now and at each boot.")
@click.option("--force", is_flag=True, help="Replace files that were edited by hand; a copy is kept beside each.")
@click.option("--config", type=FilePath(), help="Settings file; /etc/cloner/server.toml by default.")
@dry_run_option
def init_command(
    run: Invocation,
    *,
    drivers: str,
    firewall: bool,
    enable: bool,
    force: bool,
    config: Path | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Make this machine a server: look at interface, DHCP, ports and firewall, then write settings, unit and keys.

    Everything that stands in the way is told at once, and then nothing is changed. What is not named stays as the
    settings file says; run again, it shows what differs. Nothing is started without --enable, no firewall is opened
    without --firewall.
    """
    from cloner_server.config import CONFIG_FILE
    from cloner_server.setup import Asked, apply, examine
    from cloner_server.setup.preparation import raise_faults

    given = {name: value for name, value in options.items() if value is not None}
    asked = Asked(
        settings=given,
        command=_own_command(),
        drivers=drivers,
        builds_installer="installer" in given,
        is_forced=force,
        opens_firewall=firewall,
        enables=enable,
        config_file=config.absolute() if config else CONFIG_FILE,
    )
    found = examine(asked)
    for finding in found.findings:
        if finding.kind != "fault":
            run.say(_line(finding))
    raise_faults(found.findings)
    if not dry_run:
        apply(found, run.say)
    run.result({"dry_run": dry_run, **msgspec.to_builtins(found)}, lambda: _text(found, is_dry=dry_run))


def _own_command() -> tuple[str, ...]:
    """Return what runs this very program, by absolute path: a unit knows no PATH of ours."""
    for name in (sys.argv[0], shutil.which("cloner") or ""):
        path = Path(name)
        if path.name == "cloner" and path.is_file():
            return (str(path.resolve()),)
    return (sys.executable, "-m", "cloner_cli.main")


def _line(finding: Finding) -> str:
    first, *more = finding.what.splitlines()
    remedy = f" ({finding.remedy})" if finding.remedy else ""
    if not more:
        return f"{finding.kind}: {first}{remedy}"
    return "\n".join((f"{finding.kind}: {first}", *(f"    {line}" for line in more), f"   {remedy}".rstrip()))


def _text(found: Preparation, *, is_dry: bool) -> str:
    lines = [f"interface  {found.interface} {found.address}", f"dhcp       {found.dhcp}", f"state      {found.state}"]
    for change in found.changes:
        action = f"would be {change.action}" if is_dry and change.action != "unchanged" else change.action
        kept = f", the former is kept as {change.backup}" if change.backup else ""
        lines += [f"{change.path}: {action}{kept}", *(f"    {line}" for line in change.diff.splitlines())]
    if found.makes_keys:
        lines.append(f"{found.state}/site: keys of this site {'would be ' * is_dry}made")
    if found.builds:
        lines.append(f"{found.builds[0]}: the installer {'would be ' * is_dry}built, drivers {found.builds[1]}")
    if is_dry:
        lines += [f"would run: {' '.join(argv)}" for argv in found.commands]
    return "\n".join((*lines, "", "next:", *(f"  {line}" for line in found.next)))
