"""ATA security erase: a password is set, the disk erases itself and forgets it; its state afterwards is what counts.

Source: ACS-4 §4.20 (Security feature set).
"""

from __future__ import annotations

import logging

from cloner_agent.erase.abilities import parse_identify
from cloner_agent.failures import StageError
from cloner_agent.host import Runner, ToolError
from cloner_core.erasing.abilities import AtaAbilities
from cloner_core.erasing.plan import UNFREEZE
from cloner_core.erasing.words import Way
from cloner_core.messages import Cause

log = logging.getLogger(__name__)

PASSWORD = "cloner"  # no secret: it is documented, so that a disk cut off in its erase can be unlocked
_ASK_S = 60.0
_MARGIN_S = 3600.0
_UNTOLD_S = 96 * 3600.0  # 508 minutes mean "that or more", and large disks take days


def secure_erase(run: Runner, path: str, way: Way) -> tuple[str, ...]:
    """Erase the disk by its own firmware; returns its state afterwards in words.

    A disk that was cut off in an erase of ours is locked by our password, and takes the erase all the same.
    Raises StageError: NO_METHOD when it is frozen or locked by another's password, NOT_ERASED when it says so.
    """
    before = _state(run, path)
    if before.is_frozen:
        raise StageError(Cause.NO_METHOD, f"the ATA security of {path} is frozen by the firmware", hint=UNFREEZE)
    if not before.is_enabled:
        run(("hdparm", "--user-master", "u", "--security-set-pass", PASSWORD, path), timeout_s=_ASK_S)
        if not _state(run, path).is_enabled:
            raise StageError(Cause.NO_METHOD, f"{path} took no security password, so it cannot erase itself")
    is_enhanced = way is Way.ATA_ENHANCED
    option = "--security-erase-enhanced" if is_enhanced else "--security-erase"
    minutes = before.enhanced_minutes if is_enhanced else before.minutes
    limit_s = minutes * 60 * 2 + _MARGIN_S if 0 < minutes < 508 else _UNTOLD_S
    try:
        run(("hdparm", "--user-master", "u", option, PASSWORD, path), timeout_s=limit_s)
    except ToolError as error:
        raise _refused(run, path, way, before, error) from error
    after = _state(run, path)
    if after.is_enabled or after.is_locked:
        _unlock(run, path)
        raise StageError(Cause.NOT_ERASED, f"{path} still has its password after {way.value}: it did not erase itself")
    return (f"ATA security after {way.value}: not enabled, not locked, not frozen",)


def _refused(run: Runner, path: str, way: Way, before: AtaAbilities, error: ToolError) -> StageError:
    if before.is_enabled:
        return StageError(
            Cause.NO_METHOD,
            f"{path} has a security password, and it is not that of Cloner: {error.message}",
            hint=f"hdparm --security-unlock and --security-disable with its own password; Cloner's is '{PASSWORD}'",
        )
    _unlock(run, path)
    return StageError(Cause.NOT_ERASED, f"{path}: {way.value} failed: {error.message}")


def _unlock(run: Runner, path: str) -> None:
    """Take our password away again, as far as the disk lets us."""
    for option in ("--security-unlock", "--security-disable"):
        try:
            run(("hdparm", "--user-master", "u", option, PASSWORD, path), timeout_s=_ASK_S)
        except ToolError as error:
            log.warning("%s keeps the password '%s': %s", path, PASSWORD, error)


def _state(run: Runner, path: str) -> AtaAbilities:
    return parse_identify(run(("hdparm", "-I", path), timeout_s=_ASK_S).stdout)
