"""The table of docs/staged-failures.md, made from the rows that are tested; some have a test elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentbench.row import Row
from agentbench.rows import KILL_ROWS, ROWS

STAGED = "tests/netns/test_staged_failures.py"
HEAD = ("| failure | the task ends | stage | cause | hint | test |", "|---|---|---|---|---|---|")


@dataclass(frozen=True)
class Elsewhere:
    """A staged failure whose test needs more, or less, than a simulated machine."""

    what: str
    state: str
    stage: str
    cause: str
    hint: str
    file: str
    test: str


ELSEWHERE = (
    Elsewhere(
        "wrong protocol version",
        "booting",
        "hello",
        "protocol",
        "rebuild the initramfs",
        "tests/agent/test_deploy.py",
        "test_it_is_refused_before_a_bit_of_the_disk_changed",
    ),
    Elsewhere(
        "hello of another protocol at the server",
        "booting",
        "–",
        "–",
        "rebuild the initramfs",
        "tests/server/test_wrong_requests.py",
        "test_a_hello_that_is_wrong_in_itself_uses_no_claim",
    ),
    Elsewhere(
        "initramfs too big for the memory",
        "queued",
        "–",
        "–",
        "the boot script names both sizes",
        "tests/pxe/test_decision.py",
        "test_a_node_too_small_for_the_agent_waits_and_says_both_sizes",
    ),
    Elsewhere(
        "switch port silent for 60 s (bridge with STP)",
        "done",
        "–",
        "–",
        "said on the console in each round",
        "vm-tests/test_initramfs.py",
        "test_a_late_link_and_a_port_that_spanning_tree_blocks_are_waited_for_aloud",
    ),
    Elsewhere(
        "clock of 1970 and of 2037",
        "done",
        "–",
        "–",
        "the clock is set from the server's reply",
        "vm-tests/test_deploy.py",
        "test_two_machines_cloned_at_once_share_nothing_and_survive_the_server_killed",
    ),
    Elsewhere(
        "disk full on the server, in a capture",
        "–",
        "–",
        "–",
        "nothing is published, nothing spoilt",
        "tests/server/test_store_full.py",
        "test_a_capture_into_a_full_store_publishes_nothing_and_spoils_nothing",
    ),
    Elsewhere(
        "disk full on the server, at a boot",
        "queued",
        "–",
        "–",
        "the node asks again",
        "tests/server/test_serving_on.py",
        "test_a_full_disk_makes_an_armed_node_ask_again",
    ),
    Elsewhere(
        "clone never calls",
        "failed",
        "reboot",
        "unconfirmed",
        "watch the console",
        "tests/server/test_wrong_requests.py",
        "test_an_overdue_confirmation_fails_the_task_and_a_late_one_mends_it",
    ),
    Elsewhere(
        "clone comes back to the network again and again",
        "failed",
        "reboot",
        "boot-loop",
        "watch the console",
        "tests/pxe/test_decision.py",
        "test_more_than_three_local_answers_in_an_hour_are_a_boot_loop",
    ),
    Elsewhere(
        "the same disk refusals on a real machine",
        "failed",
        "verify, plan",
        "corrupt, ambiguous-disk, disk-too-small",
        "as above",
        "vm-tests/test_deploy.py",
        "test_what_cannot_end_well_is_refused_before_the_disk_changes",
    ),
)


def lines() -> Iterator[str]:
    """Give the lines of the table."""
    yield from HEAD
    for rows in (ROWS, KILL_ROWS):
        for name, row in rows.items():
            yield _line(row.what, _state(row), row.stage or "–", row.cause or "–", _hint(row), f"`{name}`")
    for one in ELSEWHERE:
        yield _line(one.what, one.state, one.stage, one.cause, one.hint, f"`{one.file}::{one.test}`")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _state(row: Row) -> str:
    return f"{row.state}, attempt {row.attempts}" if row.attempts > 1 else row.state


def _hint(row: Row) -> str:
    told = row.expected_hint or row.said or row.note
    return f"… {told} …" if told else "–"
