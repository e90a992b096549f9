"""`cloner fix-efiboot`: has the firmware boot this running system again, as a deploy had left it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import click

from cloner_cli.commands import command, dry_run_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import printable
from cloner_core.errors import RefusedError

if TYPE_CHECKING:
    from cloner_agent.efiboot import EfiBootFixed


@command("fix-efiboot", example="cloner fix-efiboot --dry-run")
@click.option(
    "--boot-order",
    type=click.Choice(["network-first", "local-first"]),
    default="network-first",
    show_default=True,
    help="What the firmware asks first: the network, so that the server can call the node, or the disk.",
)
@dry_run_option
def fix_efiboot_command(run: Invocation, boot_order: Literal["network-first", "local-first"], dry_run: bool) -> None:
    """Mend how the firmware boots this machine; to be run on the node itself, as root. Needs no server.

    Each EFI system partition of the disks that / lies on gets one boot entry, that of the running system first; ours
    that lead nowhere go; BootOrder and the fallback path are set; copies of the ESP are brought in step.
    """
    if os.geteuid() != 0:
        raise RefusedError("the firmware's variables and the EFI system partition are for root alone", hint="sudo")
    from cloner_agent.efiboot import System, fix_efi_boot
    from cloner_agent.efivars import EfiVars
    from cloner_agent.host import run as run_program
    from cloner_agent.probe import EFIVARS, probe

    system = System(run_program, probe(run_program).disks, EfiVars(EFIVARS))
    done = fix_efi_boot(system, boot_order=boot_order, is_dry=dry_run)
    for note in done.notes:
        run.say(f"note: {printable(note)}")
    run.result(done, lambda: printed(done))


def printed(done: EfiBootFixed) -> str:
    """Return what was, or would be, done, for people."""
    gone, new = (
        [line for line in done.before if line not in done.after],
        [line for line in done.after if line not in done.before],
    )
    lines = [f"{', '.join(done.esps)}  {done.loader}"]
    lines += [f"{sign} {printable(line)}" for sign, part in (("-", gone), ("+", new)) for line in part]
    lines += [f"+ {printable(path)}" for path in done.copied]
    if len(lines) == 1:
        lines.append("nothing to mend")
    elif done.dry_run:
        lines.append("nothing was changed (--dry-run)")
    return "\n".join(lines)
