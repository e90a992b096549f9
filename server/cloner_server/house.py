"""What the server does because time passes, several times a second: deadlines, the network's events, the machine's
clock, old rows, and its own certificate.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cloner_core.errors import ClonerError
from cloner_core.sizes import format_bytes
from cloner_server import certificates
from cloner_server.boot import BootDesk
from cloner_server.clock import SteadyClock
from cloner_server.core import Core
from cloner_server.site import renew_certificate
from cloner_server.state import events, sizes
from cloner_server.state.database import Act
from cloner_server.state.pruning import Keep, prune
from cloner_server.tasks import discovery, housekeeping, timeshift, waiting

log = logging.getLogger(__name__)

_PRUNE_EVERY_S = 600.0
_CERTIFICATE_EVERY_S = 86400.0
_AGAIN_S = 3600.0  # after a renewal that failed
_SIZE_EVERY_S = 3600.0  # a look whether a day has passed since the last size of the store
_LOOK_EVERY_S = 60.0  # at the room on the disk
_LOW_AGAIN_S = 3600.0  # between two alarms of it
_LOW = "disk nearly full"


@dataclass(slots=True)
class House:
    """Keeps the house of one server; `core.clock` is `clock`."""

    core: Core
    desk: BootDesk
    clock: SteadyClock
    warn_bytes: int = 0  # less than this, or a fifth, free on the state's disk is an alarm
    keep: Keep = field(default_factory=Keep)
    on_certificate: Callable[[], object] = lambda: None  # a new one lies there
    _started_s: float = field(init=False)  # on the even clock, as all times here
    _pruned_s: float = field(init=False)
    _certify_s: float = field(init=False)  # when to look at the certificate
    _look_s: float = field(init=False)  # when to look at the disk
    _sized_s: float = field(init=False)
    _keep_s: float = field(init=False)  # when to write what the start could not

    def __post_init__(self) -> None:
        """Begin now: deadlines count from here, for while the server was away nobody could call."""
        self._started_s = self._pruned_s = self._sized_s = self.clock.steady()
        self._certify_s = self._look_s = self._keep_s = self._started_s

    @property
    def started_s(self) -> float:
        """When the server began, by the time of day as it is now."""
        return self.core.clock() - (self.clock.steady() - self._started_s)

    def turn(self) -> None:
        """Do what is due."""
        self._follow_clock()
        self._keep_certificate()
        self._look_at_disk()
        core, act, started_s = self.core, self.core.act("server"), self.started_s
        with core.database.read() as connection:
            since = act.now_s, core.rules, started_s
            is_due = housekeeping.is_due(connection, *since) or discovery.is_due(connection, *since)
            is_due = is_due or waiting.is_due(connection, act.now_s, core.rules)
        tired: list[str] = []
        if is_due or self.desk.has_news or core.audit.has_news(act.now_s):
            # News is taken before the transaction and given back after it: a commit that fails loses none.
            with self.desk.news() as seen, core.audit.news(act.now_s) as notes, core.database.write() as connection:
                housekeeping.tidy(connection, act, core.rules, started_s)
                discovery.tidy(connection, act, core.rules, started_s)
                tired = waiting.tidy(connection, act, core.rules)
                self.desk.record(connection, act, seen)
                core.audit.record(connection, act, notes)
        core.calls.call(tired)
        if self.clock.steady() - self._pruned_s >= _PRUNE_EVERY_S:
            with core.database.write() as connection:
                removed = prune(connection, act.now_s, self.keep)
            if not removed:  # else more at the next turn
                self._pruned_s = self.clock.steady()
        self._note_size()
        self._keep_start()

    def _follow_clock(self) -> None:
        step_s = self.clock.step_s()
        if abs(step_s) < timeshift.MIN_STEP_S:
            self.clock.advance(step_s)
            return
        log.warning("the machine's clock was stepped by %+.1f s; deadlines move with it", step_s)
        followed_s = 0.0
        try:
            with self.core.database.write() as connection:
                timeshift.shift(connection, Act("server", self.clock() + step_s), step_s)
                self.clock.advance(step_s)  # in the writers' turn: none goes by the old time after the shift
                followed_s = step_s
        except BaseException:
            self.clock.advance(-followed_s)  # no deadline has moved: the step is still to be followed
            raise

    def _keep_certificate(self) -> None:
        if self.clock.steady() < self._certify_s:
            return
        act = self.core.act("server")
        try:
            is_new = renew_certificate(self.core.site, act.now_s)
        except (ClonerError, OSError) as fault:
            self._record(act, "certificate not renewed", alarm=True, why=str(fault))
            self._certify_s = self.clock.steady() + _AGAIN_S
            return
        if is_new:
            self.on_certificate()  # first: a record that fails must not keep it from being used
            left = certificates.days_left(self.core.site.certificate.read_bytes(), act.now_s)
            self._record(act, "certificate renewed", days=round(left))
        left = certificates.days_left(self.core.site.ca_pem, act.now_s)
        if left < certificates.CA_WARNING_DAYS:
            why = "nodes and their initramfs trust nothing else: plan a new site, or set the clock if it is wrong"
            self._record(act, "the site's CA ends", alarm=True, days=round(left), why=why)
        self._certify_s = self.clock.steady() + _CERTIFICATE_EVERY_S  # last: what could not be recorded is tried again

    def _look_at_disk(self) -> None:
        """Tell that uploads end soon or have ended, while there is room to keep it."""
        if self.clock.steady() < self._look_s:
            return
        self._look_s = self.clock.steady() + _LOOK_EVERY_S
        disk = shutil.disk_usage(self.core.state_directory)
        if disk.free >= min(self.warn_bytes, disk.total // 5):
            return
        act = self.core.act("server")
        why = "uploads end at the reserve (reserve_mib): cloner store gc, or a bigger filesystem"
        log.warning("%s: %s free, %s", _LOW, format_bytes(disk.free), why)
        told = {"free": format_bytes(disk.free), "why": why}
        with self.core.database.write() as connection:
            events.record_seldom(connection, act, "site", _LOW, most=1, within_s=_LOW_AGAIN_S, alarm=True, **told)

    def _keep_start(self) -> None:
        """Write what the start found no room for."""
        if not self.core.unkept or self.clock.steady() < self._keep_s:
            return
        self._keep_s = self.clock.steady() + _LOOK_EVERY_S
        while self.core.unkept:
            self.core.unkept[0]()
            del self.core.unkept[0]

    def _note_size(self) -> None:
        """Keep how much of the store's disk is used, once a day."""
        if self.clock.steady() - self._sized_s < _SIZE_EVERY_S:
            return
        self._sized_s = self.clock.steady()
        now_s = self.core.clock()
        with self.core.database.read() as connection:
            is_due = sizes.is_due(connection, now_s)
        if is_due:
            used_bytes, _ = self.core.catalog.store.space()
            with self.core.database.write() as connection:
                sizes.note(connection, now_s, used_bytes)

    def _record(self, act: Act, what: str, *, alarm: bool = False, **detail: Any) -> None:
        log.log(logging.WARNING if alarm else logging.INFO, "%s: %s", what, detail)
        with self.core.database.write() as connection:
            events.record(connection, act, "site", what, alarm=alarm, **detail)
