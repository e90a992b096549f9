"""NVMe: sanitize and format by the controller itself, believed by its log and not by the end of a program.

Source: NVM Express Base Specification 2.0, §5.24 (Sanitize), §5.16.1.25 (Sanitize Status log), §5.14 (Format NVM).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from cloner_agent.erase.abilities import read_json
from cloner_agent.failures import StageError
from cloner_agent.host import Runner, ToolError
from cloner_core.erasing.words import Way
from cloner_core.messages import Cause

log = logging.getLogger(__name__)

_ACTIONS = {Way.SANITIZE_BLOCK: 2, Way.SANITIZE_CRYPTO: 4}  # SANACT
_SES = {Way.FORMAT: 1, Way.FORMAT_CRYPTO: 2}  # never 0, which erases nothing
_DONE, _RUNNING, _FAILED, _DONE_DEALLOCATED = 1, 2, 3, 4  # SSTAT, bits 2:0
_STATUS = re.compile(r"\((\d+)\)")
_PROGRESS_WHOLE = 65536
_POLL_S = 2.0
_START_S = 120.0
_FORMAT_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class SanitizeLog:
    """The Sanitize Status log page."""

    status: int
    progress: int  # of 65536
    action: int  # SANACT of the last sanitize
    is_all_erased: bool  # nothing was written since

    def describe(self) -> str:
        """Return it in words."""
        erased = "set" if self.is_all_erased else "not set"
        return f"sanitize log: status {self.status}, action {self.action}, global data erased {erased}"


def sanitize(
    run: Runner,
    path: str,
    way: Way,
    *,
    progress: Callable[[float], None],
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, ...]:
    """Sanitize the subsystem of `path` and wait for its end; returns what its log says.

    One that runs already, begun before a power cut, is waited for; when it was of the same kind it is the erase.
    Raises StageError (NOT_ERASED) unless the log says that this very sanitize ended well.
    """
    wanted = _ACTIONS[way]
    found = read_log(run, path)
    is_ours = found.status == _RUNNING and found.action == wanted
    if found.status == _RUNNING:
        log.info("%s: a sanitize runs already (action %d); it goes on by itself", path, found.action)
        found = _wait(run, path, progress, sleep)
    if not is_ours or found.status not in (_DONE, _DONE_DEALLOCATED):
        # Restricted exit: should it fail, the media stay unreadable instead of half readable.
        try:
            run(("nvme", "sanitize", path, f"--sanact={wanted}"), timeout_s=_START_S)
        except ToolError:
            found = read_log(run, path)
            if (found.status, found.action) != (_RUNNING, wanted):
                raise
            log.info("%s: another namespace of its subsystem has begun the same sanitize", path)
        found = _wait(run, path, progress, sleep)
    if found.status not in (_DONE, _DONE_DEALLOCATED) or found.action != wanted:
        raise StageError(Cause.NOT_ERASED, f"{path}: {way.value} did not end well: {found.describe()}")
    return (found.describe(),)


def _wait(run: Runner, path: str, progress: Callable[[float], None], sleep: Callable[[float], None]) -> SanitizeLog:
    while (found := read_log(run, path)).status == _RUNNING:
        progress(found.progress / _PROGRESS_WHOLE)
        sleep(_POLL_S)
    return found


def read_log(run: Runner, path: str) -> SanitizeLog:
    """Return the log page; raises StageError (NOT_ERASED) when the tool's words are not understood."""
    # `--rae` keeps the event that tells other watchers of the end.
    told = read_json(run, ("nvme", "sanitize-log", path, "--rae", "--output-format=json"))
    try:
        (page,) = (one for one in told.values() if isinstance(one, dict)) if "sprog" not in told else (told,)
        state = page["sstat"]
        # Releases of nvme-cli name the key of the status by turns; its value always begins with the number.
        words = [match for value in state.values() if (match := _STATUS.match(str(value)))]
        return SanitizeLog(
            status=int(words[0][1]),
            progress=int(page["sprog"]),
            action=int(page["cdw10_info"]) & 7,
            is_all_erased=bool(state["global_erased"]),
        )
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise StageError(Cause.NOT_ERASED, f"{path}: its sanitize log is not understood: {told}") from error


def format_namespace(run: Runner, path: str, way: Way) -> tuple[str, ...]:
    """Format the namespace with a secure erase, in the format it has; returns what shows it.

    Raises StageError (NOT_ERASED) when the controller does not say that it was done in whole.
    """
    before = read_json(run, ("nvme", "id-ns", path, "--output-format=json"))
    flbas, dps = int(before["flbas"]), int(before["dps"])
    argv = ["nvme", "format", path, f"--ses={_SES[way]}", "--force", f"--timeout={int(_FORMAT_S * 1000)}"]
    # Index of the LBA format: bits 3:0, and 6:5 above them; metadata and protection as they are.
    argv += [f"--lbaf={(flbas & 0xF) | (flbas >> 1 & 0x30)}", f"--ms={flbas >> 4 & 1}"]
    argv += [f"--pi={dps & 7}", f"--pil={dps >> 3 & 1}"]
    done = run(argv, timeout_s=_FORMAT_S + _START_S)
    said = " ".join(done.stdout.split())
    if "success" not in said.lower():
        raise StageError(Cause.NOT_ERASED, f"{path}: nvme format ended and said no success: '{said[:200]}'")
    after = read_json(run, ("nvme", "id-ns", path, "--output-format=json"))
    if (left := int(after.get("fpi", 0)) & 0x7F) != 0:  # FPI, percent of a format that is still to be done
        raise StageError(Cause.NOT_ERASED, f"{path}: the controller says that {left} % of the format are left")
    if (after["nsze"], after["flbas"]) != (before["nsze"], before["flbas"]):
        raise StageError(Cause.NOT_ERASED, f"{path}: size or format of the namespace is another than before")
    return (f"nvme format --ses={_SES[way]}: {said[:200]}", "identify namespace: nothing of the format is left to do")
