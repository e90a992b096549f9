"""Options kept with an image: one form, and one rule for what counts where a command line says otherwise."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.errors import InvalidError, RefusedError
from cloner_core.image.options import (
    Conflict,
    Difference,
    GivenOptions,
    StoredOptions,
    canonical,
    difference_rows,
    settle,
)

STORED = StoredOptions("one-disk", ("/srv/data", "/var/log/*"), ("/dev/sdb",))

paths = st.lists(st.sampled_from(["/a", "/b/c", "/var/log/*", "/a/", "/x"]), max_size=4).map(tuple)
devices = st.lists(st.sampled_from(["sda", "/dev/sda", "sdb,sdc", "model=INTEL*", ""]), max_size=4).map(tuple)
names = st.sampled_from(["", "one", "two"])
options = st.builds(StoredOptions, names, paths, devices).map(canonical)
commands = st.builds(GivenOptions, st.none() | names, st.none() | paths, st.none() | devices)


def test_a_new_image_takes_what_is_given() -> None:
    given = GivenOptions("one-disk", ("/srv/data/", "/a"), ("sdb",))
    for conflict in Conflict:
        settled = settle(None, given, conflict, can_ask=False)
        assert settled.options == StoredOptions("one-disk", ("/a", "/srv/data"), ("/dev/sdb",))
        assert (settled.differences, settled.ignored, settled.is_asked) == ((), (), False)


def test_nothing_given_is_what_is_stored() -> None:
    for conflict in Conflict:
        assert settle(STORED, GivenOptions(), conflict, can_ask=False).options == STORED


def test_order_spelling_and_repetition_are_no_difference() -> None:
    given = GivenOptions("one-disk", ("/var/log/*", "/srv/data/", "/srv/data"), ("sdb", "/dev/sdb"))
    for conflict in Conflict:
        settled = settle(STORED, given, conflict, can_ask=False)
        assert (settled.options, settled.differences) == (STORED, ())


DIFFERENCES = (
    Difference("--disklayout", "one-disk", "two-disks"),
    Difference("--exclude-paths", "/srv/data", ""),
    Difference("--exclude-paths", "", "/home/*/cache"),
)
GIVEN = GivenOptions("two-disks", ("/var/log/*", "/home/*/cache"))


def test_the_server_wins_and_says_what_was_given_in_vain() -> None:
    settled = settle(STORED, GIVEN, Conflict.SERVER, can_ask=True)
    assert (settled.options, settled.differences) == (STORED, DIFFERENCES)
    assert settled.ignored == ("--disklayout two-disks", "--exclude-paths /home/*/cache,/var/log/*")
    assert not settled.is_asked


def test_the_command_line_wins_in_what_it_says() -> None:
    settled = settle(STORED, GIVEN, Conflict.COMMANDLINE, can_ask=False)
    assert settled.options == StoredOptions("two-disks", ("/home/*/cache", "/var/log/*"), ("/dev/sdb",))
    assert (settled.differences, settled.ignored, settled.is_asked) == (DIFFERENCES, (), False)


def test_a_prompt_shows_each_difference_and_is_an_error_where_nobody_can_be_asked() -> None:
    settled = settle(STORED, GIVEN, Conflict.PROMPT, can_ask=True)
    assert (settled.is_asked, settled.differences) == (True, DIFFERENCES)
    assert settled.options == settle(STORED, GIVEN, Conflict.COMMANDLINE, can_ask=False).options
    with pytest.raises(RefusedError) as told:
        settle(STORED, GIVEN, Conflict.PROMPT, can_ask=False)
    assert told.value.message.split("\n  - ")[1:] == [
        "--disklayout: stored is one-disk, given is two-disks",
        "--exclude-paths: stored is /srv/data, given is nothing",
        "--exclude-paths: stored is nothing, given is /home/*/cache",
    ]
    assert "server" in told.value.hint
    assert "commandline" in told.value.hint


def test_a_list_can_be_emptied() -> None:
    settled = settle(STORED, GivenOptions(exclude_devices=("",)), Conflict.COMMANDLINE, can_ask=False)
    assert settled.options.exclude_devices == ()
    assert settle(STORED, GivenOptions(exclude_paths=()), Conflict.SERVER, can_ask=False).ignored == (
        '--exclude-paths ""',
    )


def test_a_table_has_a_row_for_each_value() -> None:
    assert difference_rows(DIFFERENCES) == [
        ("--disklayout", "one-disk", "two-disks"),
        ("--exclude-paths", "/srv/data", "-"),
        ("--exclude-paths", "-", "/home/*/cache"),
    ]


def test_every_fault_is_told_at_once() -> None:
    given = GivenOptions(exclude_paths=("relative", "/good", "/a/../b"), exclude_devices=("colour=red", "/srv"))
    with pytest.raises(InvalidError) as told:
        settle(STORED, given, Conflict.SERVER, can_ask=False)
    assert len(told.value.faults) == 4


@settings(deadline=None)
@given(options, commands)
def test_what_counts_is_stored_or_given_and_nothing_else(stored: StoredOptions, command: GivenOptions) -> None:
    server = settle(stored, command, Conflict.SERVER, can_ask=False)
    commandline = settle(stored, command, Conflict.COMMANDLINE, can_ask=False)
    assert server.options == stored
    assert server.differences == commandline.differences
    assert bool(server.ignored) == bool(server.differences) == (commandline.options != stored)
    for field in ("layout", "exclude_paths", "exclude_devices"):
        if getattr(command, field) is None:
            assert getattr(commandline.options, field) == getattr(stored, field)
    if not server.differences:
        assert settle(stored, command, Conflict.PROMPT, can_ask=False).options == stored


@settings(deadline=None)
@given(options, commands)
def test_what_was_stored_once_is_no_conflict_the_next_time(stored: StoredOptions, command: GivenOptions) -> None:
    after = settle(stored, command, Conflict.COMMANDLINE, can_ask=False).options
    assert settle(after, command, Conflict.PROMPT, can_ask=False).options == after
    assert canonical(after) == after


@settings(deadline=None)
@given(options)
def test_a_document_is_read_as_it_was_written(stored: StoredOptions) -> None:
    assert msgspec.json.decode(msgspec.json.encode(stored), type=StoredOptions) == stored
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"colour": "green"}', type=StoredOptions)
