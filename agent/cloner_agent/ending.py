"""What happens after a failure: report it, show it, then either restart or hold.

Must not touch a disk: after a destructive step the node stays as it is until a person decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cloner_agent.console import Console
from cloner_agent.protocol import Server, ServerFault
from cloner_core.errors import ClonerError
from cloner_core.messages import BeatReply, Failure

log = logging.getLogger(__name__)

SHOWN_S = 15.0
_POLL_S = 1.0
_REPORT_AGAIN_S = 30.0


class Ending:
    """Ends a failed attempt."""

    def __init__(
        self,
        server: Server,
        console: Console,
        *,
        order: Callable[[], BeatReply],
        reboot: Callable[[], None],
        explain: Callable[[Failure], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the seams; `explain` sends what else is known of the failure, once the server has heard of it."""
        self._server = server
        self._console = console
        self._order = order
        self._reboot = reboot
        self._explain = explain
        self._sleep = sleep

    def end(self, failure: Failure) -> None:
        """Report and show `failure`; restart when nothing was destroyed, else hold until ordered otherwise."""
        self._console.failed(failure)
        is_told = self._tell(failure)
        if not failure.is_destroyed:
            # Untold, the server finds the attempt lost and the next network boot is another try of the same task.
            self._sleep(SHOWN_S)
            self._restart("nothing was destroyed")
            return
        self._hold(failure, is_told)

    def _hold(self, failure: Failure, is_told: bool) -> None:
        self._console.hold()
        waited = 0.0
        refused = self._order()  # an abort that caused the failure is not an answer to it
        while True:
            order = self._order()
            if order.order == "retry":
                self._restart("retry")
                return
            if order.order == "abort" and order != refused and is_told:
                self._restart("aborted")
                return
            if order.order != "abort":
                refused = order
            self._sleep(_POLL_S)
            waited += _POLL_S
            if waited >= _REPORT_AGAIN_S:
                waited = 0.0
                if not is_told:
                    is_told = self._tell(failure)
                self._console.failed(failure)
                self._console.hold()

    def _tell(self, failure: Failure) -> bool:
        try:
            self._server.fail(failure)
        except ServerFault as error:
            log.warning("the server did not take the failure: %s", error)
            return True
        except Exception as error:  # noqa: BLE001 — whatever it is, it must not end the holding
            log.warning("the failure is not reported yet: %s", error)
            return False
        try:
            self._explain(failure)
        except Exception as error:  # noqa: BLE001 — the failure is told; what explains it must not end the holding
            log.warning("the bundle is not sent: %s", error)
        return True

    def _restart(self, why: str) -> None:
        self._console.reboot(why)
        try:
            self._server.rebooting()
        except ClonerError as error:
            log.debug("rebooting: %s", error)
        self._reboot()
