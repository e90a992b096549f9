"""Sets the clock of the node from the server's authenticated reply.

A node's battery may be empty: certificates and timestamps of the clone need a clock that is about right.
"""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

TOLERANCE_S = 2.0


def set_clock(server_time_s: float) -> bool:
    """Set the system clock unless it is within two seconds already; say whether it can be trusted now."""
    off_s = server_time_s - time.time()
    if abs(off_s) <= TOLERANCE_S:
        return True
    try:
        time.clock_settime(time.CLOCK_REALTIME, server_time_s)
    except OSError as error:
        log.warning("the clock is %.0f s off and cannot be set: %s", -off_s, error)
        return False
    log.info("clock: set, it was %.0f s off", -off_s)
    return True
