"""What a machine needs to be a server: what was found, what would be written and run; and doing so."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from cloner_core.errors import ClonerError, ConflictError, ExitStatus, InvalidError, NotFoundError, RefusedError
from cloner_initramfs import Cache, default_cache, write_installer
from cloner_initramfs.host import run as run_program
from cloner_server.durable import replace_file, write_new
from cloner_server.site import open_site

_ORDER = (ExitStatus.USAGE, ExitStatus.NOT_FOUND, ExitStatus.REFUSED, ExitStatus.CONFLICT)
_CLASSES: dict[ExitStatus, type[ClonerError]] = {
    ExitStatus.NOT_FOUND: NotFoundError,
    ExitStatus.REFUSED: RefusedError,
    ExitStatus.CONFLICT: ConflictError,
}


class Kind(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"  # decided for you, or to be remembered
    WARNING = "warning"  # works, and may hurt
    FAULT = "fault"  # nothing is changed while it stands


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    kind: Kind
    what: str
    remedy: str = ""
    status: ExitStatus = ExitStatus.OK  # of the command, when it is a fault


class Change(msgspec.Struct, frozen=True):
    """One file as it is to be."""

    path: str
    action: Literal["made", "replaced", "unchanged"]
    content: str
    diff: str = ""  # of the former content; "" when there was none, or no change
    backup: str = ""  # where the former content is kept; "" nowhere, for we wrote it ourselves
    mode: int = 0o644


class Preparation(msgspec.Struct, frozen=True):
    """All of it; with a fault in it nothing is done."""

    interface: str
    address: str  # with the prefix length
    dhcp: str
    state: str
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...] = ()
    makes_keys: bool = False
    builds: tuple[str, str] | None = None  # installer directory and flavour of drivers; None: nothing is built
    commands: tuple[tuple[str, ...], ...] = ()  # run after the files are written
    next: tuple[str, ...] = ()  # what to type next


def raise_faults(findings: Iterable[Finding]) -> None:
    """Raise when there is a fault, with all of them; the class is that of the status that comes first in 2, 3, 4, 5."""
    faults = [one for one in findings if one.kind is Kind.FAULT]
    if not faults:
        return
    status = min((one.status for one in faults), key=_ORDER.index)
    lines = [one.what for one in faults]
    hint = "; ".join(dict.fromkeys(one.remedy for one in faults if one.remedy))
    headline = "this machine was not made a server, and nothing was changed"
    if status is ExitStatus.USAGE:
        raise InvalidError(headline, faults=lines, hint=hint)
    raise _CLASSES[status]("\n  - ".join((headline, *lines)), hint=hint)


def apply(preparation: Preparation, say: Callable[[str], None]) -> None:
    """Do what `preparation` says; raises ClonerError, and then a further run goes on where this one ended."""
    raise_faults(preparation.findings)
    if preparation.builds is not None:
        directory, flavour = preparation.builds
        say(f"building the installer in {directory}; what is cached is not built again")
        write_installer(Cache(default_cache()), Path(directory), flavour=flavour)
    if preparation.makes_keys:  # else a server may be at work with them
        open_site(Path(preparation.state), time.time())
    for change in preparation.changes:
        if change.action != "unchanged":
            _write(change)
    for argv in preparation.commands:
        say(f"run: {shlex.join(argv)}")
        run_program(argv, timeout_s=120)


def _write(change: Change) -> None:
    path = Path(change.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if change.backup:
        write_new(Path(change.backup), path.read_bytes(), path.stat().st_mode & 0o7777)
    replace_file(path, change.content.encode(), change.mode)
