"""One small function for each kind of step: the only place that maps a plan's actions to effects.

Must not choose anything; a step that says nothing about a thing does nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloner_agent.attempt import Attempt
from cloner_agent.stages import (
    bios,
    bootfiles,
    check,
    commit,
    disks,
    encryption,
    files,
    identity,
    initramfs,
    nvram,
    opening,
    reboot,
    references,
    scripts,
    volumes,
)
from cloner_core import steps

_BY_KIND: dict[type[steps.Action], Callable[[Attempt, Any], None]] = {
    steps.Guard: disks.guard,
    steps.StopHolders: disks.stop,
    steps.Command: disks.command,
    steps.BiosStub: bios.put_stub,
    steps.LuksFormat: volumes.make_encrypted,
    steps.LuksKeys: encryption.give_keys,
    steps.OpenAtBoot: opening.open_at_boot,
    steps.Mount: disks.mount,
    steps.StageEsp: disks.stage_esp,
    steps.Restore: files.restore,
    steps.ReadBack: files.read_back,
    steps.Identity: identity.write_identity,
    steps.Rewrite: references.rewrite,
    steps.MakeSwapFile: volumes.make_swap_file,
    steps.BootFiles: bootfiles.place,
    steps.CheckInitramfs: initramfs.check_initramfs,
    steps.RunScript: scripts.run_script,
    steps.Check: check.check,
    steps.Commit: commit.ask,
    steps.ActivateEsp: commit.activate_esp,
    steps.BiosBoot: bios.make_bootable,
    steps.Nvram: nvram.write,
    steps.SendReceipt: commit.send_receipt,
    steps.Reboot: reboot.restart,
}


def apply_step(attempt: Attempt, action: steps.Action) -> None:
    """Do what one action says; raises whatever stops it."""
    _BY_KIND[type(action)](attempt, action)


def applied_kinds() -> frozenset[type[steps.Action]]:
    """Return the kinds of action that can be applied; a test holds it equal to the closed set of the plan."""
    return frozenset(_BY_KIND)
