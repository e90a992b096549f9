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
        "a pre-script refuses the machine",
        "failed",
        "pre-script",
        "script",
        "its output is in the log of the task",
        "tests/agent/test_deploy.py",
        "test_it_is_refused_before_a_bit_of_the_disk_changed",
    ),
    Elsewhere(
        "a post-script fails, or overruns its time limit",
        "failed",
        "post-script",
        "script",
        "the log of the task has the output of the script",
        "tests/agent/test_stage_scripts.py",
        "test_a_time_limit_ends_a_script_and_all_it_has_started",
    ),
    Elsewhere(
        "the initramfs lacks the disk's driver",
        "done",
        "–",
        "–",
        "it is made anew, and the receipt says so",
        "tests/agent/test_initramfs_rebuild.py",
        "test_an_initramfs_for_another_machine_is_made_anew_by_the_image_itself",
    ),
    Elsewhere(
        "the initramfs lacks the disk's driver, and the image cannot make it anew",
        "failed",
        "bootfiles",
        "not-bootable",
        "install what is missing on the golden node",
        "tests/agent/test_stage_initramfs.py",
        "test_an_image_without_a_tool_is_refused_when_it_lacks_what_it_boots_from",
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
