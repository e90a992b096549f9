"""What md knows of the members of an array and keeps from whoever reads it. Must not change an array."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cloner_core.plan.values import PlannedArray

_OF_A_FAILING_DISK = ("faulty", "write_error", "want_replacement")
_BAD_BLOCKS = ("bad_blocks", "unacknowledged_bad_blocks")  # not there without a log of them


def member_faults(array: PlannedArray, *, root: str = "/") -> Iterator[tuple[str, str]]:
    """Give each member of `array` that does not hold its part of the data whole, and what is wrong with it.

    `root` stands before /sys. Source: Documentation/admin-guide/md.rst, "dev-XXX"; drivers/md/md.c, state_show().
    """
    home = Path(root) / "sys/block" / array.device.removeprefix("/dev/") / "md"
    # Read before the states: what was a spare then may be in sync now, not the other way round.
    is_recovering = _text(home / "sync_action") == "recover"
    # The parity of a new array is built onto its last member, which is a spare until that is done.
    can_be_spare = is_recovering and array.level in ("raid5", "raid6")
    for device in array.members:
        fault = _fault(home / f"dev-{device.removeprefix('/dev/')}", can_be_spare=can_be_spare)
        if fault:
            yield device, fault


def _fault(member: Path, *, can_be_spare: bool) -> str:
    states = _text(member / "state").split(",")
    if states == [""]:
        return "is not in the array"
    failing = [state for state in states if state in _OF_A_FAILING_DISK]
    if failing:
        return f"is {', '.join(failing)}"
    bad = next((text for text in (_text(member / name) for name in _BAD_BLOCKS) if text), "")
    if bad:
        return f"has bad blocks, the first at sector {bad.split()[0]}"
    if "in_sync" in states or (can_be_spare and "spare" in states):
        return ""
    return f"is not in sync but {', '.join(states)}"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
