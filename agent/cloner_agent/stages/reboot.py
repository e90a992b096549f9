"""The last step: next boot from the new entry, everything unmounted, restart."""

from __future__ import annotations

import logging

from cloner_agent.attempt import Attempt
from cloner_agent.stages.disks import unmount_all
from cloner_core.efi import build_order
from cloner_core.errors import ClonerError
from cloner_core.steps import Reboot

log = logging.getLogger(__name__)


def restart(attempt: Attempt, action: Reboot) -> None:
    """Set BootNext, unmount, sync, restart. What fails here is only logged: the deploy is done and acknowledged."""
    tools, number = attempt.tools, attempt.record.boot_number
    if number is not None:
        try:
            tools.efivars.write("BootNext", build_order((number,)))
        except OSError as error:
            log.warning("BootNext is not set (%s): the server's 'local' answer brings the node to its disk", error)
    try:
        unmount_all(tools.run, tools.target)
    except (ClonerError, OSError, ValueError) as error:
        log.warning("not everything is unmounted: %s", error)
    tools.machine.sync()
    try:
        tools.server.rebooting()
    except ClonerError as error:
        log.debug("rebooting: %s", error)
    tools.reporter.console.reboot("done")
    tools.machine.reboot()
